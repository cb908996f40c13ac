"""Accuracy of the very artifact, in the board's runtime, on the host: in worker processes."""

from __future__ import annotations

import atexit
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from device_farm.local import LocalTransport
from profilers.closeness import Closeness, Halves, closeness, halves_of, output_divergence
from profilers.golden import EXAMPLES, Array
from profilers.runner import AgentRunner, RuntimePlace
from recipes.artifact import Artifact
from recipes.blobs import BlobStore
from recipes.compilers.build import BuildInputs, Built, build
from recipes.compilers.narrowed import narrowed_outputs, recovered_outputs, whole_outputs
from recipes.models.dataset import Metric, Split, apply_metrics, load_data, top1
from recipes.models.source import Reference
from recipes.ports import Ports
from search.candidate import Candidate, Recovery

ESTIMATED = 128
"""Calibration examples on which a divergence is estimated; 64 rank as well as all."""
NARROWED = 64
"""The same for widths, where a network is reconstructed on them."""


@dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """What is the same for every candidate of a study."""

    blob_folder: Path
    splits: Mapping[str, str]
    """Split name -> blob, in the PyTorch model's layout."""
    data: Reference
    """Where the user's metrics come from."""
    metrics: tuple[str, ...]
    """Names, the objective first."""
    runtime: RuntimePlace
    """The board's runtime, installed on the host."""
    agent: Path
    board_examples: int | None = None
    """None: accuracy is evaluated on the host; else on the board, on so many examples."""
    reference: Path | None = None
    """Float32's outputs on the validation split: what is evaluated there is compared with them, see `Closeness`."""


@dataclass(frozen=True, slots=True)
class Score:
    """What outputs are worth."""

    metrics: Mapping[str, float]
    examples: int
    close: Closeness | None = None
    """To float32; None unless its outputs were given."""


@dataclass(frozen=True, slots=True)
class HostReport:
    """What the host found out about one candidate."""

    built: Built
    on_host: Artifact
    """The same candidate for this machine: the board's own artifact where both execute it."""
    score: Score
    """Without metrics where accuracy is evaluated on the board."""
    golden_inputs: Path
    golden_outputs: tuple[Array, ...]
    """What it computes on the host, before decoding: one array (EXAMPLES, ...) per output."""
    build_s: float
    evaluate_s: float


def build_and_evaluate(builder: BuildInputs, inputs: EvaluationInputs, candidate: Candidate,
                       split: str = "validation") -> HostReport:
    """Build a candidate and evaluate its artifact on a split. Raises InfeasibleCandidate."""
    started = time.perf_counter()
    built = build(builder, candidate)
    done = time.perf_counter()
    here = builder.here()
    on_host = built.artifact if here.target == builder.target else build(here, candidate).artifact
    golden, outputs = _golden(inputs, on_host, built.ports)
    found = Score({}, 0) if inputs.board_examples else evaluate(inputs, on_host, built.ports, split)
    return HostReport(built, on_host, found, golden, outputs, done - started, time.perf_counter() - done)


def evaluate(inputs: EvaluationInputs, artifact: Artifact, ports: Ports, split: str) -> Score:
    """Evaluate an artifact on a split.

    Raises:
        InfeasibleCandidate: the runtime refuses the artifact, crashes, hangs, or returns NaN.
        recipes.errors.DataError: a metric fails.
    """
    folder = _scratch()
    outputs = folder / "outputs.npz"
    runner = _runner(inputs.runtime, inputs.agent)
    runner.run(artifact, _encoded(inputs, split, ports), outputs)
    return score(inputs, ports, outputs, split)


def encode_split(inputs: EvaluationInputs, ports: Ports, split: str) -> Path:
    """Write a split (its first `board_examples`) in an artifact's layout and type, as a blob for a board."""
    full = _split(inputs.blob_folder, inputs.splits[split]).inputs
    tensors: dict[str, Any] = dict(ports.encode({name: a[:inputs.board_examples] for name, a in full.items()}))
    path = _scratch() / "board.npz"
    np.savez(path, **tensors)
    return BlobStore(inputs.blob_folder).put_file(path).path


