"""How arrays in the PyTorch model's layout become an artifact's inputs, and its outputs come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class PortSpec:
    """One input or output of an artifact."""

    name: str
    """In the artifact's signature."""
    position: int
    """Among the interpreter's inputs or outputs: `i0`, `o1` in files of tensors."""
    source: str
    """In the PyTorch model: the argument's name, or the output's position."""
    shape: tuple[int, ...]
    """In the artifact, with its batch axis (1)."""
    dtype: str
    """numpy's name: float32, int8, int32, ..."""
    channels_last: bool
    """True when the artifact has the channels last and the PyTorch model has them second."""
    scale: float | None = None
    zero_point: int | None = None

    def encode(self, batch: Array) -> Array:
        """Turn (N, ...) in the model's layout into (N, ...) in the artifact's layout and type."""
        if self.channels_last:
            batch = np.moveaxis(batch, 1, -1)
        if self.scale is not None and self.zero_point is not None:
            limits = np.iinfo(self.dtype)
            batch = np.clip(np.round(batch / self.scale) + self.zero_point, limits.min, limits.max)
        return np.ascontiguousarray(batch, dtype=self.dtype)

    def decode(self, batch: Array) -> Array:
        """Turn (N, ...) of the artifact into float (N, ...) in the model's layout."""
        if self.scale is not None and self.zero_point is not None:
            batch = ((batch.astype(np.float32) - self.zero_point) * np.float32(self.scale)).astype(np.float32)
        return np.ascontiguousarray(np.moveaxis(batch, -1, 1)) if self.channels_last else batch

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PortSpec:
        return cls(**{**data, "shape": tuple(data["shape"])})


@dataclass(frozen=True, slots=True)
class Ports:
    """All inputs and outputs of an artifact, in order."""

    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]

    def encode(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Turn named arrays (N, ...) of the model into the tensors `i0`, `i1`, ... of a run."""
        return {f"i{port.position}": port.encode(arrays[port.source]) for port in self.inputs}

    def decode(self, tensors: Mapping[str, Array]) -> tuple[Array, ...]:
        """Turn the tensors `o0`, `o1`, ... of a run into the model's outputs, in its order."""
        return tuple(port.decode(tensors[f"o{port.position}"]) for port in self.outputs)

    def to_json(self) -> dict[str, Any]:
        return {"inputs": [p.to_json() for p in self.inputs], "outputs": [p.to_json() for p in self.outputs]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Ports:
        return cls(tuple(PortSpec.from_json(p) for p in data["inputs"]),
                   tuple(PortSpec.from_json(p) for p in data["outputs"]))
