"""Fold batch normalisations into the convolutions and linear layers before them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.compress.watch import Executed, execution
from recipes.models.network import Network, call, deviation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

SAME = 1e-4
"""Largest difference, as a share of the output's range, between two networks that should compute the same."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A copy of a network, and what its normalisations said of the channels."""

    network: Network
    scales: Mapping[str, torch.Tensor]
    """Layer -> |scale| of each of its channels, of the normalisation that was behind it."""


def fold(network: Network, inputs: Mapping[str, torch.Tensor], positional: bool) -> Folded:
    """Return a copy without the batch normalisations that directly follow a layer.

    Where the copy does not compute the same (a layer's output is read elsewhere too), nothing is folded:
    pruning works all the same, only slower.

    Args:
        network: in evaluation mode.
        inputs: a few examples.
        positional: pass the inputs by position and not by name.
    """
    from torch import nn

    whole = Network(copy.deepcopy(network.module), network.arguments, network.shapes)
    scales = {path: _scale(whole.module.get_submodule(norm)) for path, norm in _pairs(whole, inputs, positional)}
    folded = Network(copy.deepcopy(network.module), network.arguments, network.shapes)
    for path, norm in _pairs(folded, inputs, positional):
        _merge(folded.module.get_submodule(path), folded.module.get_submodule(norm))
        parent, _, name = norm.rpartition(".")
        setattr(folded.module.get_submodule(parent), name, nn.Identity())
    if scales and not _same(whole, folded, inputs, positional):
        return Folded(whole, scales)
    return Folded(folded, scales)


def _pairs(network: Network, inputs: Mapping[str, torch.Tensor], positional: bool) -> list[tuple[str, str]]:
    """Find (layer, normalisation of its output), both executed once."""
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    calls = execution(network, inputs, positional)
    writers = {id(found.output): found for found in calls if isinstance(found.module, (nn.Linear, _ConvNd))
               and not isinstance(found.module, _ConvTransposeNd) and isinstance(found.module.weight, nn.Parameter)}
    pairs = []
    for found in calls:
        writer = writers.get(id(found.input))
        foldable = isinstance(found.module, _BatchNorm) and found.module.running_var is not None
        if writer is not None and foldable and once(calls, writer) and once(calls, found):
            pairs.append((writer.path, found.path))
    return pairs


def once(calls: list[Executed], found: Executed) -> bool:
    """Tell whether a module is executed only once."""
    return sum(other.module is found.module for other in calls) == 1


def _scale(norm: Any) -> torch.Tensor:
    import torch

    scale: torch.Tensor = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach().abs()
    return scale


def _merge(layer: Any, norm: Any) -> None:
    """Give a layer the weight and bias with which it computes what the normalisation made of its output."""
    from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

    fuse = fuse_linear_bn_weights if hasattr(layer, "in_features") else fuse_conv_bn_weights
    layer.weight, layer.bias = fuse(layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps,
                                    norm.weight, norm.bias)


def _same(one: Network, two: Network, inputs: Mapping[str, torch.Tensor], positional: bool) -> bool:
    pairs = zip(call(one, inputs, positional), call(two, inputs, positional), strict=True)
    return all(deviation(b.numpy(), a.numpy(), a.numpy()) <= SAME for a, b in pairs)
