"""Cut channels out of a network's layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from recipes.compress.groups import Axis, ChannelGroup

if TYPE_CHECKING:
    import torch


def narrow(module: torch.nn.Module, groups: Sequence[ChannelGroup], kept: Mapping[str, Collection[int]]) -> None:
    """Cut, in place, every layer of the named groups down to the channels that are kept.

    Args:
        module: the network that the groups were found in, at full width.
        groups: all groups.
        kept: group name -> channels that stay; the others of `groups` stay whole.
    """
    for (path, axis), stays in positions(module, groups, kept).items():
        _cut(module.get_submodule(path), axis, stays)


def positions(module: torch.nn.Module, groups: Sequence[ChannelGroup],
              kept: Mapping[str, Collection[int]]) -> dict[tuple[str, Axis], torch.Tensor]:
    """Return which positions stay along every axis that a narrowed group has a part of."""
    import torch

    masks: dict[tuple[str, Axis], torch.Tensor] = {}
    for group in groups:
        if group.name not in kept:
            continue
        stay = set(kept[group.name])
        for member in group.members:
            key = (member.module, member.axis)
            if key not in masks:
                masks[key] = torch.ones(_size(module.get_submodule(member.module), member.axis), dtype=torch.bool)
            gone = [p for p, channel in zip(member.positions, member.channels, strict=True) if channel not in stay]
            masks[key][gone] = False
    return {key: mask.nonzero().flatten() for key, mask in masks.items()}


def _size(layer: torch.nn.Module, axis: Axis) -> int:
    weight: torch.Tensor | None = getattr(layer, "weight", None)
    if weight is None:  # a normalisation without a scale
        return int(layer.num_features)  # type: ignore[arg-type]
    return int(weight.shape[1 if axis is Axis.IN else 0])


def _cut(layer: torch.nn.Module, axis: Axis, stays: torch.Tensor) -> None:
    """Keep the positions `stays` of one axis of a layer; its new tensors are contiguous."""
    import torch

    dimension = 1 if axis is Axis.IN else 0
    for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        if tensor.ndim <= dimension or (dimension == 1 and name != "weight"):
            continue
        cut = tensor.detach().index_select(dimension, stays).contiguous()
        setattr(layer, name, torch.nn.Parameter(cut) if isinstance(tensor, torch.nn.Parameter) else cut)
    count = len(stays)
    attributes = {Axis.OUT: ("out_channels", "out_features"), Axis.IN: ("in_channels", "in_features"),
                  Axis.BOTH: ("in_channels", "out_channels", "groups", "num_features", "num_parameters")}[axis]
    for attribute in attributes:
        if hasattr(layer, attribute):
            setattr(layer, attribute, count)
