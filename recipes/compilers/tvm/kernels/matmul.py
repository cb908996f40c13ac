"""Products of matrices that are both computed, in float: nothing is packed, since both are read as they lie."""

from __future__ import annotations

from itertools import product
from typing import Any

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.compilers.tvm.kernels.parts import Shape, argument, kernel, local, span, viewed

ROWS = 4
VECTORS = 2


def matmul(name: str, batch: int, rows: int, depth: int, columns: int, arithmetic: Arithmetic,
           given: tuple[Shape, Shape], made: Shape) -> Any:
    """Return the kernel of `batch` products of matrices.

    Its arguments: float32 of the shapes `given`, seen as (batch, rows, depth) and (batch, depth, columns); the result
    of the shape `made`, seen as (batch, rows, columns). The last tile of rows or columns overlaps the one before it.
    """
    from tvm.tirx.script import builder as tir

    lanes = min(arithmetic.lanes, 1 << (columns.bit_length() - 1))
    vectors, tile = min(VECTORS, columns // lanes), min(ROWS, rows)
    size = lanes * vectors

    def body() -> None:
        first, second, found = (argument(*each, "float32") for each in zip("aby", (*given, made), strict=True))
        a, b = viewed(first, (batch, rows, depth), "float32"), viewed(second, (batch, depth, columns), "float32")
        y = viewed(found, (batch, rows, columns), "float32")
        blocks, strips = -(-columns // size), -(-rows // tile)
        with tir.serial(0, batch) as n, tir.serial(0, blocks) as block, tir.serial(0, strips) as strip:
            column = tir.min(block * size, columns - size)
            row = tir.min(strip * tile, rows - tile)
            sums = local(tile * size, "float32")
            for start in range(0, tile * size, lanes):
                tir.buffer_store(sums, _wide(tir.float32(0), lanes), [span(start, lanes)])
            with tir.serial(0, depth) as k:
                for vector, i in product(range(vectors), range(tile)):
                    place = [span((i * vectors + vector) * lanes, lanes)]
                    factor = b[n, k, span(column + vector * lanes, lanes)]
                    tir.buffer_store(sums, fused(_wide(a[n, row + i, k], lanes), factor, sums[place[0]], lanes), place)
            for vector, i in product(range(vectors), range(tile)):
                tir.buffer_store(y, sums[span((i * vectors + vector) * lanes, lanes)],
                                 [n, row + i, span(column + vector * lanes, lanes)])

    return kernel(name, body)


def fused(one: Any, two: Any, three: Any, lanes: int) -> Any:
    """Return one * two + three of float32 (lanes,), rounded once."""
    from tvm.tirx.script import builder as tir

    kind, short = (f"float32x{lanes}", f"v{lanes}f32") if lanes > 1 else ("float32", "f32")
    return tir.call_llvm_pure_intrin(kind, f"llvm.fma.{short}", one, two, three)


def _wide(value: Any, lanes: int) -> Any:
    from tvm.tirx.script import builder as tir

    return tir.broadcast(value, lanes) if lanes > 1 else value
