"""The user's data: checked once, then known by what they contain."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.boundary import foreign
from recipes.errors import DataError
from recipes.models.source import Reference, load_callable
from recipes.ports import Array

KEYS = ("calibration", "validation", "test", "train", "metrics")
Metric = Callable[[Any, Array], float]


@dataclass(frozen=True, slots=True)
class Split:
    """Inputs by argument name, each (N, ...), and targets (N, ...); calibration has no targets."""

    inputs: Mapping[str, Array]
    targets: Array | None

    @property
    def examples(self) -> int:
        return len(next(iter(self.inputs.values())))

    def to_bytes(self) -> bytes:
        """Serialise as an uncompressed .npz: `input:NAME`, `targets`."""
        arrays: dict[str, Any] = {f"input:{name}": array for name, array in self.inputs.items()}
        if self.targets is not None:
            arrays["targets"] = self.targets
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Split:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            inputs = {n.removeprefix("input:"): arrays[n] for n in arrays.files if n.startswith("input:")}
            return cls(inputs, arrays["targets"] if "targets" in arrays.files else None)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a data factory returned, checked."""

    splits: Mapping[str, Split]
    metrics: Mapping[str, Metric]
    """The first is the objective."""
    positional: bool
    """True when the inputs came as one array and not as a mapping."""


def top1(outputs: Any, targets: Array) -> float:
    """Return the share of examples whose greatest score is at the target.

    Args:
        outputs: (N, classes), or a tuple whose first member is.
        targets: (N,) integers.
    """
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    return float(np.mean(np.argmax(scores, axis=-1) == targets))


def load_data(reference: Reference) -> Dataset:
    """Call the user's data factory and check what it returns. Only in a worker process.

    Raises:
        DataError: naming the key, what was expected and what was found.
    """
    if reference.kind == "demo":
        from recipes.demo.data import fashion_mnist

        return check_data(fashion_mnist(), reference.text)
    factory = load_callable(reference, DataError)
    found: Any = None
    with foreign(f"{reference.text}()", DataError):
        found = factory()
    return check_data(found, reference.text)


def check_data(found: Any, where: str) -> Dataset:
    """Check a mapping of splits, see `load_data`."""
    if not isinstance(found, Mapping):
        raise DataError(f"{where} returned {type(found).__name__}; expected a mapping with the keys "
                        "calibration, validation and test")
    unknown = sorted(set(found) - set(KEYS))
    missing = [key for key in KEYS[:3] if key not in found]
    if unknown or missing:
        raise DataError(f"{where}: expected the keys {', '.join(KEYS[:3])} and optionally train, metrics; "
                        f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}")
    splits: dict[str, Split] = {}
    positional = not isinstance(found["calibration"], Mapping)
    splits["calibration"] = Split(_inputs(found["calibration"], f"{where}: calibration"), None)
    for name in ("validation", "test", "train"):
        if name not in found or (name == "train" and found[name] is None):
            continue
        pair = found[name]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"{where}: {name}: expected a pair (inputs, targets), got {type(pair).__name__}")
        inputs, targets = _inputs(pair[0], f"{where}: {name}"), _array(pair[1], f"{where}: {name}: targets")
        split = Split(inputs, targets)
        if len(targets) != split.examples:
            raise DataError(f"{where}: {name}: {split.examples} inputs but {len(targets)} targets")
        splits[name] = split
    first = splits["calibration"].inputs
    for name, split in splits.items():
        for argument, array in split.inputs.items():
            if argument not in first or set(split.inputs) != set(first):
                raise DataError(f"{where}: {name} has the inputs {sorted(split.inputs)}, "
                                f"calibration has {sorted(first)}")
            if array.shape[1:] != first[argument].shape[1:]:
                raise DataError(f"{where}: {name}: input {argument!r} has the shape {array.shape[1:]} per example, "
                                f"calibration has {first[argument].shape[1:]}; shapes must be fixed")
    return Dataset(splits, _metrics(found.get("metrics"), where), positional)


def _inputs(value: Any, where: str) -> dict[str, Array]:
    arrays = {str(k): _array(v, f"{where}: {k}") for k, v in value.items()} if isinstance(value, Mapping) \
        else {"input": _array(value, where)}
    if not arrays:
        raise DataError(f"{where}: an empty mapping; expected at least one input")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{where}: the inputs have different lengths: {lengths}")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{where}: input {name!r} has values that are not finite")
    return arrays


def _array(value: Any, where: str) -> Array:
    """Take a numpy array, a torch tensor or a sequence; float64 becomes float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind not in "fiub":
        raise DataError(f"{where}: expected numbers, got {type(value).__name__} of {array.dtype}")
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{where}: the split is empty (shape {array.shape}); expected (N, ...) with N >= 1")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _metrics(value: Any, where: str) -> dict[str, Metric]:
    if value is None:
        return {"top1": top1}
    metrics = dict(value) if isinstance(value, Mapping) else {getattr(value, "__name__", "metric"): value}
    wrong = [str(name) for name, metric in metrics.items() if not callable(metric)]
    if wrong or not metrics:
        raise DataError(f"{where}: metrics: expected a callable or a mapping name -> callable; "
                        f"not callable: {', '.join(wrong) or 'the mapping is empty'}")
    return {str(name): metric for name, metric in metrics.items()}


def apply_metrics(metrics: Mapping[str, Metric], outputs: tuple[Array, ...], targets: Array) -> dict[str, float]:
    """Evaluate every metric; one output is passed as an array, several as a tuple.

    Raises:
        DataError: when a metric fails or returns no finite number, or labels do not fit top-1.
    """
    given: Any = outputs[0] if len(outputs) == 1 else outputs
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        if metric is top1:
            _check_labels(outputs[0], targets)
        value: Any = None
        with foreign(f"the metric {name!r}", DataError):
            value = float(metric(given, targets))
        if not np.isfinite(value):
            raise DataError(f"the metric {name!r} returned {value}; expected a finite number, higher is better")
        values[name] = value
    return values


def _check_labels(scores: Array, targets: Array) -> None:
    if scores.ndim != 2 or targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise DataError(f"top-1 needs outputs (N, classes) and integer targets (N,), got {scores.shape} and "
                        f"{targets.dtype} {targets.shape}; give `metrics` of your own")
    classes = scores.shape[1]
    if targets.min() < 0 or targets.max() >= classes:
        raise DataError(f"labels out of range: the model has {classes} classes (0 to {classes - 1}), the targets "
                        f"run from {targets.min()} to {targets.max()}")
