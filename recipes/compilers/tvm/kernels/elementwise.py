"""Operators without weights: conversions between float32, float16 and integers, and sums of two tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.compilers.tvm.kernels.parts import Shape, apart, argument, kernel, rounded, span, viewed

Body = Callable[[Any, int], Any]
"""From where values are read, and how many -> the result."""


def quantise(name: str, shape: Shape, arithmetic: Arithmetic) -> Any:
    """Return the kernel float32 -> integers.

    Its arguments: the tensor; constants as `parts.joined` makes them; the result. The constants: numbers float32 (3,):
    1 / scale, and the limits of `parts.rounded`; points int32 (1,): the zero point.
    """
    def body() -> None:
        x, constants = argument("x", shape, "float32"), _constants(3, 1)
        y = argument("y", shape, arithmetic.activation)
        numbers, points = _numbers(constants, 3, 1)
        flat = viewed(x, (math.prod(shape),), "float32")

        def made(start: Any, count: int) -> Any:
            return rounded(flat[span(start, count)] * _wide(numbers[0], count), numbers[1], numbers[2], points[0],
                           arithmetic.activation, count)

        _run(viewed(y, (math.prod(shape),), arithmetic.activation), math.prod(shape), arithmetic.lanes, made)

    return kernel(name, body)


def dequantise(name: str, shape: Shape, arithmetic: Arithmetic) -> Any:
    """Return the kernel integers -> float32: (x - zero point) * scale.

    Its arguments: the tensor; constants: numbers float32 (1,): scale, points int32 (1,): the zero point; the result.
    """
    def body() -> None:
        x, constants = argument("x", shape, arithmetic.activation), _constants(1, 1)
        y = argument("y", shape, "float32")
        numbers, points = _numbers(constants, 1, 1)
        flat = viewed(x, (math.prod(shape),), arithmetic.activation)

        def made(start: Any, count: int) -> Any:
            return _real(flat[span(start, count)], points[0], count) * _wide(numbers[0], count)

        _run(viewed(y, (math.prod(shape),), "float32"), math.prod(shape), arithmetic.lanes, made)

    return kernel(name, body)


def cast(name: str, shape: Shape, given: str, made: str, lanes: int) -> Any:
    """Return the kernel of a conversion between floats. Its arguments: the tensor; the result, of the type `made`."""
    from tvm.tirx.script import builder as tir

    def body() -> None:
        x, y = argument("x", shape, given), argument("y", shape, made)
        flat = viewed(x, (math.prod(shape),), given)
        _run(viewed(y, (math.prod(shape),), made), math.prod(shape), lanes,
             lambda start, count: tir.cast(flat[span(start, count)], f"{made}x{count}" if count > 1 else made))

    return kernel(name, body)


def add_floats(name: str, shape: Shape, arithmetic: Arithmetic) -> Any:
    """Return the kernel of the sum of two tensors of one type.

    Its arguments: both tensors; limits of the result, (2,) of their type; the result.
    """
    from tvm.tirx.script import builder as tir

    def body() -> None:
        one, two, limits, y = (argument(name, size, arithmetic.total) for name, size in (
            ("one", shape), ("two", shape), ("limits", (2,)), ("y", shape)))
        first, second, made = (viewed(each, (math.prod(shape),), arithmetic.total) for each in (one, two, y))

        def total(start: Any, count: int) -> Any:
            found = first[span(start, count)] + second[span(start, count)]
            return tir.min(tir.max(found, _wide(limits[0], count)), _wide(limits[1], count))

        _run(made, math.prod(shape), arithmetic.lanes, total)

    return kernel(name, body)


def add(name: str, shape: Shape, arithmetic: Arithmetic) -> Any:
    """Return the kernel of the sum of two integer tensors, each with a scale of its own: fma(one, scale, two * scale).

    Its arguments: both tensors; constants; the result. The constants: numbers float32 (4,): scale of the first and of
    the second beside the result's, and the limits of `parts.rounded`; points int32 (3,): zero points of the first, the
    second and the result.
    """
    def body() -> None:
        one, two = argument("one", shape, arithmetic.activation), argument("two", shape, arithmetic.activation)
        constants, y = _constants(4, 3), argument("y", shape, arithmetic.activation)
        numbers, points = _numbers(constants, 4, 3)
        first, second = (viewed(each, (math.prod(shape),), arithmetic.activation) for each in (one, two))

        def made(start: Any, count: int) -> Any:
            total = _fma(_real(first[span(start, count)], points[0], count), _wide(numbers[0], count),
                         _real(second[span(start, count)], points[1], count) * _wide(numbers[1], count), count)
            return rounded(total, numbers[2], numbers[3], points[2], arithmetic.activation, count)

        _run(viewed(y, (math.prod(shape),), arithmetic.activation), math.prod(shape), arithmetic.lanes, made)

    return kernel(name, body)


def _constants(floats: int, integers: int) -> Any:
    """Declare so many float32 and int32 as one argument."""
    return argument("constants", (4 * (floats + integers),), "uint8")


def _numbers(constants: Any, floats: int, integers: int) -> list[Any]:
    """Return both parts of the argument."""
    return apart(constants, ((floats,), "float32"), ((integers,), "int32"))


def _real(value: Any, zero: Any, count: int) -> Any:
    from tvm.tirx.script import builder as tir

    kind = f"x{count}" if count > 1 else ""
    return tir.cast(tir.cast(value, f"int32{kind}") - _wide(zero, count), f"float32{kind}")


def _fma(one: Any, two: Any, three: Any, count: int) -> Any:
    """Return one * two + three, rounded once: whether a compiler would fuse it is not left to it."""
    from tvm.tirx.script import builder as tir

    kind, overload = (f"float32x{count}", f"v{count}f32") if count > 1 else ("float32", "f32")
    return tir.call_llvm_pure_intrin(kind, f"llvm.fma.{overload}", one, two, three)


def _wide(value: Any, count: int) -> Any:
    from tvm.tirx.script import builder as tir

    return value if count == 1 else tir.broadcast(value, count)


def _run(y: Any, size: int, lanes: int, made: Body) -> None:
    """Write every element: whole vectors, then the rest one by one."""
    from tvm.tirx.script import builder as tir

    whole = size // lanes * lanes
    if whole:
        with tir.serial(0, whole // lanes) as i:
            tir.buffer_store(y, made(i * lanes, lanes), [span(i * lanes, lanes)])
    if size > whole:
        with tir.serial(0, size - whole) as i:
            tir.buffer_store(y, made(whole + i, 1), [whole + i])
