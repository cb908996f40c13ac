"""Both compilers on the same networks and machine, interleaved: latency, size, error, build time.

    .venv/bin/python -m benchmarks.compilers [--networks residual,wide] [--rounds 5]

Schemes are uniform: every layer takes the scheme, or the next wider one that it can take. Latencies are medians of the
rounds' medians, measured by the agent as in a search. The error is the largest difference from PyTorch's float outputs
as a share of their range. `known s` is how long a candidate takes to build when its kernels are known. One bit is
timed alone: without training its outputs are worth nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import wide
from benchmarks.networks import LinearStack, MobileNetV2
from device_farm.local import LocalTransport
from orchestrator import wiring
from profilers.measurement import MeasureSettings
from profilers.runner import AgentRunner
from recipes.artifact import Artifact
from recipes.blobs import BlobStore
from recipes.compilers.compiler import Compiler
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tvm.compiler import TvmCompiler
from recipes.demo import networks
from recipes.demo.data import fashion_mnist
from recipes.models.network import Network
from recipes.ports import Array, Ports
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import FLOAT32, LayerConfig

SCHEMES = ("float32", "static_w8a8", "static_w4a8", "static_w2a8", "static_w1a1")
EXAMPLES = 8
SETTINGS = MeasureSettings(max_sampling_s=0.5, max_warmup_s=0.3, timeout_s=120)


@dataclass(frozen=True)
class Case:
    """A network and what it is fed, (EXAMPLES, ...)."""

    make: Callable[[], torch.nn.Module]
    inputs: Callable[[], Array]


def _images() -> Array:
    return np.asarray(fashion_mnist()["calibration"][:EXAMPLES])


def _random(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=(EXAMPLES, *shape)).astype(np.float32)


def _seeded(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    return make()


CASES: Mapping[str, Case] = {
    "residual": Case(networks.residual, _images),
    "separable": Case(networks.separable, _images),
    "transformer": Case(networks.transformer, _images),
    "wide": Case(wide.network, _images),
    "mobilenetv2": Case(partial(_seeded, MobileNetV2), partial(_random, 3, 96, 96)),
    "linear": Case(partial(_seeded, LinearStack), partial(_random, 1024)),
}


@dataclass
class Row:
    """One artifact and its times."""

    network: str
    compiler: str
    scheme: str
    size_bytes: int
    known_s: float
    artifact: Artifact
    error: float
    medians: list[float]

    @property
    def latency(self) -> float:
        """Seconds."""
        return statistics.median(self.medians)


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

    def time(self, row: Row, golden: Path) -> tuple[Array, ...]:
        """Measure once more, and return the outputs."""
        session = self.runner.measure(row.artifact, golden, SETTINGS)
        row.medians.append(statistics.median(session.measurement.wall_ns) / 1e9)
        return session.outputs


def rows_of(name: str, case: Case, machine: Machine, folder: Path) -> Iterator[tuple[Row, Path]]:
    """Yield the artifacts of a network, measured once; and what they are fed."""
    compiler, target = machine.compiler, machine.target
    module, inputs = case.make().eval(), {"x": case.inputs()}
    with torch.no_grad():
        expected = np.asarray(module(torch.from_numpy(inputs["x"])).numpy())
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model, ports = compiler.convert(Network(module), {"x": inputs["x"][:1]}, True)
    statistics_ = compiler.calibrate(model, ports, inputs)
    layers = compiler.layers(model, target)
    golden = folder / f"{name}-{compiler.name}.npz"
    encoded: dict[str, Any] = dict(ports.encode(inputs))
    np.savez(golden, **encoded)
    quantiser = compiler.quantiser(model, statistics_, layers, target, machine.blobs)
    for scheme in SCHEMES:
        config = FLOAT32 if scheme == "float32" else LayerConfig.from_label(scheme)
        if not any(config in layer.choices for layer in layers.space.layers):
            continue
        candidate = Candidate.of(layers.space, {layer.name: layer.widen(config) for layer in layers.space.layers})
        quantiser.quantise(candidate)
        begun = time.perf_counter()
        artifact = machine.blobs.put_bytes(quantiser.quantise(candidate))
        row = Row(name, compiler.name, scheme, artifact.size_bytes, time.perf_counter() - begun, artifact, 0, [])
        try:
            row.error = _error(ports, machine.time(row, golden), expected)
        except InfeasibleCandidate as error:
            print(f"{name}, {compiler.name}, {scheme}: {error}", flush=True)
            continue
        yield row, golden


def _error(ports: Ports, outputs: Sequence[Array], expected: Array) -> float:
    found = ports.decode({f"o{i}": array for i, array in enumerate(outputs)})[0]
    return float(np.abs(found.reshape(expected.shape) - expected).max() / np.ptp(expected))


def table(rows: Sequence[Row]) -> str:
    """Write the rows of one network."""
    base = next(row.latency for row in rows if (row.compiler, row.scheme) == ("tflite", "static_w8a8"))
    lines = [f"{'network':12} {'compiler':8} {'scheme':12} {'us':>9} {'+-%':>5} {'x int8':>7} {'bytes':>11} "
             f"{'error':>7} {'known s':>8}"]
    for row in rows:
        spread = 50 * (max(row.medians) - min(row.medians)) / row.latency
        error = "-" if row.scheme == "static_w1a1" else f"{row.error:.4f}"
        lines.append(f"{row.network:12} {row.compiler:8} {row.scheme:12} {row.latency * 1e6:9.1f} {spread:5.1f} "
                     f"{row.latency / base:7.2f} {row.size_bytes:11,} {error:>7} {row.known_s:8.2f}")
    return "\n".join(lines)


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        machines = [Machine(TfliteCompiler(), folder), Machine(TvmCompiler(signs=True), folder)]
        for name in asked.networks.split(","):
            made = [(machine, *found) for machine in machines for found in rows_of(name, CASES[name], machine, folder)]
            for _ in range(asked.rounds - 1):
                for machine, row, golden in made:
                    machine.time(row, golden)
            print(table([row for _, row, _ in made]), flush=True)
        for machine in machines:
            machine.runner.close()


if __name__ == "__main__":
    main()
