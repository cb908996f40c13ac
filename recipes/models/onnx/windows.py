"""What slides or samples: convolutions' windows, poolings, and the resizing of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from recipes.models.onnx.node import Place

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Window:
    """A window over the axes behind the channels."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    """Padding at the beginning of each axis."""
    after: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        return self.before == self.after

    @property
    def both_sides(self) -> tuple[int, ...]:
        """The padding as torch.nn.functional.pad takes it: of the last axis first."""
        return tuple(n for pair in reversed(list(zip(self.before, self.after, strict=True))) for n in pair)


def window_of(place: Place, kernel: Sequence[int]) -> Window:
    """Return a node's window, with `auto_pad` worked out for the size of its input."""
    count = len(kernel)
    stride, dilation = (tuple(place.attribute(name, [1] * count)) for name in ("strides", "dilations"))
    pads, automatic = list(place.attribute("pads", [0] * 2 * count)), place.attribute("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        sizes = zip(place.shape()[2:], kernel, stride, dilation, strict=True)
        total = [max(0, ((size + s - 1) // s - 1) * s + (k - 1) * d + 1 - size) for size, k, s, d in sizes]
        less, more = [n // 2 for n in total], [n - n // 2 for n in total]
        pads = [*less, *more] if automatic == "SAME_UPPER" else [*more, *less]
    return Window(tuple(kernel), stride, dilation, tuple(pads[:count]), tuple(pads[count:]))


def _pool_window(place: Place) -> Window:
    window = window_of(place, place.attribute("kernel_shape", []))
    if not window.symmetric or any(2 * p > k for p, k in zip(window.before, window.kernel, strict=True)):
        raise place.refusal(f"pads {window.before} before and {window.after} after a window of {window.kernel}; "
                            "expected the same on both sides, and at most half of the window")
    if len(window.kernel) not in (1, 2, 3):
        raise place.refusal(f"pools over {len(window.kernel)} axes; expected 1 to 3")
    return window


def max_pool(place: Place) -> Callable[..., torch.Tensor]:
    from torch.nn import functional

    if len(place.node.outputs) > 1:
        raise place.refusal("also returns where the maxima are; expected one output")
    window = _pool_window(place)
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(window.kernel) - 1]
    up = bool(place.attribute("ceil_mode", 0))
    return lambda x: pool(x, window.kernel, window.stride, window.before, window.dilation, up)


def average_pool(place: Place) -> Callable[..., torch.Tensor]:
    from torch.nn import functional

    window = _pool_window(place)
    if any(d != 1 for d in window.dilation):
        raise place.refusal(f"has dilations {window.dilation}; expected none")
    pool: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(window.kernel) - 1]
    up, border = bool(place.attribute("ceil_mode", 0)), bool(place.attribute("count_include_pad", 0))
    return lambda x: pool(x, window.kernel, window.stride, window.before, up, border)


def global_pool(place: Place) -> Callable[..., torch.Tensor]:
    from torch.nn import functional

    rank, most = len(place.shape()), place.node.op == "GlobalMaxPool"
    pools: Mapping[int, Any] = MappingProxyType({
        3: functional.adaptive_max_pool1d if most else functional.adaptive_avg_pool1d,
        4: functional.adaptive_max_pool2d if most else functional.adaptive_avg_pool2d,
        5: functional.adaptive_max_pool3d if most else functional.adaptive_avg_pool3d})
    if rank not in pools:
        raise place.refusal(f"works on {rank} axes; expected 3, 4, 5")
    pool, one = pools[rank], (1,) * (rank - 2)
    return lambda x: pool(x, one)


def resize(place: Place) -> Callable[..., torch.Tensor]:
    """Resize images as PyTorch does: nearest by whole factors, or linear."""
    from torch.nn import functional

    shape = place.shape()
    sizes = place.integers(3, "sizes")
    if sizes is None:
        sizes = tuple(int(n * by) for n, by in zip(shape, place.constant(2, "scales").reshape(-1), strict=True))
    mode, where = place.attribute("mode", "nearest"), place.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = place.attribute("nearest_mode", "round_prefer_floor")
    odd = [n for n in ("antialias", "axes", "keep_aspect_ratio_policy", "exclude_outside")
           if place.attribute(n, 0) not in (0, "stretch")]
    whole = all(to % n == 0 for n, to in zip(shape, sizes, strict=True))
    floors = (where, rounding) == ("asymmetric", "floor") or \
        (whole and (where, rounding) in (("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil")))
    linear = mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners")
    if odd or len(shape) not in (3, 4, 5) or sizes[:2] != shape[:2] or not (linear or (mode == "nearest" and floors)):
        raise place.refusal(f"resizes {shape} to {sizes} by {mode}, {where}, {', '.join([rounding, *odd])}; expected "
                            "what PyTorch's interpolate does: nearest by whole factors, or linear, over the last axes")
    name = ("linear", "bilinear", "trilinear")[len(shape) - 3] if linear else "nearest"
    aligned = where == "align_corners" if linear else None
    return lambda x: functional.interpolate(x, size=list(sizes[2:]), mode=name, align_corners=aligned)
