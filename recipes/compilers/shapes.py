"""One operator with everything that decides its work: what a board's price of a layer is known by."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from recipes.compilers.graph import Graph, Operator, Port, Tensor
from recipes.compilers.kinds import WEIGHTED
from recipes.compilers.layers import macs

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
"""What stands where neighbours differ in format: float32 to int8, and back."""
REDUCTIONS = frozenset({"MEAN", "SUM"})
_SCALE = 1 / 32
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerShape:
    """One operator with everything that decides its work, but its numeric format."""

    kind: str
    """As the schema writes it, e.g. `CONV_2D`."""
    inputs: tuple[Shape, ...]
    """Of what is computed at run time."""
    constant: Shape | None
    """Of its weights, or of the constant that it adds or multiplies with."""
    output: Shape

    def __post_init__(self) -> None:
        shapes = (*self.inputs, self.output, *([] if self.constant is None else [self.constant]))
        if not self.inputs or any(n < 1 for shape in shapes for n in shape):
            raise ValueError(f"{self.kind}: expected inputs, and sizes of at least 1, got {shapes}")

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for operators that have none."""
        graph = graph_of(self)
        return macs(graph, graph.operators[0])

    @property
    def work(self) -> int:
        """Multiply-accumulates, or the elements that it handles."""
        return self.macs or max(math.prod(shape) for shape in (*self.inputs, self.output))

    @property
    def kernel(self) -> int:
        """Edge of a convolution's kernel; 1 for other operators."""
        return self.constant[1] if self.constant is not None and len(self.constant) == 4 else 1

    @property
    def stride(self) -> int:
        """Of a convolution, 1 for other operators; told from the sizes, since it is stored nowhere else."""
        return self._steps[0]

    @property
    def is_unpadded(self) -> bool:
        """Tell whether a convolution adds no border (the schema's VALID); told from the sizes."""
        return self._steps[1]

    @cached_property
    def _steps(self) -> tuple[int, bool]:
        """Return the stride, and whether there is no border; of what the sizes allow, the usual comes first."""
        if self.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            return 1, False
        given, made = self.inputs[0][1], self.output[1]
        for stride, bare in ((1, False), (2, False), (1, True), (2, True), (4, False), (4, True)):
            if made == (math.ceil((given - self.kernel + 1) / stride) if bare else math.ceil(given / stride)):
                return stride, bare
        return max(1, round(given / made)), False

    @cached_property
    def key(self) -> str:
        """Digest of the shape."""
        text = json.dumps([self.kind, self.inputs, self.constant, self.output], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"kind": self.kind, "inputs": [list(shape) for shape in self.inputs],
                "constant": None if self.constant is None else list(self.constant), "output": list(self.output)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerShape:
        """Read what `to_json` wrote. Raises ValueError, KeyError."""
        constant = data["constant"]
        return cls(str(data["kind"]), tuple(tuple(int(n) for n in shape) for shape in data["inputs"]),
                   None if constant is None else tuple(int(n) for n in constant),
                   tuple(int(n) for n in data["output"]))


def shape_of(graph: Graph, op: Operator) -> LayerShape:
    """Return the shape of an operator of a float model; a reduction's without the axes that it keeps as 1."""
    given = tuple(graph.tensors[t].shape for t in graph.activations(op))
    constants = [graph.tensors[t] for t in op.inputs if t >= 0 and graph.is_constant(t)]
    constant = next((t.shape for t in constants if t.dtype == "FLOAT32"), None)
    made = graph.tensors[op.outputs[0]].shape
    if op.kind in REDUCTIONS and len(made) == len(given[0]):
        made = tuple(size for size, before in zip(made, given[0], strict=True) if size == before)
    return LayerShape(op.kind, given, constant, made)


def graph_of(shape: LayerShape, copies: int = 1) -> Graph:
    """Return copies of a layer as a float graph; operator i reads the inputs `i{i}_0`, ... and writes `o{i}`."""
    tensors: list[Tensor] = []
    operators, given, made = [], [], []

    def add(name: str, dtype: str, size: Shape, constant: bool = False) -> int:
        tensors.append(Tensor(name, dtype, size, constant, len(tensors) + 1,
                              *(((_SCALE,), (0,)) if dtype == "INT8" else ())))
        return len(tensors) - 1

    for i in range(copies):
        dtype = "INT8" if shape.kind == "DEQUANTIZE" else "FLOAT32"
        inputs = [add(f"i{i}_{n}", dtype, size) for n, size in enumerate(shape.inputs)]
        given += inputs
        inputs = [*inputs, *(add(*constant, True) for constant in _constants(shape, i))]
        output = add(f"o{i}", "INT8" if shape.kind == "QUANTIZE" else "FLOAT32", shape.output)
        made.append(output)
        operators.append(Operator(i, shape.kind, tuple(inputs), (output,)))
    return Graph(tuple(tensors), tuple(operators),
                 tuple(Port(tensors[t].name, t, n) for n, t in enumerate(given)),
                 tuple(Port(tensors[t].name, t, n) for n, t in enumerate(made)))


def _constants(shape: LayerShape, copy: int) -> list[tuple[str, str, Shape]]:
    """Return name, type and size of a layer's constants, in the operator's order."""
    found: list[tuple[str, str, Shape]] = []
    if shape.constant is not None:
        found.append((f"w{copy}", "FLOAT32", shape.constant))
    if shape.kind in WEIGHTED and shape.constant is not None:
        found.append((f"b{copy}", "FLOAT32", (shape.output[-1],)))
    if shape.kind in REDUCTIONS:
        found.append((f"a{copy}", "INT32", (len(reduced_axes(shape)),)))
    return found


def reduced_axes(shape: LayerShape) -> tuple[int, ...]:
    """Return the axes over which a reduction goes, told from the sizes; the last ones where several would do.

    Raises ValueError where none would.
    """
    given, axes = shape.inputs[0], range(len(shape.inputs[0]))
    for kept in combinations(axes, len(shape.output)):
        if tuple(given[axis] for axis in kept) == shape.output:
            return tuple(axis for axis in axes if axis not in kept)
    raise ValueError(f"{shape.kind}: {shape.output} is not what is left of {given}")
