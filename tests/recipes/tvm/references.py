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
