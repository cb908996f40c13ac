"""The first steps of the build chain, in a worker: import, convert, compare, calibrate."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.blobs import BlobStore
from recipes.boundary import foreign
from recipes.compilers.tflite.calibrate import calibrate
from recipes.compilers.tflite.convert import convert, flatten
from recipes.errors import DataError
from recipes.models.dataset import Dataset, Split, apply_metrics, load_data
from recipes.models.source import Reference, load_network
from recipes.ports import Array, Ports

if TYPE_CHECKING:
    import torch

BATCH = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """What later steps need, by digest: nothing of the user's code is loaded again but the metrics."""

    model_digest: str
    """Of the exported program: its graph and its weights."""
    float_model: str
    """Blob: the float .tflite model."""
    statistics: str
    """Blob: calibration statistics."""
    ports: Ports
    splits: Mapping[str, str]
    """Split name -> blob."""
    examples: Mapping[str, int]
    reference_outputs: str
    """Blob (.npz `o0`, ...): what PyTorch computes on the calibration inputs."""
    reference_metrics: Mapping[str, float]
    """PyTorch's own metrics on the validation split; the first is the objective."""
    parameters: int
    versions: Mapping[str, str]


def prepare(model: Reference, data: Reference, blob_folder: Path) -> Prepared:
    """Load a model and its data, convert and calibrate. Runs user code: only in a worker process.

    Raises:
        recipes.errors.ModelError: the model cannot be loaded, run, exported or converted.
        DataError: the data are malformed or do not fit the model.
    """
    blobs = BlobStore(blob_folder)
    dataset = load_data(data)
    network = load_network(model)
    network.eval()
    outputs = _run(network, dataset.splits["calibration"], dataset.positional)
    metrics = _torch_metrics(network, dataset)
    calibration = dataset.splits["calibration"]
    example = {name: array[:1] for name, array in calibration.inputs.items()}
    float_model, ports = convert(network, example, dataset.positional)
    statistics = calibrate(float_model, ports, calibration.inputs)
    kept = {name: split for name, split in dataset.splits.items() if name != "train"}
    return Prepared(
        model_digest=_digest(network), float_model=blobs.put_bytes(float_model).sha256,
        statistics=blobs.put_bytes(statistics).sha256, ports=ports,
        splits={name: blobs.put_bytes(split.to_bytes()).sha256 for name, split in kept.items()},
        examples={name: split.examples for name, split in kept.items()},
        reference_outputs=blobs.put_bytes(_npz(outputs)).sha256, reference_metrics=metrics,
        parameters=sum(p.numel() for p in network.parameters()),
        versions={name: version(name) for name in
                  ("torch", "litert-torch", "litert-converter", "ai-edge-quantizer", "ai-edge-litert")})


def _run(network: torch.nn.Module, split: Split, positional: bool) -> tuple[Array, ...]:
    """Run PyTorch on a split, one example at a time where a batch is refused; outputs (N, ...)."""
    import torch

    pieces: list[tuple[Array, ...]] = []
    with torch.no_grad():
        for start in range(0, split.examples, BATCH):
            tensors = {n: torch.from_numpy(np.ascontiguousarray(a[start:start + BATCH]))
                       for n, a in split.inputs.items()}
            with foreign(f"running the model on inputs of the shapes "
                         f"{ {n: tuple(t.shape) for n, t in tensors.items()} }", DataError):
                result = network(*tensors.values()) if positional else network(**tensors)
            pieces.append(tuple(t.float().numpy() for t in flatten(result)))
    return tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))


def _torch_metrics(network: torch.nn.Module, dataset: Dataset) -> dict[str, float]:
    split = dataset.splits["validation"]
    if split.targets is None:
        raise DataError("validation: the targets are missing")
    for name in ("validation", "test"):
        _check_outputs(network, dataset, name)
    return apply_metrics(dataset.metrics, _run(network, split, dataset.positional), split.targets)


def _check_outputs(network: torch.nn.Module, dataset: Dataset, name: str) -> None:
    """Find labels out of range in either split before anything is built."""
    split = dataset.splits[name]
    if split.targets is None:
        raise DataError(f"{name}: the targets are missing")
    few = Split({n: a[:1] for n, a in split.inputs.items()}, None)
    outputs = _run(network, few, dataset.positional)
    spread = tuple(np.repeat(o, split.examples, axis=0) for o in outputs)
    if "top1" in dataset.metrics:
        apply_metrics({"top1": dataset.metrics["top1"]}, spread, split.targets)


def _npz(outputs: tuple[Array, ...]) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"o{i}": o for i, o in enumerate(outputs)}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _digest(network: torch.nn.Module) -> str:
    """Hash a network's structure and every parameter and buffer."""
    found = hashlib.sha256(json.dumps([str(network)]).encode())
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode() + str(tensor.dtype).encode() + str(tuple(tensor.shape)).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()

