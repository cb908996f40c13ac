"""A layer as a linear map of patches: what it reads, its weights as a matrix, second moments of both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

CHUNK = 1 << 23
"""Values of patches that are held at once (32 MiB)."""
ROWS = 1 << 16
"""Patches from which on only every second place of an image counts along each axis: neighbours are alike."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Centred second moments of a layer's patches x (k values) and wanted responses y (o values), by group.

    A dense layer has one group (b = 1), a depthwise convolution one for each channel.
    """

    xx: torch.Tensor
    """(b, k, k)."""
    xy: torch.Tensor
    """(b, k, o)."""
    yy: torch.Tensor
    """(b, o): variances."""
    x: torch.Tensor
    """(b, k): means."""
    y: torch.Tensor
    """(b, o)."""


def moments(layer: Any, given: torch.Tensor, wanted: torch.Tensor, columns: Sequence[int] | None = None) -> Moments:
    """Measure what a layer reads against what it should answer.

    Args:
        layer: a convolution of any rank, or a linear layer.
        given: its input, (n, ...).
        wanted: an output of the layer's shape for that input.
        columns: values of a patch that count; all without it.
    """
    count = 0
    first: tuple[torch.Tensor, torch.Tensor] | None = None
    sums: list[torch.Tensor] = []
    for x, y in rows(layer, given, wanted):
        if columns is not None:
            x = x[:, :, columns]
        if first is None:  # centred on the first chunk's means, so that little is lost in the difference of squares
            first = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
        x, y = x - first[0], y - first[1]
        found = [part.double() for part in (x.transpose(1, 2) @ x, x.transpose(1, 2) @ y, (y * y).sum(1), x.sum(1),
                                            y.sum(1))]
        sums = found if not sums else [a + b for a, b in zip(sums, found, strict=True)]
        count += x.shape[1]
    if first is None:
        raise ValueError("there is no example to measure on")
    xx, xy, yy, x, y = (total / count for total in sums)
    return Moments(xx - x.unsqueeze(2) * x.unsqueeze(1), xy - x.unsqueeze(2) * y.unsqueeze(1),
                   (yy - y * y).clamp(min=0), x + first[0].squeeze(1), y + first[1].squeeze(1))


def matrix(layer: Any) -> torch.Tensor:
    """Return a layer's weights as (b, o, k), in double precision."""
    weight = layer.weight.detach()
    groups = getattr(layer, "groups", 1)
    result: torch.Tensor = weight.reshape(groups, weight.shape[0] // groups, -1).double()
    return result


def row_count(layer: Any, wanted: torch.Tensor) -> int:
    """Return how many patches `rows` yields."""
    return len(wanted) * _responses(layer, wanted[:1], _stride(layer, wanted)).shape[1]


def rows(layer: Any, given: torch.Tensor, wanted: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield patches (b, rows, k) and responses (b, rows, o) of a few examples at a time."""
    every = _stride(layer, wanted)
    step = max(1, CHUNK // max(1, _patches(layer, given[:1], every).numel()))
    for start in range(0, len(given), step):
        yield (_patches(layer, given[start:start + step], every),
               _responses(layer, wanted[start:start + step], every))


def _stride(layer: Any, wanted: torch.Tensor) -> int:
    """Return which places along each axis of an image count: every one, or every second."""
    places = 1 if hasattr(layer, "in_features") else wanted[0, 0].numel()
    return 2 if len(wanted) * places > ROWS else 1


def _patches(layer: Any, given: torch.Tensor, every: int) -> torch.Tensor:
    from torch.nn import functional

    if hasattr(layer, "in_features"):
        return given.reshape(1, -1, layer.in_features)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(given, _padding(layer), mode)
    rank, groups = len(layer.kernel_size), layer.groups
    strides = [stride * every for stride in layer.stride]
    sizes = [(padded.shape[2 + i] - layer.dilation[i] * (layer.kernel_size[i] - 1) - 1) // strides[i] + 1
             for i in range(rank)]
    steps = padded.stride()
    windows = padded.as_strided(
        (*padded.shape[:2], *sizes, *layer.kernel_size),
        (*steps[:2], *(steps[2 + i] * strides[i] for i in range(rank)),
         *(steps[2 + i] * layer.dilation[i] for i in range(rank))))
    split = windows.reshape(len(padded), groups, padded.shape[1] // groups, *windows.shape[2:])
    places, kernel = range(3, 3 + rank), range(3 + rank, 3 + 2 * rank)
    return split.permute(1, 0, *places, 2, *kernel).flatten(2 + rank).flatten(1, 1 + rank)


def _padding(layer: Any) -> list[int]:
    """Return what is added before and after every axis of an image, the last axis first."""
    if layer.padding == "valid":
        return [0] * (2 * len(layer.kernel_size))
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return [side for width in reversed(layer.padding) for side in (width, width)]


def _responses(layer: Any, wanted: torch.Tensor, every: int) -> torch.Tensor:
    import torch

    if hasattr(layer, "in_features"):
        return wanted.reshape(1, -1, wanted.shape[-1])
    for axis in range(2, wanted.ndim):
        wanted = wanted.index_select(axis, torch.arange(0, wanted.shape[axis], every))
    split = wanted.reshape(len(wanted), layer.groups, wanted.shape[1] // layer.groups, *wanted.shape[2:])
    return split.permute(1, 0, *range(3, split.ndim), 2).flatten(1, split.ndim - 2)