def score(inputs: EvaluationInputs, ports: Ports, outputs: Path, split: str) -> Score:
    """Evaluate outputs (.npz `o0`, ...) on a split's first examples."""
    with np.load(outputs, allow_pickle=False) as arrays:
        decoded = ports.decode({name: arrays[name] for name in arrays.files})
    return _score(inputs, decoded, split)


def _score(inputs: EvaluationInputs, outputs: tuple[Array, ...], split: str) -> Score:
    targets = _split(inputs.blob_folder, inputs.splits[split]).targets
    if targets is None:
        raise ValueError(f"the split {split} has no targets")
    targets = targets[:len(outputs[0])]
    metrics = _metrics(inputs.data, inputs.metrics)
    close = None
    if inputs.reference is not None and split == "validation":
        its_halves = _reference_halves(inputs.reference, inputs.blob_folder, inputs.splits[split], inputs.data,
                                       inputs.metrics)
        close = closeness(arrays_of(inputs.reference), its_halves, outputs, halves_of(metrics, outputs, targets))
    return Score(apply_metrics(metrics, outputs, targets), len(targets), close)


def evaluate_recovered(builder: BuildInputs, inputs: EvaluationInputs, widths: tuple[tuple[str, int], ...],
                       level: Recovery, split: str = "validation") -> Score:
    """Evaluate the float network at some widths, recovered but not converted.

    An estimate: of an artifact of these widths it is the float32 metrics to within the noise of arithmetic.
    Raises InfeasibleCandidate.
    """
    if builder.pruning is None:
        raise ValueError("this study does not prune; its inputs lack the network and the plan")
    outputs = recovered_outputs(builder.blob_folder, builder.pruning, dict(widths), level, inputs.splits[split])
    return _score(inputs, outputs, split)


def keep_outputs(builder: BuildInputs, inputs: EvaluationInputs, candidate: Candidate, split: str,
                 limit: int | None = None) -> Path:
    """Keep a candidate's outputs on a split as a blob (.npz `o0`, ...). Raises InfeasibleCandidate."""
    built = build(builder.here(), candidate)
    outputs = run_reference(inputs, built.artifact, built.ports, split, limit)
    path = _scratch() / "kept_outputs.npz"
    tensors: dict[str, Any] = {f"o{i}": array for i, array in enumerate(outputs)}
    np.savez(path, **tensors)
    return BlobStore(inputs.blob_folder).put_file(path).path


def divergence(builder: BuildInputs, inputs: EvaluationInputs, candidate: Candidate, reference: Path) -> float:
    """Return how far a candidate's outputs on the calibration split are from the reference's.

    See search.HostOracle. `reference` is what `keep_outputs` wrote. Raises InfeasibleCandidate.
    """
    built = build(builder.here(), candidate)
    found = run_reference(inputs, built.artifact, built.ports, "calibration", ESTIMATED)
    pairs = zip(arrays_of(reference), found, strict=True)
    return float(np.mean([output_divergence(expected, outputs) for expected, outputs in pairs]))


def narrowing_divergence(builder: BuildInputs, widths: tuple[tuple[str, int], ...]) -> float:
    """Estimate how far the outputs of the float network at some widths are from the whole one's, without conversion.

    See search.HostOracle. Raises InfeasibleCandidate.
    """
    if builder.pruning is None:
        raise ValueError("this study does not prune; its inputs lack the network and the plan")
    folder = builder.blob_folder
    expected = whole_outputs(folder, builder.pruning, NARROWED)
    found = narrowed_outputs(folder, builder.pruning, dict(widths), NARROWED)
    return float(np.mean([output_divergence(one, two) for one, two in zip(expected, found, strict=True)]))


