"""Convolutions and linear layers, channels last: one template for float and integer arithmetic.

Every output tile (some pixels, some vectors of channels) is summed up in registers, over the window and the channels
that it reads: Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication,
doi:10.1145/1356052.1356053, without packing of the activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.compilers.tvm.kernels.parts import Shape, bordered, finish, kernel, local, operands, span, unpacked
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


def default_tile(window: Window, arithmetic: Arithmetic, bits: int = 8, registers: int = 28) -> Tile:
    """Return a tile that fills the registers and wastes few pixels."""
    vectors = max(min(2, math.ceil(window.kernels / arithmetic.lanes)), share_of(arithmetic, bits))
    most = max(1, min(registers // vectors, window.columns))
    pixels = min(range(1, most + 1), key=lambda n: (math.ceil(window.columns / n) * (n + 2), -n))
    return Tile(pixels, vectors)


def share_of(arithmetic: Arithmetic, bits: int) -> int:
    """Return how many vectors of weights share the bytes of one."""
    return 1 if arithmetic.is_float or arithmetic.is_signs else 8 // bits


def padded_kernels(window: Window, arithmetic: Arithmetic, tile: Tile) -> int:
    """Return the output channels in whole tiles."""
    size = arithmetic.lanes * tile.vectors
    return math.ceil(window.kernels / size) * size


def packed(weights: Array, arithmetic: Arithmetic, tile: Tile, bits: int = 8) -> Array:
    """Put weights in the order in which the kernel reads them, zeros where there are none.

    Below 8 bits several share a byte: those of the first vector in the lowest bits, of the next one above them. Signs
    are in words, see `signs.words`.

    Args:
        weights: (kernels, height, width, channels); integers fit `bits`.
        arithmetic: of the kernel.
        tile: of the kernel; below 8 bits a multiple of 8 / `bits` vectors.
        bits: of an integer weight.

    Returns:
        (blocks, height, width, channels / group, vectors * width * bits / 8), of signs (..., vectors * lanes).
    """
    if arithmetic.is_signs:
        weights = words(weights)
    kernels, height, width, channels = weights.shape
    size, group = arithmetic.lanes * tile.vectors, 1 if arithmetic.is_signs else arithmetic.group
    blocks, groups = math.ceil(kernels / size), math.ceil(channels / group)
    whole = np.zeros((blocks * size, height, width, groups * group), weights.dtype)
    whole[:kernels, :, :, :channels] = weights
    split = whole.reshape(blocks, size, height, width, groups, group).transpose(0, 2, 3, 4, 1, 5)
    share = share_of(arithmetic, bits)
    if share == 1:
        return np.ascontiguousarray(split.reshape(blocks, height, width, groups, size * group))
    lanes = split.reshape(blocks, height, width, groups, tile.vectors // share, share, arithmetic.lanes * group)
    found = np.zeros(lanes[..., 0, :].shape, np.uint8)
    for place in range(share):
        found |= (lanes[..., place, :].astype(np.uint8) & (2 ** bits - 1)) << (place * bits)
    return np.ascontiguousarray(found.reshape(blocks, height, width, groups, -1).view(np.int8))


def convolution(name: str, window: Window, arithmetic: Arithmetic, tile: Tile, given: Shape, made: Shape,
                bits: int = 8) -> Any:
    """Return the kernel of a convolution.

    Its arguments: activations of the shape `given`; weights of so many `bits` as `packed` gives them; bias of the sums'
    type (padded_kernels,); scale float32 (padded_kernels,), integer arithmetic only; limits float32 (2,), see
    `parts.requantised`, of float arithmetic the least and greatest result; points int32 (2,): the activation that
    stands for zero, and the zero point of the result, integer arithmetic only; the result, of the shape `made`.

    Of signs the scale multiplies how many products are negative, the bias is float32 and added then; points int32 (3,),
    see `signs.signed`.
    """
    from tvm.tirx.script import builder as tir

    lanes, group, vectors = arithmetic.lanes, arithmetic.group, tile.vectors
    size, groups = lanes * vectors, math.ceil(window.channels / group)
    rows, columns = window.rows, window.columns
    blocks, strips = math.ceil(window.kernels / size), math.ceil(columns / tile.pixels)
    total = blocks * size
    share, width = share_of(arithmetic, bits), arithmetic.width
    per = 1 if arithmetic.is_signs else group
    read = (window.reach(rows, 0), window.reach(strips * tile.pixels, 1), groups * per)

    def body() -> None:
        shape = (blocks, *window.kernel, groups, vectors * width // share)
        own = operands(window, arithmetic, shape, total, given, made)
        source = (signed if arithmetic.is_signs else bordered)(window, arithmetic, read, own.x, own.points)
        none = tir.broadcast(tir.int32(0), lanes)

        def strip(block: Any, row: Any, number: Any) -> None:
            sums = local(tile.pixels * size, arithmetic.total)
            for pixel in range(tile.pixels):
                for vector in range(vectors):
                    begin = none if arithmetic.is_signs else own.bias[span(block * size + vector * lanes, lanes)]
                    tir.buffer_store(sums, begin, [span(pixel * size + vector * lanes, lanes)])
            with tir.serial(0, window.kernel[0]) as i, tir.serial(0, window.kernel[1]) as j, tir.serial(0, groups) as c:
                for vector in range(vectors):
                    held = own.w[block, i, j, c, span(vector // share * width, width)]
                    weights = unpacked(held, vector % share, bits, width) if share > 1 else held
                    for pixel in range(tile.pixels):
                        place = [span(pixel * size + vector * lanes, lanes)]
                        column = (number * tile.pixels + pixel) * window.stride[1] + j * window.dilation[1]
                        read_ = source[row * window.stride[0] + i * window.dilation[0], column,
                                       span(c * per, per)]
                        factor = tir.reinterpret("int32", read_) if group == 4 else read_
                        tir.buffer_store(sums, arithmetic.dot(sums[place[0]], factor, weights), place)
            for pixel in range(tile.pixels):
                column = number * tile.pixels + pixel
                if columns % tile.pixels == 0:
                    written(sums, pixel, block, row, column)
                else:
                    with tir.If(column < columns), tir.Then():
                        written(sums, pixel, block, row, column)

        def written(sums: Any, pixel: int, block: Any, row: Any, column: Any) -> None:
            for vector in range(vectors):
                finish(own, sums[span(pixel * size + vector * lanes, lanes)], (row, column),
                       block * size + vector * lanes, window, arithmetic, total)

        if tile.weights_stay:
            with tir.serial(0, blocks) as block, tir.serial(0, rows) as row, tir.serial(0, strips) as number:
                strip(block, row, number)
        else:
            with tir.serial(0, rows) as row, tir.serial(0, strips) as number, tir.serial(0, blocks) as block:
                strip(block, row, number)

    return kernel(name, body)
