"""ONNX operators with weights as PyTorch's layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.models.onnx.node import TRAINING, Place
from recipes.models.onnx.windows import Window, window_of

if TYPE_CHECKING:
    import torch

    from recipes.ports import Array


def _parameter(array: Array) -> torch.nn.Parameter:
    import torch

    return torch.nn.Parameter(torch.from_numpy(np.array(array, np.float32)), requires_grad=False)


def _fill(layer: torch.nn.Module, weight: Array, bias: Array | None) -> torch.nn.Module:
    layer.weight = _parameter(weight)
    if bias is not None:
        layer.bias = _parameter(bias)
    return layer


def _bias(place: Place, index: int) -> Array | None:
    return place.constant(index, "bias") if place.has(index) else None


def _convolution(place: Place) -> torch.nn.Module:
    from torch import nn

    weight, bias = place.constant(1, "weights"), _bias(place, 2)
    window, groups = window_of(place, weight.shape[2:]), int(place.attribute("group", 1))
    kind = _of_rank(place, {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d})
    layer: torch.nn.Module = kind(weight.shape[1] * groups, weight.shape[0], window.kernel, window.stride,
                 window.before if window.symmetric else 0, window.dilation, groups, bias is not None)
    _fill(layer, weight, bias)
    if window.symmetric:
        return layer
    pad = _of_rank(place, {3: nn.ConstantPad1d, 4: nn.ConstantPad2d, 5: nn.ConstantPad3d})(window.both_sides, 0.0)
    return nn.Sequential(OrderedDict(pad=pad, conv=layer))


def _transposed(place: Place) -> torch.nn.Module:
    from torch import nn

    weight, bias = place.constant(1, "weights"), _bias(place, 2)
    if place.attribute("output_shape", None) is not None or place.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise place.refusal("gives its padding by output_shape or auto_pad; expected the attribute pads")
    window, groups = _symmetric(place, window_of(place, weight.shape[2:])), int(place.attribute("group", 1))
    kind = _of_rank(place, {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d})
    more = tuple(place.attribute("output_padding", [0] * len(window.kernel)))
    return _fill(kind(weight.shape[0], weight.shape[1] * groups, window.kernel, window.stride, window.before, more,
                      groups, bias is not None, window.dilation), weight, bias)


def _symmetric(place: Place, window: Window) -> Window:
    if not window.symmetric:
        raise place.refusal(f"pads {window.before} before and {window.after} after; expected the same on both sides")
    return window


def _of_rank(place: Place, kinds: Mapping[int, Any]) -> Any:
    rank = len(place.shape())
    if rank not in kinds:
        raise place.refusal(f"works on {rank} axes; expected {', '.join(map(str, kinds))}")
    return kinds[rank]


def _gemm(place: Place) -> torch.nn.Module:
    weight = place.constant(1, "weights")
    if place.attribute("transA", 0):
        raise place.refusal("transposes its first input, the batch; expected transA=0")
    if not place.attribute("transB", 0):
        weight = weight.T
    bias = _bias(place, 2)
    if bias is not None:
        if bias.size not in (1, len(weight)) or (bias.ndim and bias.shape[-1] != bias.size):
            raise place.refusal(f"adds a constant of the shape {bias.shape}; expected ({len(weight)},)")
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),)) * np.float32(place.attribute("beta", 1.0))
    return _linear(weight * np.float32(place.attribute("alpha", 1.0)), bias)


def _product(place: Place) -> torch.nn.Module:
    return _linear(place.constant(1, "weights").T, _bias(place, 2))


def _linear(weight: Array, bias: Array | None) -> torch.nn.Module:
    from torch import nn

    return _fill(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def _batch_norm(place: Place) -> torch.nn.Module:
    from torch import nn

    if place.attribute("training_mode", 0):
        raise place.refusal("is in training mode", TRAINING)
    scale, shift, mean, variance = (place.constant(index, "statistics") for index in range(1, 5))
    kind = _of_rank(place, {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d})
    layer = _fill(kind(len(scale), eps=float(place.attribute("epsilon", 1e-5))), scale, shift)
    layer.running_mean, layer.running_var = _parameter(mean).data, _parameter(variance).data
    return layer


def _layer_norm(place: Place) -> torch.nn.Module:
    from torch import nn

    axis, shape = int(place.attribute("axis", -1)), place.shape()
    over, weight, bias = shape[axis:], place.constant(1, "scale"), _bias(place, 2)
    if weight.shape != over or (bias is not None and bias.shape != over):
        raise place.refusal(f"scales by the shape {weight.shape}; expected {over}")
    return _fill(nn.LayerNorm(over, float(place.attribute("epsilon", 1e-5)), bias=bias is not None), weight, bias)


def _prelu(place: Place) -> torch.nn.Module:
    from torch import nn

    slope = place.constant(1, "slope")
    if slope.size not in (1, place.shape()[1]) or slope.size != max(slope.shape, default=1) \
            or (slope.size > 1 and slope.ndim != len(place.shape()) - 1):
        raise place.refusal(f"has slopes of the shape {slope.shape}; expected one number, or one for every channel")
    layer = nn.PReLU(slope.size)
    layer.weight = _parameter(slope.reshape(-1))
    return layer


def _embedding(place: Place) -> torch.nn.Module:
    from torch import nn

    table = place.constant(0, "table")
    return _fill(nn.Embedding(*table.shape), table, None)


LAYERS: Mapping[str, Callable[[Place], Any]] = MappingProxyType({
    "Conv": _convolution, "ConvTranspose": _transposed, "Gemm": _gemm, "MatMul": _product,
    "BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm, "PRelu": _prelu, "Gather": _embedding})
"""Operator -> what makes its layer."""
TELLING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"})
"""Operators whose weights tell which layer it is."""


def is_layer(place: Place) -> bool:
    """Tell whether a node is a layer of its own; products and look-ups are where they have constant weights."""
    op = place.node.op
    if op == "MatMul":
        return not place.is_constant(0) and place.is_constant(1) and len(place.shape(1)) == 2
    if op == "Gather":
        return place.is_constant(0) and len(place.shape()) == 2 and not place.attribute("axis", 0)
    return op in LAYERS


def input_of(place: Place) -> str:
    """Return the value that a layer reads while the network runs."""
    return place.node.inputs[1 if place.node.op == "Gather" else 0]


def weights_of(place: Place) -> tuple[str, ...]:
    """Return the names of a layer's constants, its weights first."""
    return tuple(name for name in place.node.inputs if name in place.constants)
