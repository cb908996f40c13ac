"""The float network that a compiler quantises, as plain data: tensors, operators, inputs and outputs.

Operators and types have the names of the TFLite schema, whatever the compiler: https://ai.google.dev/edge/litert.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor."""

    name: str
    dtype: str
    """As the schema writes it: FLOAT32, FLOAT16, INT8, INT4, INT2, INT16, INT32, ..."""
    shape: tuple[int, ...]
    constant: bool
    buffer: int
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator, in execution order; -1 among the inputs marks an absent one."""

    index: int
    kind: str
    """As the schema writes it: CONV_2D, FULLY_CONNECTED, ..."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the signature."""

    name: str
    tensor: int
    position: int
    """Among the runtime's own inputs or outputs."""


@dataclass(frozen=True)
class Graph:
    """A network without control flow and with one entry point."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @cached_property
    def producer(self) -> Mapping[int, Operator]:
        """Tensor index -> the operator that writes it."""
        return {tensor: op for op in self.operators for tensor in op.outputs}

    @cached_property
    def consumers(self) -> Mapping[int, tuple[Operator, ...]]:
        """Tensor index -> the operators that read it."""
        found: dict[int, list[Operator]] = {}
        for op in self.operators:
            for tensor in op.inputs:
                found.setdefault(tensor, []).append(op)
        return {tensor: tuple(ops) for tensor, ops in found.items()}

    def activations(self, op: Operator) -> tuple[int, ...]:
        """Return the inputs of `op` that are computed at run time."""
        return tuple(t for t in op.inputs if t >= 0 and not self.is_constant(t))

    def is_constant(self, tensor: int) -> bool:
        """Tell whether a tensor is known before the first run (a dequantised constant is)."""
        if self.tensors[tensor].constant:
            return True
        writer = self.producer.get(tensor)
        return writer is not None and writer.kind == "DEQUANTIZE" and self.tensors[writer.inputs[0]].constant
