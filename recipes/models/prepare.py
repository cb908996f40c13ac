"""The first steps of the build chain, in a worker: import, plan the pruning, convert, calibrate."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from recipes.blobs import BlobStore
from recipes.boundary import foreign
from recipes.compilers.compiler import Compiler
from recipes.compilers.tflite.given import check_inputs, read_float_model, value_count
from recipes.compilers.tflite.outputs import with_own_outputs, with_signature
from recipes.compress.groups import Plan
from recipes.compress.planning import REVISION, PruneInputs, PruneSettings, plan_pruning
from recipes.compress.weights import weights_bytes
from recipes.errors import DataError, ModelError
from recipes.models.dataset import Dataset, apply_metrics, check_labels, load_data
from recipes.models.network import Network, check_repeatable, load_network, parameter_count, run
from recipes.models.onnx.check import check_onnx
from recipes.models.source import Reference
from recipes.ports import Array, Ports
from recipes.steps import run_step


@dataclass(frozen=True, slots=True)
class Prepared:
    """What later steps need, by digest: nothing of the user's code is loaded again but the metrics."""

    float_model: str
    """Blob: the compiler's float model."""
    statistics: str
    """Blob: calibration statistics."""
    ports: Ports
    splits: Mapping[str, str]
    """Split name -> blob."""
    examples: Mapping[str, int]
    metric_names: tuple[str, ...]
    """The first is the objective."""
    reference: PyTorchReference | None
    """None for a float .tflite model: it is its own reference."""
    parameters: int
    versions: Mapping[str, str]
    pruning: PruneInputs | None = None
    """None where pruning was not asked for, or nothing can be pruned."""
    plan: str | None = None
    """Blob: groups and what was left out; None where pruning was not asked for."""

    @property
    def model_digest(self) -> str:
        """Tells models apart: the converted model holds the graph and every weight, and is the same every time."""
        return self.float_model


@dataclass(frozen=True, slots=True)
class PyTorchReference:
    """What the network computes in PyTorch: the converted model must compute it too."""

    outputs: str
    """Blob (.npz `o0`, ...): on the calibration inputs."""
    metrics: Mapping[str, float]
    """On the validation split."""
    positional: bool
    """The inputs are passed by position and not by name."""


@dataclass(frozen=True, slots=True)
class _Imported:
    """A float model, and what is known of it besides."""

    model: bytes
    ports: Ports
    reference: PyTorchReference | None
    parameters: int
    network: Network | None
    """None for a float .tflite model."""


def prepare(compiler: Compiler, model: Reference, data: Reference, blob_folder: Path,
            prune: PruneSettings | None = None) -> Prepared:
    """Load a model and its data, convert and calibrate. Runs user code: only in a worker process.

    Args:
        compiler: makes the float model.
        model: the network.
        data: its data.
        blob_folder: where everything is kept.
        prune: how to prune; None for not at all.

    Raises:
        recipes.errors.ModelError: the model cannot be loaded, run, exported or converted.
        DataError: the data are malformed or do not fit the model.
    """
    blobs = BlobStore(blob_folder)
    dataset = load_data(data)
    imported = (_import_tflite(model, dataset) if model.kind == "tflite"
                else _import_network(compiler, model, dataset, blobs))
    with foreign(f"calibrating {model.text}", ModelError):
        statistics = compiler.calibrate(imported.model, imported.ports, dataset.splits["calibration"].inputs)
    kept = {name: split for name, split in dataset.splits.items() if name != "train"}
    splits = {name: blobs.put_bytes(split.to_bytes()).sha256 for name, split in kept.items()}
    reads = ("onnx",) if model.kind == "onnx" else ()
    prepared = Prepared(
        float_model=blobs.put_bytes(imported.model).sha256, statistics=blobs.put_bytes(statistics).sha256,
        ports=imported.ports, splits=splits, examples={name: split.examples for name, split in kept.items()},
        metric_names=tuple(dataset.metrics), reference=imported.reference, parameters=imported.parameters,
        versions={name: version(name) for name in dict.fromkeys((*reads, *compiler.converts_with,
                                                                 *compiler.quantises_with))})
    return prepared if prune is None else _with_plan(prepared, prune, model, imported.network, dataset, blobs)


def _with_plan(prepared: Prepared, settings: PruneSettings, model: Reference, network: Network | None,
               dataset: Dataset, blobs: BlobStore) -> Prepared:
    """Add what can be pruned."""
    calibration, made = dataset.splits["calibration"].inputs, {
        "model": prepared.float_model, "calibration": prepared.splits["calibration"], "kind": model.kind,
        "criterion": settings.criterion, "seed": settings.seed, "revision": REVISION}
    step = run_step(blobs, "plan", made, ("torch", "torch-pruning"), lambda: {
        "plan": plan_pruning(model, network, calibration, dataset.positional, settings).to_bytes()})
    kept = step.outputs["plan"]
    inputs = None
    if network is not None and Plan.from_bytes(blobs.path(kept).read_bytes()).groups:
        weights = blobs.put_bytes(weights_bytes(network.module)).sha256
        inputs = PruneInputs(model, dataset.positional, weights, kept, prepared.splits["calibration"], settings.seed)
    return replace(prepared, pruning=inputs, plan=kept, versions={**prepared.versions, **step.tools})


def _import_network(compiler: Compiler, reference: Reference, dataset: Dataset, blobs: BlobStore) -> _Imported:
    """Run a network in PyTorch, then convert it."""
    network = load_network(reference)
    positional, calibration = dataset.positional, dataset.splits["calibration"].inputs
    if reference.kind == "onnx":
        check_onnx(reference, network, calibration, positional)
    outputs = run(network, calibration, positional, "the calibration inputs")
    check_repeatable(network, calibration, positional, outputs, reference.text)
    _check_targets(dataset, outputs[0].shape)
    validation = run(network, dataset.splits["validation"].inputs, positional, "the validation inputs")
    if any(array.dtype.kind in "iu" for array in calibration.values()):
        run(network, dataset.splits["test"].inputs, positional, "the test inputs")  # an index may be out of range
    metrics = apply_metrics(dataset.metrics, validation, _targets(dataset, "validation"))
    example = {name: array[:1] for name, array in calibration.items()}
    model, ports = compiler.convert(network, example, positional)
    kept = PyTorchReference(blobs.put_bytes(_npz(outputs)).sha256, metrics, positional)
    return _Imported(model, ports, kept, parameter_count(network), network)


def _import_tflite(reference: Reference, dataset: Dataset) -> _Imported:
    """Take a float .tflite model as it is; the data have its own layout."""
    model = Path(reference.target).read_bytes()
    calibration = dataset.splits["calibration"].inputs
    ports = read_float_model(model, reference.text, tuple(calibration), dataset.positional)
    check_inputs(ports, {name: (array.shape, array.dtype) for name, array in calibration.items()})
    _check_targets(dataset, ports.outputs[0].shape)
    return _Imported(with_own_outputs(with_signature(model)), ports, None, value_count(model), None)


def _check_targets(dataset: Dataset, shape: tuple[int, ...]) -> None:
    """Find labels out of range in any split before anything is built."""
    for name in ("validation", "test"):
        check_labels(dataset.metrics, shape, _targets(dataset, name), f"{dataset.name}: {name}")


def _targets(dataset: Dataset, name: str) -> Array:
    targets = dataset.splits[name].targets
    if targets is None:
        raise DataError(f"{dataset.name}: {name}: the targets are missing")
    return targets


def _npz(outputs: tuple[Array, ...]) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"o{i}": o for i, o in enumerate(outputs)}
    np.savez(buffer, **arrays)
    return buffer.getvalue()
