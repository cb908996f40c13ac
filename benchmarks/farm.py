"""How busy boards are kept, and how throughput grows with their number.

    .venv/bin/python -m benchmarks.farm [--boards 1,2,4,8] [--waits 0.2,1,5] [--seconds 12] [--rounds 3]
                                        [--search 1,2,4]

Boards are real OpenSSH servers on 127.0.0.1 whose timed runs are waits (benchmarks/waiting_runtime.py), so that eight
of them share this machine. The candidates are prepared: artifacts of 100 kB, all different, none of them on a board
yet, as many as take all boards `--seconds`; every result is stored, as a search does. `busy` is the share of the time,
from the first board's start to the last one's end, in which the boards were in a timed session as their own agents saw
it; `speed-up` is the throughput against one board's in the same round. Medians over rounds, the spread is half the
range.

`--search` then runs whole searches (demo:separable, random sampler, 20 waits a second) on so many boards: how many of
them the host keeps busy, and where its time goes.
"""

from __future__ import annotations

import argparse
import math
import os
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.waiting_runtime import RUNS, write_runtime
from device_farm.board_entry import BoardEntry
from device_farm.inventory import Inventory, add_board
from orchestrator import wiring
from orchestrator.bench import Bench, Job
from orchestrator.config import StudyConfig
from orchestrator.crew import Crew
from orchestrator.leasing import tenant
from orchestrator.loop import Loop
from orchestrator.progress import Silent
from orchestrator.store.records import NewStudy, TrialRole, TrialState
from orchestrator.store.store import Store
from orchestrator.study_run import StudyRun
from orchestrator.tables import figures_table
from profilers.measurement import MeasureSettings
from recipes.artifact import Artifact
from search.candidate import Candidate
from search.space import FLOAT32, Layer, LayerConfig, Scheme, SearchSpace
from tests.sshd import Sshd, running_sshd

SIZE = 100_000
"""Bytes of an artifact."""
SETTINGS = MeasureSettings(min_runs=RUNS - 2, max_runs=RUNS - 2, max_sampling_s=600, max_warmup_s=0, max_profile_s=0)
"""One golden run, one to warm up, and the timed ones."""
INT8 = LayerConfig(8, 8, Scheme.STATIC)
SPACE = SearchSpace("tflite", tuple(Layer(f"layer {i}", "CONV_2D", (FLOAT32, INT8), 10, 100) for i in range(12)))


@dataclass(frozen=True)
class Row:
    """What a number of boards came to."""

    busy: float
    per_s: float
    """Measurements a second."""


@contextmanager
def farm(count: int, wait_s: float, real: bool) -> Iterator[list[BoardEntry]]:
    """Run so many boards."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        servers = [held.enter_context(running_sshd(Path(name) / f"board-{i}")) for i in range(count)]
        yield [_entry(server, i, wait_s, real) for i, server in enumerate(servers)]


def _entry(server: Sshd, number: int, wait_s: float, real: bool) -> BoardEntry:
    write_runtime(server.root / "runtimes" / "litert-2.3.0", real)
    return server.entry(f"board-{number}", python=sys.executable, runtime={"name": "litert", "version": "2.3.0"},
                        env={"HIL_WAIT_S": str(wait_s), "OMP_NUM_THREADS": "1"})


def prepared(folder: Path, count: int) -> list[Job]:
    """Make artifacts that no board has."""
    golden = folder / "golden.npz"
    np.savez(golden, i0=np.zeros((1, 2), np.float32))
    jobs = []
    for number in range(count):
        path = folder / f"{number}.tflite"
        path.write_bytes(secrets.token_bytes(SIZE))
        jobs.append(Job(Artifact.of(path), golden, (np.zeros((1, 2), np.float32),), 1e-6))
    return jobs


def measure(boards: int, wait_s: float, each: int) -> Row:
    """Measure prepared candidates on so many boards, and store every result."""
    with farm(boards, wait_s, real=False) as entries, tempfile.TemporaryDirectory() as name, \
            Store.open(Path(name) / "store") as store:
        jobs = prepared(Path(name), boards * (each + 1))
        study = store.create_study(NewStudy("farm", 0, {}, "m" * 64, {"tflite": SPACE}, {}))
        stop, agent = threading.Event(), wiring.agent_file(store.folder)
        benches = [Bench(e.name, e.kind, wiring.connector(e, store.folder, agent, [wiring.COMPILERS["tflite"]]),
                         tenant(store, e, "benchmarks.farm"), SETTINGS, store, stop=stop) for e in entries]
        for bench in benches:
            bench.connect()
        with Crew(benches, lambda text: None, stop) as crew:
            for future in [crew.measured(job) for job in jobs[:boards]]:  # leases are taken, locks are held
                future.result()
            while any(sessions == 0 for sessions, _ in crew.sessions.values()):
                crew.measure(jobs[0])
            before = sum(busy for _, busy in crew.sessions.values())
            started = time.perf_counter()
            for number, future in enumerate([crew.measured(job) for job in jobs[boards:]]):
                choices = {layer.name: layer.choices[number >> i & 1] for i, layer in enumerate(SPACE.layers)}
                found = future.result()
                trial = store.add_trial(study.id, Candidate.of(SPACE, choices), TrialRole.SEARCH)
                store.finish_trial(trial.id, TrialState.COMPLETE, measurement=found)
            wall_s = time.perf_counter() - started
            busy_s = sum(busy for _, busy in crew.sessions.values()) - before
    return Row(busy_s / (boards * wall_s), boards * each / wall_s)


@dataclass
class Clock:
    """Seconds of the controller's main thread, by what it does."""

    proposing: float = 0.0
    storing: float = 0.0
    waiting: float = 0.0


