"""The user's data: checked once, then known by what they contain."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.boundary import foreign
from recipes.errors import DataError
from recipes.models.source import Reference, load_callable
from recipes.ports import Array
from search.goal import METRIC_NAME

KEYS = ("calibration", "validation", "test", "train", "metrics")
INT32 = np.iinfo(np.int32)
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
    name: str
    """As the user wrote it."""


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
    unknown = sorted(str(key) for key in set(found) - set(KEYS))
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
            if array.dtype.kind != first[argument].dtype.kind:
                raise DataError(f"{where}: {name}: input {argument!r} is {array.dtype}, in calibration it is "
                                f"{first[argument].dtype}; expected the same type in every split")
    return Dataset(splits, _metrics(found.get("metrics"), where), positional, where)


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
            first = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
            raise DataError(f"{where}: input {name!r} has values that are not finite (first in example {first})")
        if array.dtype.kind in "iu" and (array.min() < INT32.min or array.max() > INT32.max):
            raise DataError(f"{where}: input {name!r} has integers from {array.min()} to {array.max()}; expected "
                            "what fits in 32 bits")
    return arrays


def _array(value: Any, where: str) -> Array:
    """Take a numpy array, a torch tensor or a sequence; floats of another width become float32."""
    array = np.empty(0)
    with foreign(f"{where}: reading {type(value).__name__} as an array", DataError):
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()
        array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: expected an array of numbers (N, ...), got {type(value).__name__} of {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise DataError(f"{where}: the split is empty (shape {array.shape}); expected (N, ...) with N >= 1")
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _metrics(value: Any, where: str) -> dict[str, Metric]:
    if value is None:
        return {"top1": top1}
    if callable(value):
        name = getattr(value, "__name__", "metric")
        value = {name if name.isidentifier() else "metric": value}
    if not isinstance(value, Mapping) or not value:
        raise DataError(f"{where}: metrics: expected a callable (outputs, targets) -> float or a mapping name -> "
                        f"callable, got {'an empty mapping' if isinstance(value, Mapping) else type(value).__name__}")
    for name, metric in value.items():
        if not isinstance(name, str) or not re.fullmatch(METRIC_NAME, name):
            raise DataError(f"{where}: metrics: expected names such as recall_6, got {name!r}")
        if not callable(metric):
            raise DataError(f"{where}: metrics: {name}: expected a callable (outputs, targets) -> float, got "
                            f"{type(metric).__name__}")
        if name == "top1" and metric is not top1:
            raise DataError(f"{where}: metrics: the name top1 is that of the built-in metric: choose another")
    return dict(value)


def apply_metrics(metrics: Mapping[str, Metric], outputs: tuple[Array, ...], targets: Array) -> dict[str, float]:
    """Evaluate every metric; one output is passed as an array, several as a tuple.

    Raises:
        DataError: when a metric fails or returns no finite number.
    """
    given: Any = outputs[0] if len(outputs) == 1 else outputs
    check_labels(metrics, outputs[0].shape, targets, "the data")
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        value: Any = None
        with foreign(f"the metric {name!r}", DataError):
            value = metric(given, targets)
        try:
            value = float(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"the metric {name!r} returned {type(value).__name__}; expected one number, higher is "
                            "better") from error
        if not np.isfinite(value):
            raise DataError(f"the metric {name!r} returned {value}; expected a finite number, higher is better")
        values[name] = value
    return values


def check_labels(metrics: Mapping[str, Metric], shape: tuple[int, ...], targets: Array, where: str) -> None:
    """Find labels that do not fit the model, where top-1 is among the metrics.

    Args:
        metrics: of the data.
        shape: of the first output, (N, classes).
        targets: (N,) integers.
        where: the split, for the message.

    Raises:
        DataError: naming what was expected and found.
    """
    if top1 not in metrics.values():
        return
    if len(shape) != 2 or targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise DataError(f"{where}: top-1 needs outputs (N, classes) and integer targets (N,), got outputs "
                        f"(N, {', '.join(map(str, shape[1:]))}) and targets {targets.dtype} {targets.shape}; give "
                        "`metrics` of your own")
    classes = shape[1]
    if targets.min() < 0 or targets.max() >= classes:
        raise DataError(f"{where}: labels out of range: the model has {classes} classes (0 to {classes - 1}), the "
                        f"targets run from {targets.min()} to {targets.max()}")
