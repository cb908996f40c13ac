"""A float Relax module as operators: what is computed together is one, with its weights and its geometry."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf
from typing import Any

import numpy as np

from recipes.compilers.graph import Graph, Operator, Port, Tensor
from recipes.compilers.tvm.kernels.window import Window
from recipes.compilers.tvm.module import FloatModule, bindings_of, is_constant, operator_name, read_module
from recipes.ports import Array

_KINDS: Mapping[str, str] = {
    "relax.add": "ADD", "relax.subtract": "SUB", "relax.multiply": "MUL", "relax.divide": "DIV", "relax.mean": "MEAN",
    "relax.sum": "SUM", "relax.nn.softmax": "SOFTMAX", "relax.nn.gelu": "GELU", "relax.sigmoid": "LOGISTIC",
    "relax.tanh": "TANH", "relax.nn.hardswish": "HARD_SWISH", "relax.nn.relu": "RELU",
    "relax.maximum": "MAXIMUM", "relax.minimum": "MINIMUM",
    "relax.sqrt": "SQRT", "relax.rsqrt": "RSQRT", "relax.reshape": "RESHAPE", "relax.permute_dims": "TRANSPOSE",
    "relax.squeeze": "RESHAPE", "relax.expand_dims": "RESHAPE", "relax.flatten": "RESHAPE", "relax.nn.pad": "PAD",
    "relax.nn.max_pool2d": "MAX_POOL_2D", "relax.nn.avg_pool2d": "AVERAGE_POOL_2D", "relax.concat": "CONCATENATION",
    "relax.strided_slice": "STRIDED_SLICE", "relax.split": "SPLIT", "relax.broadcast_to": "BROADCAST_TO"}
"""Operator of Relax -> in the schema's words; others keep their own name, and are no variables."""
LEAVES = frozenset({"SOFTMAX", "GELU"})


@dataclass(frozen=True)
class Weighted:
    """A convolution or a linear layer that our kernels compute."""

    window: Window
    weight: Array
    """(kernels, height, width, channels), of a depthwise convolution (channels, height, width)."""
    bias: Array | None = None
    """(kernels,)."""


@dataclass(frozen=True)
class Piece:
    """One operator, with the bindings that it computes."""

    operator: Operator
    path: str
    """PyTorch module path, `` where it is not known."""
    bindings: tuple[int, ...]
    """Of `main`: the operator itself, its bias, its activation."""
    inputs: tuple[int, ...]
    """Tensors that it reads at run time."""
    limits: tuple[float, float] = (-inf, inf)
    """Of the result: (0, inf) behind a rectifier."""
    weighted: Weighted | None = field(default=None, compare=False)


@dataclass(frozen=True)
class FloatNetwork:
    """A float model as operators."""

    module: Any
    """The IRModule."""
    graph: Graph
    pieces: tuple[Piece, ...]
    """One for each operator of the graph."""
    results: tuple[int, ...]
    """Tensors that are the network's outputs."""
    tensor_of: Mapping[Any, int]
    """Variable of the module -> tensor."""


@lru_cache(maxsize=8)
def read_network(model: bytes) -> FloatNetwork:
    """Read a float model. Raises ValueError when it is none."""
    return _Reader(read_module(model)).read()


