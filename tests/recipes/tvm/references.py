"""What kernels must compute, in numpy: integers exactly, floats in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from recipes.compilers.tvm.kernels.window import Window
from recipes.ports import Array


def convolved(x: Array, weights: Array, window: Window, fill: float = 0) -> Array:
    """Convolve (height, width, channels) with (kernels, height, width, channels)."""
    top, left, bottom, right = window.padding
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
    found = np.zeros((window.rows, window.columns, len(weights)), padded.dtype)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            rows = slice(i * window.dilation[0], i * window.dilation[0] + (window.rows - 1) * window.stride[0] + 1,
                         window.stride[0])
            columns = slice(j * window.dilation[1],
                            j * window.dilation[1] + (window.columns - 1) * window.stride[1] + 1, window.stride[1])
            found += np.einsum("hwc,oc->hwo", padded[rows, columns], weights[:, i, j])
    return found


def convolved_in_halves(x: Array, weights: Array, bias: Array, window: Window) -> Array:
    """Convolve float16 as `convolved` does, on top of the bias: rounded after each product, channels innermost."""
    top, left, bottom, right = window.padding
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0))).astype(np.float64)
    found = np.broadcast_to(bias, (window.rows, window.columns, len(weights))).astype(np.float16)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            top, left = i * window.dilation[0], j * window.dilation[1]
            rows = slice(top, top + (window.rows - 1) * window.stride[0] + 1, window.stride[0])
            columns = slice(left, left + (window.columns - 1) * window.stride[1] + 1, window.stride[1])
            for channel in range(x.shape[2]):
                products = padded[rows, columns, channel, None] * weights[:, i, j, channel].astype(np.float64)
                found = (found.astype(np.float64) + products).astype(np.float16)
    return found


def spread(weights: Array) -> Array:
    """Write a depthwise convolution's weights (channels, height, width) as those of a whole one."""
    channels = len(weights)
    whole = np.zeros((channels, *weights.shape[1:], channels), weights.dtype)
    for c in range(channels):
        whole[c, :, :, c] = weights[c]
    return whole


def requantised(sums: Array, scale: Array, low: float, high: float, zero: int) -> Array:
    """Round sums to activations: float32 product, limits, half to even."""
    scaled = sums.astype(np.int32).astype(np.float32) * scale
    return np.asarray(np.rint(np.clip(scaled, np.float32(low), np.float32(high))).astype(np.int64) + zero)


def fma(one: Array, two: Array | np.float32, three: Array) -> Array:
    """Return one * two + three, rounded once."""
    wide: Any = np.longdouble
    return np.asarray((one.astype(wide) * np.asarray(two, wide) + three.astype(wide)).astype(np.float32))
