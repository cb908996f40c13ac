"""Both compilers on emulated aarch64 processors: executed instructions, which are not times, and the same outputs.

    .venv/bin/python -m benchmarks.emulated [--networks residual,separable] [--emulator qemu-aarch64]

An emulator says how many instructions an artifact takes, exactly, and nothing of how long they take: not every
instruction takes as long, and memory counts. `M instr.` are millions for one run, from Python's call to its return;
`x int8` is beside LiteRT's int8 on the same processor. `differs` is the largest difference from what this machine
computes, as a share of the outputs' range: LiteRT's own artifact here, and with tvm the one that is compiled for here.
The emulator is QEMU's with plugins (Debian's package qemu-user; qemu-user-static has none), tried with 7.2; the
system is that of the test boards, which root makes at the first use (docs/test-boards.md).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock

from benchmarks.compiler_rows import SCHEMES, WEIGHT_BYTES
from device_farm.runtime import RUNTIMES, RuntimePlan
from device_farm.wheels import fetch
from recipes.compilers.compiler import Compiler
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tvm.compiler import TvmCompiler
from recipes.demo import networks
from recipes.demo.data import fashion_mnist
from recipes.models.network import Network
from recipes.ports import Array
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import FLOAT32, LayerConfig
from tests.aarch64.emulated import root_file_system
from tests.aarch64.pi4 import write_pi4

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "aarch64" / "count.c"
EMULATOR = "qemu-aarch64"
NETWORKS = {"residual": networks.residual, "separable": networks.separable, "transformer": networks.transformer}
EXAMPLES = 8
LIMIT_S = 600.0
SYSTEM = ("bin", "etc", "lib", "sbin", "usr")
"""What the emulated program sees of the board's system; other folders are this machine's."""
PYTHON, GLIBC = (3, 11), (2, 36)
"""Of the board's system, Debian 12."""


@dataclass(frozen=True)
class Processor:
    """One that QEMU knows, and what its kernel would print of it."""

    name: str
    part: str
    features: tuple[str, ...]


A72 = Processor("cortex-a72", "0xd08", ("asimd", "cpuid", "crc32", "evtstrm", "fp"))
A76 = Processor("cortex-a76", "0xd0b", (*A72.features, "asimddp", "asimdhp", "fphp"))
"""A Raspberry Pi 4's and 5's; the second multiplies integers by dot products."""


@dataclass(frozen=True)
class Row:
    """One artifact on one processor."""

    processor: str
    network: str
    compiler: str
    scheme: str
    instructions: float
    size_bytes: int
    weight_bytes: int
    """Of the file: weights and other constants."""
    differs: float


class DidNotRun(Exception):
    """A process ended badly; how, and its last words."""


def missing(emulator: str) -> str | None:
    """Say what is not installed, or None."""
    if shutil.which(emulator) is None:
        return f"no rows of emulated processors: no {emulator}; run 'sudo apt-get install qemu-user'"
    said = subprocess.run([emulator, "--help"], capture_output=True, text=True, check=False)
    return None if "-plugin" in said.stdout else f"no rows of emulated processors: {emulator} takes no plugins"


class Emulated:
    """An emulated processor with the system of the test boards."""

    def __init__(self, processor: Processor, emulator: str, plugin: Path, folder: Path) -> None:
        self.processor, self._emulator, self._plugin, self._system = processor, emulator, plugin, folder
        system = root_file_system()
        folder.mkdir()
        for name in SYSTEM:
            (folder / name).symlink_to(system / name)
        write_pi4(folder)
        (folder / "proc").mkdir()
        said = (folder / "cpuinfo").read_text().replace(A72.part, processor.part)
        (folder / "proc" / "cpuinfo").write_text(said.replace(" ".join(A72.features), " ".join(processor.features)))

    def run(self, runtime: str, artifact: Path, inputs: Path, outputs: Path) -> float:
        """Write the outputs and return the instructions of a run. Raises DidNotRun."""
        count = outputs.with_suffix(".count")
        command = [self._emulator, "-cpu", self.processor.name, "-L", str(self._system), "-plugin",
                   f"{self._plugin},counter={count}", str(self._system / "usr" / "bin" / "python3"), "-s"]
        words = (runtime, artifact, inputs, outputs, count)
        return statistics.median(_counted(command, (fetched(runtime), ROOT), words))


def here(runtime: str, artifact: Path, inputs: Path, outputs: Path) -> Array:
    """Return what this machine computes. Raises DidNotRun."""
    _counted([sys.executable], (ROOT,), (runtime, artifact, inputs, outputs))
    return np.asarray(np.load(outputs))


def _counted(command: Sequence[str], packages: Sequence[Path], words: Sequence[str | Path]) -> list[int]:
    """Start `benchmarks.counted`. Raises DidNotRun."""
    environment = {"PYTHONPATH": ":".join(map(str, packages)), "PYTHONDONTWRITEBYTECODE": "1",
                   "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*command, "-m", "benchmarks.counted", *map(str, words)], cwd=ROOT, env=environment,
                          capture_output=True, text=True, check=False, timeout=LIMIT_S)
    if done.returncode:
        raise DidNotRun(f"ended with {done.returncode}: {' '.join(done.stderr.splitlines()[-1:])}")
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found


