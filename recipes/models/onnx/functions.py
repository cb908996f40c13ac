"""ONNX operators without weights as functions of tensors, by the operator's definition."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from math import isclose, prod
from operator import methodcaller
from types import MappingProxyType
from typing import Any

import numpy as np

from recipes.models.onnx.node import TRAINING, Place
from recipes.models.onnx.windows import average_pool, global_pool, max_pool, resize

Compute = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Function:
    """What computes an operator."""

    compute: Compute
    operands: tuple[str, ...]
    """Values that it reads, in order; constants among them are tensors of the network."""


def function_of(place: Place) -> Function:
    """Return what computes a node. Raises ModelError when no function does."""
    op, names = place.node.op, place.node.inputs
    if op in _PAIRS:
        return _pair(place)
    if op in _MANY:
        return Function(_MANY[op](place), tuple(name for name in names if name))
    return Function(_ONE[op](place), names[:1])


def _pair(place: Place) -> Function:
    """Compute from two values; a constant number is no tensor, as in a program that one writes."""
    compute, (first, second) = _PAIRS[place.node.op], place.node.inputs
    before, after = _number(place, 0), _number(place, 1)
    if after is not None and place.node.op != "MatMul":
        return Function(lambda x: compute(x, after), (first,))
    if before is not None and place.node.op in ("Add", "Sub", "Mul", "Div"):
        return Function(lambda x: compute(before, x), (second,))
    return Function(compute, (first, second))


def _number(place: Place, index: int) -> float | None:
    """Return one of two inputs where it is a constant number that does not shape the result."""
    array = place.constants.get(place.node.inputs[index])
    alone = array is not None and array.size == 1 and array.ndim <= len(place.shape(1 - index))
    return array.reshape(-1)[0].item() if array is not None and alone else None


def _divided(x: Any, y: Any) -> Any:
    """Divide; integers towards zero."""
    import torch

    whole = not any(v.is_floating_point() if isinstance(v, torch.Tensor) else isinstance(v, float) for v in (x, y))
    return torch.div(x, y, rounding_mode="trunc") if whole else x / y


def _torch(name: str, *names: str) -> Compute:
    """Return a function of torch, or of a module in it, which is not imported before it is called."""
    def compute(*given: Any, **named: Any) -> Any:
        import torch

        return reduce(getattr, (name, *names), torch)(*given, **named)  # type: ignore[operator]
    return compute


def _method(name: str) -> Callable[[Place], Compute]:
    return lambda place: methodcaller(name)


def _functional(name: str, **attributes: tuple[str, float]) -> Callable[[Place], Compute]:
    """Call a function of torch.nn.functional; argument -> attribute and its default."""
    return lambda place: partial(_torch("nn", "functional", name), **{
        argument: float(place.attribute(*attribute)) for argument, attribute in attributes.items()})


def _clip(place: Place) -> Compute:
    low, high = (float(place.constant(index, "limits").reshape(-1)[0]) if place.has(index) else None
                 for index in (1, 2))
    return lambda x: x.relu() if (low, high) == (0.0, None) else x.clamp(low, high)


def _hard_sigmoid(place: Place) -> Compute:
    slope, offset = float(place.attribute("alpha", 0.2)), float(place.attribute("beta", 0.5))
    if isclose(slope, 1 / 6, rel_tol=1e-6) and offset == 0.5:
        return _torch("nn", "functional", "hardsigmoid")
    return lambda x: (x * slope + offset).clamp(0.0, 1.0)


def _gelu(place: Place) -> Compute:
    return partial(_torch("nn", "functional", "gelu"), approximate=place.attribute("approximate", "none"))


def _softmax(place: Place) -> Compute:
    return methodcaller("log_softmax" if place.node.op == "LogSoftmax" else "softmax", int(place.attribute("axis", -1)))


def _cast(place: Place) -> Compute:
    kinds = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool"}  # as TensorProto numbers them
    kind = kinds.get(int(place.attribute("to", 0)))
    if kind is None:
        raise place.refusal(f"casts to type {place.attribute('to', 0)}; expected {', '.join(kinds.values())}")
    return lambda x: x.to(_torch_type(kind))


def _torch_type(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _reshape(place: Place) -> Compute:
    wanted, literal = place.integers(1, "shape") or (), bool(place.attribute("allowzero", 0))
    return lambda x: x.reshape([size if size or literal else x.shape[axis] for axis, size in enumerate(wanted)])


def _flatten(place: Place) -> Compute:
    axis = int(place.attribute("axis", 1))
    axis += len(place.shape()) if axis < 0 else 0
    return lambda x: x.flatten(1) if axis == 1 else x.reshape(prod(x.shape[:axis]), -1)


def _transpose(place: Place) -> Compute:
    order = tuple(place.attribute("perm", tuple(reversed(range(len(place.shape()))))))
    return methodcaller("permute", order)


def _axes(place: Place, rank: int) -> tuple[int, ...] | None:
    """Return axes given as an attribute or, in newer opsets, as an input; none of them negative."""
    axes = place.attribute("axes", None)
    found = place.integers(1, "axes") if axes is None else axes
    return None if found is None else tuple(int(axis) % rank for axis in found)


def _squeeze(place: Place) -> Compute:
    axes = _axes(place, len(place.shape()))
    if axes is None:
        raise place.refusal("names no axes, and so takes the batch away too; expected axes")
    return methodcaller("squeeze", axes)


def _unsqueeze(place: Place) -> Compute:
    count = len(place.integers(1, "axes") or ())
    axes = sorted(_axes(place, len(place.shape()) + count) or ())
    return lambda x: reduce(lambda y, axis: y.unsqueeze(axis), axes, x)


def _concat(place: Place) -> Compute:
    axis = int(place.attribute("axis", 0))
    return lambda *parts: _torch("cat")(parts, axis)


def _split(place: Place) -> Compute:
    axis, count = int(place.attribute("axis", 0)), len(place.node.outputs)
    sizes = place.integers(1, "sizes")
    each = -(-place.shape()[axis] // count)
    return lambda x: x.split(each if sizes is None else list(sizes), axis)


def _slice(place: Place) -> Compute:
    shape = place.shape()
    starts, stops = place.integers(1, "starts") or (), place.integers(2, "ends") or ()
    axes = place.integers(3, "axes") or tuple(range(len(starts)))
    steps = place.integers(4, "steps") or (1,) * len(starts)
    if min(steps) < 1:
        raise place.refusal(f"has the steps {steps}; expected positive ones")
    parts = [slice(None)] * len(shape)
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        parts[axis] = slice(start, min(stop, np.iinfo(np.int32).max), step)
    return lambda x: x[tuple(parts)]


def _gather(place: Place) -> Compute:
    axis = int(place.attribute("axis", 0))
    wanted = place.constant(1, "indices")
    if wanted.ndim > 1:
        raise place.refusal(f"has indices of the shape {wanted.shape}; expected one number or a row of them")
    indices = [int(n) % place.shape()[axis] for n in wanted.reshape(-1)]
    if wanted.ndim == 0:
        return lambda x: x.select(axis, indices[0])
    return lambda x: x.index_select(axis, _torch("tensor")(indices))


def _expand(place: Place) -> Compute:
    wanted = place.integers(1, "shape") or ()
    return lambda x: x.expand(_torch("broadcast_shapes")(tuple(x.shape), wanted))


def _pad(place: Place) -> Compute:
    rank, pads = len(place.shape()), place.integers(1, "pads") or ()
    axes = tuple(axis % rank for axis in place.integers(3, "axes") or range(rank))
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(place.attribute("mode", "constant"))
    if mode is None:
        raise place.refusal(f"pads by {place.attribute('mode', '')}; expected constant, reflect or edge")
    value = float(place.constant(2, "value").reshape(-1)[0]) if place.has(2) else 0.0
    of_axis = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    first = min((axis for axis, pair in of_axis.items() if any(pair)), default=rank - 1)
    sides = [n for axis in reversed(range(first, rank)) for n in of_axis.get(axis, (0, 0))]
    given = {"value": value} if mode == "constant" else {}
    return lambda x: _torch("nn", "functional", "pad")(x, sides, mode, **given)


def _reduce(name: str) -> Callable[[Place], Compute]:
    def make(place: Place) -> Compute:
        rank, kept = len(place.shape()), bool(place.attribute("keepdims", 1))
        axes = _axes(place, rank)
        if not axes and place.attribute("noop_with_empty_axes", 0):
            return lambda x: x
        return methodcaller(name, axes or tuple(range(rank)), keepdim=kept)
    return make


def _same(place: Place) -> Compute:
    if place.node.op == "Dropout" and place.has(2) and place.constant(2, "training_mode").any():
        raise place.refusal("is in training mode", TRAINING)
    return lambda x: x


def _all(name: str) -> Callable[[Place], Compute]:
    """Compute from any number of values, pair by pair."""
    return lambda place: lambda *given: reduce(_torch(name), given)


_PAIRS: Mapping[str, Compute] = MappingProxyType({
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": _divided, "Pow": operator.pow,
    "Equal": operator.eq, "Less": operator.lt, "Greater": operator.gt, "And": _torch("logical_and"),
    "MatMul": operator.matmul})
_MANY: Mapping[str, Callable[[Place], Compute]] = MappingProxyType({
    "Concat": _concat, "Max": _all("maximum"), "Min": _all("minimum"), "Sum": _all("add"),
    "Where": lambda place: _torch("where")})
_ONE: Mapping[str, Callable[[Place], Compute]] = MappingProxyType({
    "Abs": _method("abs"), "Erf": _method("erf"), "Exp": _method("exp"), "Log": _method("log"), "Neg": _method("neg"),
    "Not": _method("logical_not"), "Reciprocal": _method("reciprocal"), "Relu": _method("relu"),
    "Sigmoid": _method("sigmoid"), "Sqrt": _method("sqrt"), "Tanh": _method("tanh"),
    "Elu": _functional("elu", alpha=("alpha", 1.0)), "HardSwish": _functional("hardswish"),
    "LeakyRelu": _functional("leaky_relu", negative_slope=("alpha", 0.01)), "Softplus": _functional("softplus"),
    "Clip": _clip, "Gelu": _gelu, "HardSigmoid": _hard_sigmoid, "LogSoftmax": _softmax, "Softmax": _softmax,
    "AveragePool": average_pool, "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool, "MaxPool": max_pool,
    "Resize": resize, "Cast": _cast, "Dropout": _same, "Identity": _same, "Expand": _expand, "Flatten": _flatten,
    "Gather": _gather, "Pad": _pad, "Reshape": _reshape, "Slice": _slice, "Split": _split, "Squeeze": _squeeze,
    "Transpose": _transpose, "Unsqueeze": _unsqueeze, "ReduceMax": _reduce("amax"), "ReduceMean": _reduce("mean"),
    "ReduceMin": _reduce("amin"), "ReduceSum": _reduce("sum")})
FUNCTIONS = frozenset({*_PAIRS, *_MANY, *_ONE})
"""Operators that there is a function for."""