class _Reader:
    """Goes through the bindings of a module once."""

    def __init__(self, found: FloatModule) -> None:
        self._module, self._paths = found.module, found.paths
        self._bindings = bindings_of(found.module)
        self._reads: Counter[Any] = Counter()
        for binding in self._bindings:
            self._reads.update(_variables(binding.value))
        self._tensors: list[Tensor] = []
        self._tensor_of: dict[Any, int] = {}
        self._weights: dict[tuple[str, str], int] = {}
        self._pieces: list[Piece] = []

    def read(self) -> FloatNetwork:
        """Return the network."""
        main = self._module["main"]
        inputs = []
        for position, parameter in enumerate(main.params):
            inputs.append(Port(str(parameter.name), self._add(parameter, str(parameter.name)), position))
        index = 0
        while index < len(self._bindings) - 1:  # the last one is the tuple of the outputs
            index = self._take(index)
        made = [self._tensor_of[variable] for variable in _variables(self._bindings[-1].value)]
        outputs = tuple(Port(f"output_{i}", tensor, i) for i, tensor in enumerate(made))
        graph = Graph(tuple(self._tensors), tuple(piece.operator for piece in self._pieces), tuple(inputs), outputs)
        return FloatNetwork(self._module, graph, tuple(self._pieces), tuple(made), self._tensor_of)

    def _take(self, index: int) -> int:
        """Make a piece of a binding and of those that are computed with it; return the next binding's index."""
        binding = self._bindings[index]
        value, name = binding.value, operator_name(binding.value)
        kind = _KINDS.get(name, name.rpartition(".")[2].upper() or type(value).__name__.upper())
        weighted: Weighted | None = None
        if name == "relax.nn.conv2d" and is_constant(value.args[1]):
            kind, weighted = _convolution(value)
        elif name == "relax.matmul":
            kind = "BATCH_MATMUL"
            if is_constant(value.args[1]) and len(value.args[1].ty.shape) == 2:
                kind, weighted = "FULLY_CONNECTED", _linear(value, binding.var)
        fused, limits = [index], (-inf, inf)
        if weighted is not None:
            weighted = replace(weighted, bias=self._bias(fused, weighted.window.kernels))
        if weighted is not None or kind == "ADD":
            limits = self._activation(fused)
        inputs = tuple(dict.fromkeys(self._tensor_of[v] for v in _variables(value)))
        constants = self._constants(index, kind, weighted, value)
        output = self._add(self._bindings[fused[-1]].var, f"b{fused[-1]}")
        operator = Operator(len(self._pieces), kind, (*inputs, *constants), (output,))
        self._pieces.append(Piece(operator, self._paths[index], tuple(fused), inputs, limits, weighted))
        return fused[-1] + 1

    def _bias(self, fused: list[int], kernels: int) -> Array | None:
        """Take a sum with one constant for every output channel, if that comes next and nothing else reads between."""
        following = self._following(fused, "relax.add")
        for argument in following.value.args if following is not None else ():
            if is_constant(argument):
                found = np.asarray(argument.data.numpy())
                if found.size == kernels == found.shape[-1]:
                    fused.append(fused[-1] + 1)
                    return found.reshape(kernels)
        return None

    def _activation(self, fused: list[int]) -> tuple[float, float]:
        """Take a rectifier, if that comes next and nothing else reads between."""
        if self._following(fused, "relax.nn.relu") is not None:
            fused.append(fused[-1] + 1)
            return 0.0, inf
        return self._bound(fused, "relax.maximum", -inf), self._bound(fused, "relax.minimum", inf)

    def _bound(self, fused: list[int], name: str, default: float) -> float:
        """Take a maximum or minimum with one number, if that comes next and nothing else reads between."""
        following = self._following(fused, name)
        if following is None or not is_constant(following.value.args[1]):
            return default
        bound = np.asarray(following.value.args[1].data.numpy())
        if bound.size != 1:
            return default
        fused.append(fused[-1] + 1)
        return float(bound.reshape(()))

    def _following(self, fused: list[int], name: str) -> Any:
        """Return the next binding where it is this operator, and the only reader of the last one."""
        last = self._bindings[fused[-1]].var
        following = self._bindings[fused[-1] + 1]
        if operator_name(following.value) != name or self._reads[last] != 1:
            return None
        return following if any(v.same_as(last) for v in _variables(following.value)) else None

    def _constants(self, index: int, kind: str, weighted: Weighted | None, value: Any) -> list[int]:
        """Add an operator's constants as tensors, in the schema's order and shapes."""
        if weighted is None:
            return [self._constant(f"b{index}.c", argument.data.numpy().shape, str(argument.ty.dtype))
                    for argument in getattr(value, "args", ()) if is_constant(argument)]
        weight, bias = weighted.weight, weighted.bias
        key = self._paths[index], hashlib.sha256(np.ascontiguousarray(weight).tobytes()).hexdigest()
        if key not in self._weights:
            shape = weight.shape
            if kind == "DEPTHWISE_CONV_2D":
                shape = (1, *weight.shape[1:], weight.shape[0])
            elif kind == "FULLY_CONNECTED":
                shape = (weight.shape[0], weight.shape[3])
            self._weights[key] = self._constant(f"b{index}.w", shape, "float32")
        found = [self._weights[key]]
        return found if bias is None else [*found, self._constant(f"b{index}.b", bias.shape, "float32")]

    def _constant(self, name: str, shape: tuple[int, ...], dtype: str) -> int:
        self._tensors.append(Tensor(name, dtype.upper(), tuple(int(n) for n in shape), True, 0))
        return len(self._tensors) - 1

    def _add(self, variable: Any, name: str) -> int:
        ty = variable.ty
        shape = tuple(int(n) for n in ty.shape) if hasattr(ty, "shape") else ()
        self._tensors.append(Tensor(name, str(getattr(ty, "dtype", "tuple")).upper(), shape, False, 0))
        self._tensor_of[variable] = len(self._tensors) - 1
        return self._tensor_of[variable]


def _variables(value: Any) -> Iterator[Any]:
    """Yield the variables that an expression reads, in order."""
    from tvm import relax
    from tvm.relax import Call, Tuple

    if isinstance(value, relax.Var):
        yield value
    elif isinstance(value, Call):
        for argument in value.args:
            yield from _variables(argument)
    elif isinstance(value, Tuple):
        for part in value.fields:
            yield from _variables(part)
    elif isinstance(value, relax.TupleGetItem):
        yield from _variables(value.tuple_value)


def _convolution(value: Any) -> tuple[str, Weighted | None]:
    """Return kind, geometry and weights of a convolution; None where our kernels do not compute it."""
    attrs = value.attrs
    _, height, width, channels = (int(n) for n in value.args[0].ty.shape)
    weight = np.asarray(value.args[1].data.numpy())
    groups, kernels = int(attrs.groups), weight.shape[0]
    top, left, bottom, right = (int(n) for n in attrs.padding)
    window = Window(height, width, channels, kernels, (weight.shape[1], weight.shape[2]), _pair(attrs.strides),
                    (top, left, bottom, right), _pair(attrs.dilation))
    if groups == 1:
        return "CONV_2D", Weighted(window, weight)
    if groups == channels == kernels:
        return "DEPTHWISE_CONV_2D", Weighted(window, weight[..., 0])
    return "GROUPED_CONV_2D", None


def _linear(value: Any, variable: Any) -> Weighted:
    weight = np.asarray(value.args[1].data.numpy())
    inputs, outputs = weight.shape
    rows = int(np.prod([int(n) for n in variable.ty.shape])) // outputs
    return Weighted(Window(1, rows, inputs, outputs),
                    np.ascontiguousarray(weight.T).reshape(outputs, 1, 1, inputs))


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(n) for n in values)
    return first, second