@cache
def fetched(name: str) -> Path:
    """Return a folder with a runtime for the board's system, fetched once. Raises SetupFailed."""
    runtime = next(each for each in RUNTIMES if each.name == name)
    plan = RuntimePlan(runtime, runtime.version, "aarch64", PYTHON, GLIBC)
    goal = platformdirs.user_cache_path("hil-orchestrator-tests", appauthor=False) / plan.key
    goal.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{goal}.lock"):
        if not goal.exists():
            with tempfile.TemporaryDirectory(dir=goal.parent, prefix=".fetch.") as part:
                fetch(plan, Path(part) / plan.key)
                (Path(part) / plan.key).rename(goal)
    return goal


def build_plugin(folder: Path) -> Path:
    """Compile the plugin for this machine, with the compiler that links libraries of tvm."""
    goal = folder / "count.so"
    subprocess.run([sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O2", "-o", goal, PLUGIN], check=True)
    return goal


def rows_of(name: str, compiler: Compiler, boards: Sequence[Emulated], folder: Path) -> Iterator[Row]:
    """Yield a network's artifacts on every processor."""
    inputs: dict[str, Array] = {"x": np.asarray(fashion_mnist()["calibration"][:EXAMPLES])}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model, ports = compiler.convert(Network(NETWORKS[name]().eval()), {"x": inputs["x"][:1]}, True)
    ranges = compiler.calibrate(model, ports, inputs)
    given, artifact = folder / f"{name}-{compiler.name}.npz", folder / "artifact"
    encoded: dict[str, Any] = dict(ports.encode(inputs))
    np.savez(given, **encoded)
    runtime = next(each for each in RUNTIMES if each.name == compiler.runtimes[0])
    for board, scheme in product(boards, SCHEMES):
        processor, outputs = board.processor, folder / "outputs.npy"
        target = Target("aarch64", runtime.name, runtime.version, processor.features)
        try:
            there = built(compiler, model, ranges, target, scheme)
            equal = built(compiler, model, ranges, compiler.host_target(target), scheme)
            if there is None or equal is None:
                continue
            artifact.write_bytes(equal)
            expected = here(runtime.name, artifact, given, outputs)
            artifact.write_bytes(there)
            count = board.run(runtime.name, artifact, given, outputs)
        except (InfeasibleCandidate, DidNotRun) as error:
            print(f"{processor.name}, {name}, {compiler.name}, {scheme}: {error}", flush=True)
            continue
        differs = float(np.abs(np.load(outputs) - expected).max() / np.ptp(expected))
        yield Row(processor.name, name, compiler.name, scheme, count, len(there),
                  WEIGHT_BYTES[compiler.name](there), differs)


def built(compiler: Compiler, model: bytes, ranges: bytes, target: Target, scheme: str) -> bytes | None:
    """Return an artifact in which every layer takes the scheme, or the next wider; None where no layer can."""
    config = FLOAT32 if scheme == "float32" else LayerConfig.from_label(scheme)
    layers = compiler.layers(model, target)
    if not any(config in layer.choices for layer in layers.space.layers):
        return None
    candidate = Candidate.of(layers.space, {layer.name: layer.widen(config) for layer in layers.space.layers})
    return compiler.quantiser(model, ranges, layers, target).quantise(candidate)


def table(rows: Sequence[Row]) -> str:
    """Write the rows, processor by processor."""
    lines = [f"{'emulated':10}  {'network':11} {'compiler':8} {'scheme':11} {'M instr.':>8} {'x int8':>7} "
             f"{'weights':>9} {'code':>7} {'differs':>8}"]
    for row in sorted(rows, key=lambda row: row.processor):
        base = next((other.instructions for other in rows if (other.processor, other.network, other.compiler,
                     other.scheme) == (row.processor, row.network, "tflite", "static_w8a8")), float("nan"))
        lines.append(f"{row.processor:10}  {row.network:11} {row.compiler:8} {row.scheme:11} "
                     f"{row.instructions / 1e6:8.3f} {row.instructions / base:7.2f} {row.weight_bytes:9,} "
                     f"{row.size_bytes - row.weight_bytes:7,} {row.differs:8.0e}")
    return "\n".join(lines)


def report(folder: Path, names: Sequence[str], emulator: str = EMULATOR) -> str:
    """Return the table, or why there is none."""
    without = missing(emulator)
    if without:
        return without
    plugin = build_plugin(folder)
    boards = [Emulated(processor, emulator, plugin, folder / processor.name) for processor in (A72, A76)]
    rows = [row for name in names for compiler in (TfliteCompiler(), TvmCompiler(signs=True))
            for row in rows_of(name, compiler, boards, folder)]
    return f"Instructions under an emulator, not times:\n{table(rows)}"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--emulator", default=EMULATOR)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(report(Path(place), asked.networks.split(","), asked.emulator))


if __name__ == "__main__":
    main()
