"""What several kernels are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.compilers.tvm.kernels.window import Window
from recipes.ports import Array

Shape = tuple[int, ...]


def kernel(name: str, body: Callable[[], None]) -> Any:
    """Return a PrimFunc that TVM neither fuses nor takes apart."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as tir

    with IRBuilder() as found, tir.prim_func(s_tir=True):
        tir.func_name(name)
        tir.func_attr({"global_symbol": name, "tirx.noalias": True, "op_pattern": OPAQUE})
        body()
    return found.get()


OPAQUE = 8
"""Of TVM's kinds of operators: relax.transform.FuseOps leaves it alone."""


def argument(name: str, shape: Shape, dtype: str) -> Any:
    """Declare an argument; all of them come before anything else."""
    from tvm.tirx.script import builder as tir

    return tir.arg(name, tir.buffer(shape, dtype, layout=None))


def viewed(buffer: Any, shape: Shape, dtype: str) -> Any:
    """Return the same memory in another shape."""
    from tvm.tirx.script import builder as tir

    return tir.decl_buffer(shape, dtype, data=buffer.data, layout=None)


def joined(*arrays: Array) -> Array:
    """Put the constants of a call side by side, as one argument: uint8 (n,)."""
    return np.concatenate([np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays])


def size_of(*parts: tuple[Shape, str]) -> int:
    """Return the bytes of arrays of these shapes and types."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in parts)


def apart(constants: Any, *parts: tuple[Shape, str]) -> list[Any]:
    """Return the arrays of an argument that `joined` made, given their shapes and types in order."""
    from tvm.tirx.script import builder as tir

    found = []
    for number, (shape, dtype) in enumerate(parts):
        start = size_of(*parts[:number]) // np.dtype(dtype).itemsize
        found.append(tir.decl_buffer(shape, dtype, data=constants.data, elem_offset=start, layout=None))
    return found


def local(size: int, dtype: str) -> Any:
    """Return values that live in registers."""
    from tvm.tirx.script import builder as tir

    return tir.alloc_buffer((size,), dtype, scope="local", layout=None)


def span(start: Any, count: int) -> Any:
    """Return so many neighbouring indices."""
    from tvm.tirx.script import builder as tir

    return start if count == 1 else tir.ramp(start, 1, count)


def share_of(arithmetic: Arithmetic, bits: int) -> int:
    """Return how many weights share a byte."""
    return 1 if arithmetic.is_float or arithmetic.is_signs else 8 // bits


def bytes_of(weights: Array, bits: int) -> Array:
    """Put the small integers of the last axis into one byte, int8, the first one in its lowest bits."""
    found = np.zeros(weights.shape[:-1], np.uint8)
    for place in range(weights.shape[-1]):
        found |= (weights[..., place].astype(np.uint8) & (2 ** bits - 1)) << (place * bits)
    return found.view(np.int8)


def unpacked(held: Any, place: int, bits: int, count: int) -> Any:
    """Return small signed integers of a vector of bytes, times 2^(8 - bits): in the highest bits the sign is right.

    Args:
        held: int8, (count,): each holds 8 / `bits` integers.
        place: which one, from the lowest bits.
        bits: of an integer.
        count: of bytes.
    """
    from tvm.tirx.script import builder as tir

    def wide(value: int) -> Any:
        return tir.broadcast(tir.uint8(value), count)

    own, up = tir.reinterpret(f"uint8x{count}", held), 8 - (place + 1) * bits
    highest = (own << wide(up) if up else own) & wide(256 - (1 << (8 - bits)))
    return tir.reinterpret(f"int8x{count}", highest)


def requantised(total: Any, scale: Any, low: Any, high: Any, zero: Any, arithmetic: Arithmetic) -> Any:
    """Return sums of products as activations: scaled, rounded half to even, within limits.

    Args:
        total: int32, (lanes,).
        scale: float32, (lanes,).
        low: float32: the least result, less the zero point; so that no sum is too great for an integer.
        high: the same of the greatest.
        zero: int32: zero point.
        arithmetic: whose lanes and activations.
    """
    from tvm.tirx.script import builder as tir

    lanes = arithmetic.lanes
    scaled = tir.cast(total, f"float32x{lanes}") * scale
    return rounded(scaled, low, high, zero, arithmetic.activation, lanes)


def rounded(value: Any, low: Any, high: Any, zero: Any, dtype: str, lanes: int) -> Any:
    """Return float32 (lanes,) as integers, rounded half to even; see `requantised` for the limits."""
    from tvm.tirx.script import builder as tir

    def wide(found: Any) -> Any:
        return tir.broadcast(found, lanes) if lanes > 1 else found

    kind = f"x{lanes}" if lanes > 1 else ""
    kept = tir.min(tir.max(value, wide(low)), wide(high))
    return tir.cast(tir.cast(tir.nearbyint(kept), f"int32{kind}") + wide(zero), f"{dtype}{kind}")


def store_lanes(buffer: Any, value: Any, place: Sequence[Any], start: Any, arithmetic: Arithmetic, size: int,
                padded: int) -> None:
    """Write a vector to the last axis; what lies beyond its end is dropped.

    Args:
        buffer: where to.
        value: (lanes,).
        place: indices of all axes but the last.
        start: index in the last axis.
        arithmetic: whose lanes and activations.
        size: of the last axis.
        padded: where the last vector ends that is written.
    """
    from tvm.tirx.script import builder as tir

    lanes = arithmetic.lanes
    if padded == size:
        tir.buffer_store(buffer, value, [*place, span(start, lanes)])
        return
    with tir.If(start + lanes <= size):
        with tir.Then():
            tir.buffer_store(buffer, value, [*place, span(start, lanes)])
        with tir.Else():
            kept = local(lanes, arithmetic.activation)
            tir.buffer_store(kept, value, [span(0, lanes)])
            with tir.serial(0, lanes) as lane, tir.If(start + lane < size), tir.Then():
                tir.buffer_store(buffer, kept[lane], [*place, start + lane])


@dataclass(frozen=True, slots=True)
class Operands:
    """The arguments of a kernel with weights, as it sees them."""

    x: Any
    """(height, width, channels)."""
    w: Any
    bias: Any
    scale: Any
    """None in float arithmetic."""
    limits: Any
    points: Any
    """None in float arithmetic."""
    y: Any
    """(rows, columns, kernels)."""


def operands(window: Window, arithmetic: Arithmetic, weights: Shape, padded: int, given: Shape,
             made: Shape) -> Operands:
    """Declare the arguments that `convolution.convolution` describes.

    Args:
        window: of the operator.
        arithmetic: of the sums.
        weights: their shape, as they are packed.
        padded: output channels in whole vectors.
        given: shape of the activations.
        made: shape of the result.
    """
    parts: list[tuple[Shape, str]] = [((padded,), arithmetic.bias), (weights, arithmetic.weight),
                                      ((2,), arithmetic.total if arithmetic.is_float else "float32")]
    if not arithmetic.is_float:
        parts.insert(1, ((padded,), "float32"))
        parts.append(((3 if arithmetic.is_signs else 2,), "int32"))
    x = argument("x", given, arithmetic.activation)
    constants = argument("constants", (size_of(*parts),), "uint8")
    y = argument("y", made, arithmetic.activation)
    held = apart(constants, *parts)
    scale, points = (None, None) if arithmetic.is_float else (held.pop(1), held.pop())
    bias, w, limits = held
    return Operands(viewed(x, (window.height, window.width, window.channels), arithmetic.activation), w, bias, scale,
                    limits, points, viewed(y, (window.rows, window.columns, window.kernels), arithmetic.activation))


def finish(own: Operands, sums: Any, place: tuple[Any, Any], start: Any, window: Window, arithmetic: Arithmetic,
           padded: int) -> None:
    """Write a vector of sums to the result: within limits, as integers requantised.

    Args:
        own: the kernel's arguments.
        sums: (lanes,).
        place: row and column.
        start: output channel of the first sum.
        window: of the operator.
        arithmetic: of the sums.
        padded: output channels in whole vectors.
    """
    from tvm.tirx.script import builder as tir

    lanes, limits = arithmetic.lanes, own.limits
    if arithmetic.is_float:
        value = tir.min(tir.max(sums, tir.broadcast(limits[0], lanes)), tir.broadcast(limits[1], lanes))
    elif arithmetic.is_signs:
        wide, own_lanes = f"float32x{lanes}", span(start, lanes)
        scaled = tir.call_llvm_pure_intrin(wide, f"llvm.fma.v{lanes}f32", tir.cast(sums, wide), own.scale[own_lanes],
                                           own.bias[own_lanes])
        value = rounded(scaled, limits[0], limits[1], own.points[1], arithmetic.activation, lanes)
    else:
        value = requantised(sums, own.scale[span(start, lanes)], limits[0], limits[1], own.points[1], arithmetic)
    store_lanes(own.y, value, place, start, arithmetic, window.kernels, padded)


def bordered(window: Window, arithmetic: Arithmetic, size: Shape, x: Any, points: Any) -> Any:
    """Return the input, or where that is another size (rows, columns, channels), a copy with a border."""
    from tvm.tirx.script import builder as tir

    inside = size[0] <= window.height and size[1] <= window.width
    if window.padding == (0, 0, 0, 0) and inside and size[2] == window.channels:
        return x
    copy = tir.alloc_buffer(size, arithmetic.activation, layout=None)
    empty = tir.cast(tir.float32(0) if points is None else points[0], arithmetic.activation)
    top, left = window.padding[:2]
    rows, columns = min(window.height, size[0] - top), min(window.width, size[1] - left)
    with tir.serial(0, size[0]) as i, tir.serial(0, size[1]) as j, tir.serial(0, size[2]) as c:
        tir.buffer_store(copy, empty, [i, j, c])
    with tir.serial(0, rows) as i, tir.serial(0, columns) as j, tir.serial(0, window.channels) as c:
        tir.buffer_store(copy, x[i, j, c], [i + top, j + left, c])
    return copy