@dataclass(frozen=True)
class Searched:
    """What a whole search came to."""

    busy_boards: float
    """Mean number of boards in a timed session while it searched."""
    wall_s: float
    clock: Clock
    host_s: float
    """CPU seconds of this process and its workers."""


def search(boards: int, wait_s: float, measurements: int, sampler: str) -> Searched:
    """Run a whole search on so many boards."""
    clock = Clock()
    with farm(boards, wait_s, real=True) as entries, tempfile.TemporaryDirectory() as name, \
            Store.open(Path(name) / "store") as store, _clocked(clock):
        for entry in entries:
            add_board(Path(name) / "inventory.yaml", entry)
        config = StudyConfig.model_validate({
            "device": entries[0].kind, "model": "demo:separable", "data": "demo:fashion_mnist", "study": "farm",
            "budget": "0.8x", "measurements": measurements, "sampler": sampler, "baselines": "needed",
            "stop_below": 0})
        before = os.times()
        outcome, _ = StudyRun(store, Inventory.load(Path(name) / "inventory.yaml"), config, Path(name),
                              Silent()).run()
        after = os.times()
        measured = [m.measurement for h in store.histories(store.study("farm").id) for m in h.measurements
                    if m.purpose.value != "confirm"]
    del outcome
    wall_s = clock.proposing + clock.storing + clock.waiting
    cpu_s = sum(after[i] - before[i] for i in range(4))
    return Searched(sum(m.session_s for m in measured) / wall_s, wall_s, clock, cpu_s)


@contextmanager
def _clocked(clock: Clock) -> Iterator[None]:
    """Time what the main thread does within `Loop.run`."""
    original = Loop.run, Loop._wait, Loop._advance  # noqa: SLF001 - a benchmark looks inside

    def run(self: Loop, *args: object, **kwargs: object) -> None:
        started = time.perf_counter()
        inside = clock.storing + clock.waiting
        original[0](self, *args, **kwargs)  # type: ignore[arg-type]
        clock.proposing += time.perf_counter() - started - (clock.storing + clock.waiting - inside)

    def wait(self: Loop, *args: object) -> object:
        started = time.perf_counter()
        found = original[1](self, *args)  # type: ignore[arg-type]
        clock.waiting += time.perf_counter() - started
        return found

    def advance(self: Loop, *args: object) -> object:
        started = time.perf_counter()
        found = original[2](self, *args)  # type: ignore[arg-type]
        clock.storing += time.perf_counter() - started
        return found

    Loop.run, Loop._wait, Loop._advance = run, wait, advance  # type: ignore[method-assign,assignment]  # noqa: SLF001
    try:
        yield
    finally:
        Loop.run, Loop._wait, Loop._advance = original  # type: ignore[method-assign]  # noqa: SLF001


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", default="1,2,4,8")
    parser.add_argument("--waits", default="0.2,1,5", help="seconds of a timed session")
    parser.add_argument("--seconds", type=float, default=12, help="so long for each row and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--search", default="", help="numbers of boards for whole searches, e.g. 1,2,4")
    parser.add_argument("--sampler", default="random", help="of the searches")
    parser.add_argument("--measurements", type=int, default=40, help="of each search")
    given = parser.parse_args(arguments)
    console = Console()
    counts = [int(text) for text in given.boards.split(",") if text]
    waits = [float(text) for text in given.waits.split(",") if text]
    table = figures_table((), ("session s", "boards", "busy %", "+-", "per s", "speed-up", "+-"))
    for wait_s in waits:
        each = math.ceil(given.seconds / wait_s)
        rounds = [{count: measure(count, wait_s, each) for count in counts} for _ in range(given.rounds)]
        for count in counts:
            busy = [100 * rows[count].busy for rows in rounds]
            per_s = [rows[count].per_s for rows in rounds]
            faster = [rows[count].per_s / rows[counts[0]].per_s * counts[0] for rows in rounds]
            table.add_row(f"{wait_s:g}", str(count), f"{statistics.median(busy):.1f}", f"{_spread(busy):.1f}",
                          f"{statistics.median(per_s):.2f}", f"{statistics.median(faster):.2f}",
                          f"{_spread(faster):.2f}")
    console.print(table)
    if not given.search:
        return
    table = figures_table((), ("boards", "kept busy", "seconds", "proposing %", "storing %", "waiting %", "CPUs used"))
    for count in [int(text) for text in given.search.split(",")]:
        found = search(count, 1.0, given.measurements, given.sampler)
        shares = [f"{100 * part / found.wall_s:.0f}" for part in (
            found.clock.proposing, found.clock.storing, found.clock.waiting)]
        table.add_row(str(count), f"{found.busy_boards:.2f}", f"{found.wall_s:.0f}", *shares,
                      f"{found.host_s / found.wall_s:.2f}")
    console.print(table)


def _spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / 2


if __name__ == "__main__":
    main()
