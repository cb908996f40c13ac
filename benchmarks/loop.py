"""What the loop costs: builds per second, measurements per minute, overhead of a measurement.

    .venv/bin/python -m benchmarks.loop [--measurements 100]

Boards: this machine by pipes, and by a real OpenSSH server on loopback. The overhead is the wall time
of a measurement as the controller sees it, less warm-up, timed and golden runs as the agent sees them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from device_farm.inventory import BoardEntry, Inventory, add_board
from device_farm.setup import setup_runtime
from device_farm.ssh import SSHTransport
from orchestrator.bench import Job
from orchestrator.config import StudyConfig
from orchestrator.progress import Silent
from orchestrator.store.store import Store
from orchestrator.workbench import Workbench, open_workbench, result_of
from profilers.accuracy import build_and_evaluate
from profilers.golden import tolerance
from recipes.compilers.build import build
from search.candidate import Candidate
from tests.sshd import running_sshd


@contextmanager
def boards(folder: Path) -> Iterator[Inventory]:
    """An inventory with one loopback SSH board, set up."""
    with running_sshd(folder / "sshd") as server:
        entry: BoardEntry = server.entry("loopback", python=sys.executable, shares_host="forbidden")
        add_board(folder / "inventory.yaml", entry)
        transport = SSHTransport(entry)
        setup_runtime(transport, entry, folder / "cache")
        transport.close()
        yield Inventory.load(folder / "inventory.yaml")


def random_candidates(bench: Workbench, count: int) -> list[Candidate]:
    """Distinct random candidates of the whole space."""
    draw = random.Random(0)  # noqa: S311 - a benchmark, not a secret
    found: dict[str, Candidate] = {}
    while len(found) < count:
        configs = {layer.name: draw.choice(layer.choices) for layer in bench.first.layers.space.layers}
        candidate = Candidate.of(bench.first.layers.space, configs)
        found[candidate.id] = candidate
    return list(found.values())


def measure(bench: Workbench, count: int) -> tuple[float, list[float], list[float], float]:
    """Return builds per second, overheads (s), sessions (s), measurements per minute."""
    candidates = random_candidates(bench, count)
    result_of(bench.pool.submit(build, bench.first.builder, candidates[0]))
    started = time.perf_counter()
    for built in [bench.pool.submit(build, bench.first.builder, c) for c in candidates]:
        result_of(built)
    per_second = count / (time.perf_counter() - started)
    jobs = []
    for future, candidate in [(bench.pool.submit(build_and_evaluate, bench.first.builder, bench.first.evaluator, c), c)
                              for c in candidates]:
        report = result_of(future)
        jobs.append(Job(report.built.artifact, report.golden_inputs, report.golden_outputs,
                        tolerance(list(candidate.config_of.values()))))
    overheads, sessions = [], []
    begun = time.perf_counter()
    for job in jobs:
        start = time.perf_counter()
        measurement = bench.crew.measure(job)
        overheads.append(time.perf_counter() - start - measurement.session_s)
        sessions.append(measurement.session_s)
    per_minute = 60 * count / (time.perf_counter() - begun)
    return per_second, overheads, sessions, per_minute


SIMPLEST = """
import sys, time
started = time.perf_counter()
sys.path.insert(0, sys.argv[2])
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
begun = time.perf_counter()
while time.perf_counter() - begun < float(sys.argv[3]):
    interpreter.invoke()
print(time.perf_counter() - begun)
"""
"""What a script would do: copy the artifact, run a process that times it."""


def exec_overheads(entry: BoardEntry, store: Store, count: int) -> list[float]:
    """Overheads (s) of the simplest method: copy, then a process per measurement over the same connection."""
    transport = SSHTransport(entry)
    folder = setup_runtime(transport, entry, store.folder / "cache")
    artifact = max(store.blobs.root.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() and _tflite(p) else 0)
    overheads = []
    for number in range(count):
        start = time.perf_counter()
        there = f"{entry.root}/simplest-{number}.tflite"
        transport.push(artifact, there)
        done = transport.run([entry.python, "-c", SIMPLEST, there, folder, "0.1"], 60)
        overheads.append(time.perf_counter() - start - float(done.stdout))
    transport.close()
    return overheads


def _tflite(path: Path) -> bool:
    return path.read_bytes()[4:8] == b"TFL3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measurements", type=int, default=60)
    count = parser.parse_args().measurements
    table = Table(title=f"demo:residual, {count} random candidates, {os.cpu_count()} cores of {_cpu()}")
    for column in ("board", "builds/s", "meas./min", "session ms", "overhead ms: median", "p90", "max"):
        table.add_column(column, justify="left" if column == "board" else "right")
    with tempfile.TemporaryDirectory() as name, boards(Path(name)) as inventory, \
            Store.open(Path(name) / "store") as store:
        for device in ("local", "loopback"):
            config = StudyConfig.model_validate({"device": device, "study": f"loop-{device}"})
            with open_workbench(store, inventory, config, Path(name), Silent()) as bench:
                per_second, overheads, sessions, per_minute = measure(bench, count)
            ordered = sorted(overheads)
            table.add_row(device, f"{per_second:.1f}", f"{per_minute:.0f}", f"{statistics.median(sessions) * 1e3:.1f}",
                          f"{statistics.median(ordered) * 1e3:.1f}", f"{ordered[int(0.9 * count)] * 1e3:.1f}",
                          f"{ordered[-1] * 1e3:.1f}")
        ordered = sorted(exec_overheads(inventory.find("loopback"), store, 10))
        table.add_row("loopback, a process per measurement", "-", "-", "-", f"{statistics.median(ordered) * 1e3:.1f}",
                      f"{ordered[8] * 1e3:.1f}", f"{ordered[-1] * 1e3:.1f}")
    Console(width=110).print(table)


def _cpu() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return names[0] if names else "unknown"


if __name__ == "__main__":
    main()
