"""Artifacts of our compilers on this machine: one row for each network and scheme."""

from __future__ import annotations

import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tuned_tiles import tuned_tiles
from device_farm.local import LocalTransport
from orchestrator import wiring
from profilers.measurement import MeasureSettings
from profilers.runner import AgentRunner
from recipes.artifact import Artifact
from recipes.blobs import BlobStore
from recipes.compilers.compiler import Compiler, Quantiser
from recipes.models.network import Network
from recipes.ports import Array, Ports
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import FLOAT32, LayerConfig

SCHEMES = ("float32", "static_w8a8", "static_w4a8", "static_w2a8", "static_w1a1")
SETTINGS = MeasureSettings(max_sampling_s=0.5, max_warmup_s=0.3, timeout_s=120)


@dataclass(frozen=True)
class Case:
    """A network and what it is fed, (examples, ...)."""

    make: Callable[[], torch.nn.Module]
    inputs: Callable[[], Array]


@dataclass(frozen=True)
class Timed:
    """One session."""

    median_s: float
    outputs: tuple[Array, ...]
    """As the network returns them, (examples, ...)."""


@dataclass
class Row:
    """One artifact and its times."""

    network: str
    compiler: str
    scheme: str
    size_bytes: int
    weight_bytes: int
    """Of the file: weights and other constants."""
    known_s: float | None
    """How long it takes to build when its kernels are known; None: not asked."""
    session: Callable[[], Timed]
    """Measure once more."""
    error: float = 0
    medians: list[float] = field(default_factory=list)

    @property
    def latency(self) -> float:
        """Seconds."""
        return statistics.median(self.medians)

    def first(self, expected: Array) -> None:
        """Measure, and compare the outputs. Raises InfeasibleCandidate."""
        timed = self.session()
        self.medians.append(timed.median_s)
        found = timed.outputs[0].reshape(expected.shape)
        self.error = float(np.abs(found - expected).max() / np.ptp(expected))

    def again(self) -> None:
        """Measure once more."""
        self.medians.append(self.session().median_s)


class Machine:
    """This machine as a board, for one compiler's artifacts."""

    def __init__(self, compiler: Compiler, folder: Path) -> None:
        self.compiler, self.blobs = compiler, BlobStore(folder / "blobs")
        self.runner = AgentRunner(
            LocalTransport(), root=str(folder / compiler.name), agent=wiring.agent_file(folder), board="local",
            runtimes=(wiring.host_runtime_place(compiler.runtimes[0], folder),), kind="local",
            lock_file=str(folder / f"{compiler.name}.lock"))
        self.runner.acquire(1, "benchmarks.compilers")

    @property
    def target(self) -> Target:
        """What artifacts are made for."""
        return wiring.target_of(self.runner.facts, *next(iter(self.runner.runtimes.items())))

    def session(self, artifact: Artifact, golden: Path, ports: Ports) -> Timed:
        """Measure once. Raises InfeasibleCandidate."""
        found = self.runner.measure(artifact, golden, SETTINGS)
        outputs = ports.decode({f"o{i}": array for i, array in enumerate(found.outputs)})
        return Timed(statistics.median(found.measurement.wall_ns) / 1e9, outputs)


def expected_of(case: Case) -> Array:
    """Return PyTorch's outputs."""
    with torch.no_grad():
        return np.asarray(case.make().eval()(torch.from_numpy(case.inputs())).numpy())


def rows_of(name: str, case: Case, machine: Machine, folder: Path, tuned: bool) -> Iterator[Row]:
    """Yield the artifacts of a network, measured once; with tvm those with tuned tiles, too."""
    compiler, target, inputs = machine.compiler, machine.target, {"x": case.inputs()}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model, ports = compiler.convert(Network(case.make().eval()), {"x": inputs["x"][:1]}, True)
    ranges = compiler.calibrate(model, ports, inputs)
    layers = compiler.layers(model, target)
    golden = folder / f"{name}-{compiler.name}.npz"
    encoded: dict[str, Any] = dict(ports.encode(inputs))
    np.savez(golden, **encoded)
    quantisers = {compiler.name: compiler.quantiser(model, ranges, layers, target, machine.blobs)}
    if tuned and compiler.name == "tvm":
        tiles = tuned_tiles(name, model, layers, target, machine.runner, folder)
        quantisers["tvm tuned"] = compiler.quantiser(model, ranges, layers, target, machine.blobs, tiles)
    expected = expected_of(case)
    for scheme in SCHEMES:
        config = FLOAT32 if scheme == "float32" else LayerConfig.from_label(scheme)
        if not any(config in layer.choices for layer in layers.space.layers):
            continue
        candidate = Candidate.of(layers.space, {layer.name: layer.widen(config) for layer in layers.space.layers})
        for title, quantiser in quantisers.items():
            row = _row((name, title, scheme), quantiser, candidate, machine, golden, ports)
            try:
                row.first(expected)
            except InfeasibleCandidate as error:
                print(f"{name}, {title}, {scheme}: {error}", flush=True)
                continue
            yield row


def _row(names: tuple[str, str, str], quantiser: Quantiser, candidate: Candidate, machine: Machine, golden: Path,
         ports: Ports) -> Row:
    quantiser.quantise(candidate)
    begun = time.perf_counter()
    made = quantiser.quantise(candidate)
    known_s = time.perf_counter() - begun
    artifact = machine.blobs.put_bytes(made)
    return Row(*names, len(made), WEIGHT_BYTES[machine.compiler.name](made), known_s,
               lambda: machine.session(artifact, golden, ports))


def _in_library(made: bytes) -> int:
    from elftools.elf.elffile import ELFFile

    return sum(section["sh_size"] for section in ELFFile(io.BytesIO(made)).iter_sections()
               if section.name.startswith(".rodata"))


def _in_flatbuffer(made: bytes) -> int:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(made, 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    return sum(buffer.DataLength() or buffer.Size() for buffer in buffers)


WEIGHT_BYTES: Mapping[str, Callable[[bytes], int]] = {"tflite": _in_flatbuffer, "tvm": _in_library}


def table(rows: Sequence[Row]) -> str:
    """Write the rows of one network."""
    base = next(row.latency for row in rows if (row.compiler, row.scheme) == ("tflite", "static_w8a8"))
    lines = [f"{'network':12} {'compiler':9} {'scheme':12} {'us':>9} {'+-%':>5} {'x int8':>6} {'weights':>11} "
             f"{'code':>9} {'error':>7} {'known s':>8}"]
    for row in rows:
        spread = 50 * (max(row.medians) - min(row.medians)) / row.latency
        error = "-" if row.scheme == "static_w1a1" else f"{row.error:.4f}"
        known = "-" if row.known_s is None else f"{row.known_s:.2f}"
        lines.append(f"{row.network:12} {row.compiler:9} {row.scheme:12} {row.latency * 1e6:9.1f} {spread:5.1f} "
                     f"{row.latency / base:6.2f} {row.weight_bytes:11,} {row.size_bytes - row.weight_bytes:9,} "
                     f"{error:>7} {known:>8}")
    return "\n".join(lines)
