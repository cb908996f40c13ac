"""Convolutions and linear layers, channels last: one template for float and integer arithmetic.

Every output tile (some pixels, some vectors of channels) is summed up in registers, over the window and the channels
that it reads: Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication,
doi:10.1145/1356052.1356053, without packing of the activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
from recipes.compilers.tvm.kernels.signs import signed, words
from recipes.compilers.tvm.kernels.window import Window
from recipes.ports import Array


@dataclass(frozen=True, slots=True)
class Tile:
    """What is summed up in registers at a time."""

    pixels: int
    """Of one row of the output."""
    vectors: int
    """Of output channels."""
    weights_stay: bool = True
    """All pixels with some channels' weights, then the next channels; else all channels of some pixels."""


def default_tile(window: Window, arithmetic: Arithmetic) -> Tile:
    """Return a tile that fills the registers and wastes few pixels."""
    vectors = min(max(2, 8 // window.columns), math.ceil(window.kernels / arithmetic.lanes))
    most = max(1, min(arithmetic.registers // vectors, window.columns))
    pixels = min(range(1, most + 1), key=lambda n: (math.ceil(window.columns / n) * (n + 2), -n))
    return Tile(pixels, vectors)


def padded_kernels(window: Window, arithmetic: Arithmetic, tile: Tile) -> int:
    """Return the output channels in whole tiles."""
    size = arithmetic.lanes * tile.vectors
    return math.ceil(window.kernels / size) * size


def packed(weights: Array, arithmetic: Arithmetic, tile: Tile, bits: int = 8) -> Array:
    """Put weights in the order in which the kernel reads them, zeros where there are none.

    Below 8 bits several share a byte: those of the first group in the lowest bits, of the next one above them. Signs
    are in words, see `signs.words`.

    Args:
        weights: (kernels, height, width, channels); integers fit `bits`.
        arithmetic: of the kernel.
        tile: of the kernel.
        bits: of an integer weight.

    Returns:
        (blocks, height, width, channels / group * bits / 8, vectors * width).
    """
    if arithmetic.is_signs:
        weights = words(weights)
    kernels, height, width, channels = weights.shape
    size, group = arithmetic.lanes * tile.vectors, 1 if arithmetic.is_signs else arithmetic.group
    share = share_of(arithmetic, bits)
    blocks, groups = math.ceil(kernels / size), math.ceil(channels / group / share) * share
    whole = np.zeros((blocks * size, height, width, groups * group), weights.dtype)
    whole[:kernels, :, :, :channels] = weights
    split = whole.reshape(blocks, size, height, width, groups, group).transpose(0, 2, 3, 4, 1, 5)
    split = split.reshape(blocks, height, width, groups // share, share, size * group)
    if share == 1:
        return np.ascontiguousarray(split[..., 0, :])
    return bytes_of(split.swapaxes(-1, -2), bits)


def convolution(name: str, window: Window, arithmetic: Arithmetic, tile: Tile, given: Shape, made: Shape,
                bits: int = 8) -> Any:
    """Return the kernel of a convolution.

    Its arguments: activations of the shape `given`; constants as `parts.joined` makes them; the result, of the shape
    `made`. The constants: bias of the sums' type (padded_kernels,); scale float32 (padded_kernels,), integer arithmetic
    only; weights of so many `bits` as `packed` gives them; limits float32 (2,), see `parts.requantised`, of floats the
    least and greatest result in their type; points int32 (2,): the activation that stands for zero, and the zero point
    of the result, integer arithmetic only.

    Of signs the scale multiplies how many products are negative, the bias is float32 and added then; points int32 (3,),
    see `signs.signed`.
    """
    from tvm.tirx.script import builder as tir

    lanes, group, vectors, width = arithmetic.lanes, arithmetic.group, tile.vectors, arithmetic.width
    size, share = lanes * vectors, share_of(arithmetic, bits)
    groups = math.ceil(window.channels / group / share)
    together = next(count for count in (8, 4, 2, 1)
                    if count <= arithmetic.factors and groups % math.ceil(count / share) == 0)
    steps = math.ceil(together / share)
    rows, columns = window.rows, window.columns
    blocks, strips = math.ceil(window.kernels / size), math.ceil(columns / tile.pixels)
    total = blocks * size
    per = 1 if arithmetic.is_signs else group
    read = (window.reach(rows, 0), window.reach(strips * tile.pixels, 1), groups * share * per)

    def body() -> None:
        shape = (blocks, *window.kernel, groups, vectors * width)
        own = operands(window, arithmetic, shape, total, given, made)
        source = (signed if arithmetic.is_signs else bordered)(window, arithmetic, read, own.x, own.points)
        later = share > 1 or arithmetic.is_signs
        none = tir.broadcast(tir.int32(0), lanes)

        def strip(block: Any, row: Any, number: Any) -> None:
            sums = local(tile.pixels * size, arithmetic.total)
            for pixel in range(tile.pixels):
                for vector in range(vectors):
                    begin = none if later else own.bias[span(block * size + vector * lanes, lanes)]
                    tir.buffer_store(sums, begin, [span(pixel * size + vector * lanes, lanes)])
            with tir.serial(0, window.kernel[0]) as i, tir.serial(0, window.kernel[1]) as j, \
                    tir.serial(0, groups // steps) as c:
                for step, part, vector in product(range(steps), range(share), range(vectors)):
                    held = own.w[block, i, j, c * steps + step, span(vector * width, width)]
                    weights = unpacked(held, part, bits, width) if share > 1 else held
                    for pixel in range(tile.pixels):
                        place = [span(pixel * size + vector * lanes, lanes)]
                        column = (number * tile.pixels + pixel) * window.stride[1] + j * window.dilation[1]
                        at = (row * window.stride[0] + i * window.dilation[0], column)
                        factor = factor_of(source, at, c * steps * share, step * share + part)
                        tir.buffer_store(sums, arithmetic.dot(sums[place[0]], factor, weights), place)
            for pixel in range(tile.pixels):
                column = number * tile.pixels + pixel
                if columns % tile.pixels == 0:
                    written(sums, pixel, block, row, column)
                else:
                    with tir.If(column < columns), tir.Then():
                        written(sums, pixel, block, row, column)

        def factor_of(source: Any, at: tuple[Any, Any], first: Any, number: int) -> Any:
            """Return one of the factors that follow the first: read alone, or a lane of a load of several."""
            if together == 1:
                read_ = source[*at, span((first + number) * per, per)]
                return tir.reinterpret("int32", read_) if group == 4 else read_
            start, lane = number // together * together, number % together
            read_ = source[*at, span((first + start) * per, together * per)]
            whole = tir.reinterpret(f"int32x{together}", read_) if group == 4 else read_
            return tir.Shuffle([whole], [tir.int32(lane)])

        def written(sums: Any, pixel: int, block: Any, row: Any, column: Any) -> None:
            for vector in range(vectors):
                start, found = block * size + vector * lanes, sums[span(pixel * size + vector * lanes, lanes)]
                if share > 1:
                    found = (found >> tir.broadcast(tir.int32(8 - bits), lanes)) + own.bias[span(start, lanes)]
                finish(own, found, (row, column), start, window, arithmetic, total)

        if tile.weights_stay:
            with tir.serial(0, blocks) as block, tir.serial(0, rows) as row, tir.serial(0, strips) as number:
                strip(block, row, number)
        else:
            with tir.serial(0, rows) as row, tir.serial(0, strips) as number, tir.serial(0, blocks) as block:
                strip(block, row, number)

    return kernel(name, body)
