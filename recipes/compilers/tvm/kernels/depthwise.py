"""Depthwise convolutions, channels last: every channel has a window of its own."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.compilers.tvm.kernels.parts import (
    Shape,
    bordered,
    bytes_of,
    finish,
    kernel,
    local,
    operands,
    share_of,
    span,
    unpacked,
)
from recipes.compilers.tvm.kernels.window import Window
from recipes.ports import Array


def padded_channels(window: Window, arithmetic: Arithmetic) -> int:
    """Return the channels in whole vectors."""
    return math.ceil(window.channels / arithmetic.lanes) * arithmetic.lanes


def packed(weights: Array, arithmetic: Arithmetic, bits: int = 8) -> Array:
    """Put weights in the order in which the kernel reads them, zeros where there are none.

    Below 8 bits neighbouring places of the window share a byte, the first one in its lowest bits: so that nothing is
    lost where channels are few.

    Args:
        weights: (channels, height, width); integers fit `bits`.
        arithmetic: of the kernel.
        bits: of an integer weight.

    Returns:
        (height * width * bits / 8, padded channels).
    """
    channels, share = weights.shape[0], share_of(arithmetic, bits)
    places = weights.reshape(channels, -1).shape[1]
    whole = np.zeros((math.ceil(places / share) * share, math.ceil(channels / arithmetic.lanes) * arithmetic.lanes),
                     weights.dtype)
    whole[:places, :channels] = weights.reshape(channels, places).T
    if share == 1:
        return whole
    return bytes_of(whole.reshape(-1, share, whole.shape[1]).swapaxes(1, 2), bits)


def depthwise(name: str, window: Window, arithmetic: Arithmetic, pixels: int, given: Shape, made: Shape,
              bits: int = 8) -> Any:
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
        bits: of an integer weight.
    """
    from tvm.tirx.script import builder as tir

    lanes, total, share = arithmetic.lanes, padded_channels(window, arithmetic), share_of(arithmetic, bits)
    places = list(product(range(window.kernel[0]), range(window.kernel[1])))
    pixels = 1 if arithmetic.as_float32 else pixels  # twenty instructions for each product: LLVM would take a minute
    rows, columns = window.rows, window.columns
    strips = math.ceil(columns / pixels)
    size = (window.reach(rows, 0), window.reach(strips * pixels, 1), total)
    wide = f"{arithmetic.total}x{lanes}"

    def body() -> None:
        own = operands(window, arithmetic, (math.ceil(len(places) / share), total), total, given, made)
        source = bordered(window, arithmetic, size, own.x, own.points)
        with tir.serial(0, rows) as row, tir.serial(0, strips) as number, tir.serial(0, total // lanes) as block:
            channels = span(block * lanes, lanes)
            sums = local(pixels * lanes, arithmetic.total)
            begin = own.bias[channels] if share == 1 else tir.broadcast(tir.int32(0), lanes)
            for pixel in range(pixels):
                tir.buffer_store(sums, begin, [span(pixel * lanes, lanes)])
            for place, (i, j) in enumerate(places):
                held = own.w[place // share, channels]
                weights = tir.cast(held if share == 1 else unpacked(held, place % share, bits, lanes), wide)
                for pixel in range(pixels):
                    column = (number * pixels + pixel) * window.stride[1] + j * window.dilation[1]
                    kept = [span(pixel * lanes, lanes)]
                    read = source[row * window.stride[0] + i * window.dilation[0], column, channels]
                    tir.buffer_store(sums, _added(sums[kept[0]], tir.cast(read, wide), weights, arithmetic), kept)
            for pixel in range(pixels):
                column, found = number * pixels + pixel, sums[span(pixel * lanes, lanes)]
                if share > 1:
                    found = (found >> tir.broadcast(tir.int32(8 - bits), lanes)) + own.bias[channels]
                if columns % pixels == 0:
                    finish(own, found, (row, column), block * lanes, window, arithmetic, total)
                else:
                    with tir.If(column < columns), tir.Then():
                        finish(own, found, (row, column), block * lanes, window, arithmetic, total)

    return kernel(name, body)


def _added(total: Any, activation: Any, weight: Any, arithmetic: Arithmetic) -> Any:
    return arithmetic.fused(total, activation, weight) if arithmetic.is_float else total + activation * weight