@lru_cache(maxsize=2)
def arrays_of(path: Path) -> tuple[Array, ...]:
    """Return the arrays `o0`, ... of a file, in order."""
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(arrays[f"o{i}"] for i in range(len(arrays.files)))


def run_reference(inputs: EvaluationInputs, artifact: Artifact, ports: Ports, split: str,
                  limit: int | None = None) -> tuple[Array, ...]:
    """Return an artifact's outputs on a split (on its first `limit` examples), in the PyTorch model's layout."""
    outputs = _scratch() / "reference.npz"
    _runner(inputs.runtime, inputs.agent).run(artifact, _encoded(inputs, split, ports), outputs, limit)
    with np.load(outputs, allow_pickle=False) as arrays:
        return ports.decode({name: arrays[name] for name in arrays.files})


def _golden(inputs: EvaluationInputs, artifact: Artifact, ports: Ports) -> tuple[Path, tuple[Array, ...]]:
    """Write the golden inputs as a blob and run them on the host."""
    split = _split(inputs.blob_folder, inputs.splits["calibration"])
    few = {name: array[:EXAMPLES] for name, array in split.inputs.items()}
    blobs = BlobStore(inputs.blob_folder)
    path = _scratch() / "golden.npz"
    tensors: dict[str, Any] = dict(ports.encode(few))
    np.savez(path, **tensors)
    kept = blobs.put_file(path)
    return kept.path, run_on_host(inputs.runtime, inputs.agent, artifact, kept.path)


def run_on_host(runtime: RuntimePlace, agent: Path, artifact: Artifact, inputs: Path) -> tuple[Array, ...]:
    """Return what an artifact computes in a runtime on this machine, in its own order. Raises InfeasibleCandidate."""
    outputs = _scratch() / "golden_outputs.npz"
    _runner(runtime, agent).run(artifact, inputs, outputs)
    with np.load(outputs, allow_pickle=False) as arrays:
        return tuple(arrays[f"o{i}"] for i in range(len(arrays.files)))


def _encoded(inputs: EvaluationInputs, split: str, ports: Ports) -> Path:
    """Return a file with the split in the artifact's layout and type; made once per process and layout."""
    return _encode_once(inputs.blob_folder, inputs.splits[split], ports)


@lru_cache(maxsize=8)
def _encode_once(blob_folder: Path, blob: str, ports: Ports) -> Path:
    path = _scratch() / f"{blob[:16]}-{abs(hash(ports)):x}.npz"
    tensors: dict[str, Any] = dict(ports.encode(_split(blob_folder, blob).inputs))
    np.savez(path, **tensors)
    return path


@lru_cache(maxsize=4)
def _split(blob_folder: Path, blob: str) -> Split:
    return Split.from_bytes(BlobStore(blob_folder).path(blob).read_bytes())


@lru_cache(maxsize=2)
def _reference_halves(reference: Path, blob_folder: Path, split: str, data: Reference,
                      names: tuple[str, ...]) -> Halves:
    """Return the metrics of float32's outputs on the halves of a split; once per process."""
    targets = _split(blob_folder, split).targets
    return {} if targets is None else halves_of(_metrics(data, names), arrays_of(reference), targets)


@lru_cache(maxsize=4)
def _metrics(data: Reference, names: tuple[str, ...]) -> Mapping[str, Metric]:
    return {"top1": top1} if names == ("top1",) else load_data(data).metrics


@lru_cache(maxsize=1)
def _scratch() -> Path:
    """A folder of this process, removed when it ends."""
    path = Path(mkdtemp(prefix=f"orchestrator-{os.getpid()}-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@lru_cache(maxsize=2)
def _runner(runtime: RuntimePlace, agent: Path) -> AgentRunner:
    """One agent per worker process and runtime, over pipes."""
    runner = AgentRunner(LocalTransport(), root=str(_scratch()), runtimes=(runtime,), agent=agent, board="host",
                         kind="host", host=True)
    atexit.register(runner.close)
    return runner
