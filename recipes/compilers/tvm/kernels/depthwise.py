"""Depthwise convolutions, channels last: every channel has a window of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.compilers.tvm.kernels.parts import Shape, bordered, finish, kernel, local, operands, span
from recipes.compilers.tvm.kernels.window import Window
from recipes.ports import Array


def padded_channels(window: Window, arithmetic: Arithmetic) -> int:
    """Return the channels in whole vectors."""
    return math.ceil(window.channels / arithmetic.lanes) * arithmetic.lanes


def packed(weights: Array, arithmetic: Arithmetic) -> Array:
    """Put weights (channels, height, width) as the kernel reads them: (height, width, padded channels)."""
    channels = weights.shape[0]
    whole = np.zeros((*weights.shape[1:], math.ceil(channels / arithmetic.lanes) * arithmetic.lanes), weights.dtype)
    whole[:, :, :channels] = weights.transpose(1, 2, 0)
    return whole


def depthwise(name: str, window: Window, arithmetic: Arithmetic, pixels: int, given: Shape, made: Shape) -> Any:
    """Return the kernel of a depthwise convolution with one kernel for every channel.

    Its arguments are those of `convolution.convolution`, with weights as `packed` gives them, and (padded_channels,)
    for bias and scale.

    Args:
        name: of the kernel.
        window: as many kernels as channels.
        arithmetic: of the sums; products are added one by one, whatever its group.
        pixels: of one row of the output, summed up at a time.
        given: shape of the activations, (1, height, width, channels).
        made: shape of the result.
    """
    from tvm.tirx.script import builder as tir

    lanes, total = arithmetic.lanes, padded_channels(window, arithmetic)
    rows, columns = window.rows, window.columns
    strips = math.ceil(columns / pixels)
    size = (window.reach(rows, 0), window.reach(strips * pixels, 1), total)
    wide = f"{arithmetic.total}x{lanes}"

    def body() -> None:
        own = operands(window, arithmetic, (*window.kernel, total), total, given, made)
        source = bordered(window, arithmetic, size, own.x, own.points)
        with tir.serial(0, rows) as row, tir.serial(0, strips) as number, tir.serial(0, total // lanes) as block:
            sums = local(pixels * lanes, arithmetic.total)
            for pixel in range(pixels):
                tir.buffer_store(sums, own.bias[span(block * lanes, lanes)], [span(pixel * lanes, lanes)])
            for i in range(window.kernel[0]):
                for j in range(window.kernel[1]):
                    weights = tir.cast(own.w[i, j, span(block * lanes, lanes)], wide)
                    for pixel in range(pixels):
                        column = (number * pixels + pixel) * window.stride[1] + j * window.dilation[1]
                        place = [span(pixel * lanes, lanes)]
                        read = source[row * window.stride[0] + i * window.dilation[0], column,
                                      span(block * lanes, lanes)]
                        tir.buffer_store(sums, _added(sums[place[0]], tir.cast(read, wide), weights, arithmetic), place)
            for pixel in range(pixels):
                column, found = number * pixels + pixel, sums[span(pixel * lanes, lanes)]
                if columns % pixels == 0:
                    finish(own, found, (row, column), block * lanes, window, arithmetic, total)
                else:
                    with tir.If(column < columns), tir.Then():
                        finish(own, found, (row, column), block * lanes, window, arithmetic, total)

    return kernel(name, body)


def _added(total: Any, activation: Any, weight: Any, arithmetic: Arithmetic) -> Any:
    from tvm.tirx.script import builder as tir

    if arithmetic.is_float:
        return tir.call_llvm_pure_intrin(f"float32x{arithmetic.lanes}", f"llvm.fma.v{arithmetic.lanes}f32", activation,
                                       weight, total)
    return total + activation * weight
