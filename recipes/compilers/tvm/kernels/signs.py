"""One bit: signs of weights and activations in words, whose products are counted (popcount).

Rastegari et al. 2016, XNOR-Net, arXiv 1603.05279, equations 6 and 11.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from recipes.compilers.tvm.kernels.isa import SIGNS, Arithmetic
from recipes.compilers.tvm.kernels.parts import Shape, span
from recipes.compilers.tvm.kernels.window import Window
from recipes.ports import Array

WORD = 32
_GATHER = 0x0102040810204080
"""Times eight bytes of 0 and 1 it has the eight bits in its highest byte, the first one lowest."""


def words(signs: Array) -> Array:
    """Put signs (..., channels) into words, uint32 (..., channels / 32): the first channel in the lowest bit."""
    padded = np.zeros((*signs.shape[:-1], math.ceil(signs.shape[-1] / WORD) * WORD), np.uint8)
    padded[..., :signs.shape[-1]] = signs > 0
    return np.packbits(padded, axis=-1, bitorder="little").view("<u4").astype(np.uint32)


def signed(window: Window, arithmetic: Arithmetic, size: Shape, x: Any, points: Any) -> Any:
    """Return the signs of the input in words, with its border.

    Args:
        window: of the operator.
        arithmetic: of signs.
        size: rows, columns and words of what is returned.
        x: activations, (height, width, channels).
        points: int32 (3,): the least activation whose sign is +1, the zero point of the result, the activation that
            stands for zero, which the border has.
    """
    from tvm.tirx.script import builder as tir

    found = tir.alloc_buffer(size, SIGNS, layout=None)
    top, left = window.padding[:2]
    rows, columns = min(window.height, size[0] - top), min(window.width, size[1] - left)
    if window.padding != (0, 0, 0, 0) or rows < size[0] or columns < size[1]:
        with tir.serial(0, size[0]) as i, tir.serial(0, size[1]) as j:
            for word in range(size[2]):
                full = tir.uint32((1 << min(WORD, window.channels - word * WORD)) - 1)
                tir.buffer_store(found, tir.Select(points[2] >= points[0], full, tir.uint32(0)), [i, j, word])
    whole = window.channels // WORD
    if whole:
        with tir.serial(0, rows) as i, tir.serial(0, columns) as j, tir.serial(0, whole) as word:
            above = x[i, j, span(word * WORD, WORD)] >= tir.broadcast(tir.cast(points[0], arithmetic.activation), WORD)
            ones = tir.Select(above, tir.broadcast(tir.uint8(1), WORD), tir.broadcast(tir.uint8(0), WORD))
            bits = tir.reinterpret("uint64x4", ones) * tir.broadcast(tir.uint64(_GATHER), 4)
            byte = tir.cast(bits >> tir.broadcast(tir.uint64(56), 4), "uint8x4")
            tir.buffer_store(found, tir.reinterpret(SIGNS, byte), [i + top, j + left, word])
    if whole < size[2]:
        with tir.serial(0, rows) as i, tir.serial(0, columns) as j:
            value = tir.uint32(0)
            for channel in range(whole * WORD, window.channels):
                one = tir.cast(tir.cast(x[i, j, channel], "int32") >= points[0], SIGNS)
                value = value | (one << tir.uint32(channel % WORD))
            tir.buffer_store(found, value, [i + top, j + left, whole])
    return found
