"""Softmax and GELU in float: exponentials by polynomials, since LLVM would call the C library number by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.compilers.tvm.kernels.matmul import fused
from recipes.compilers.tvm.kernels.parts import Shape, argument, kernel, local, span, viewed

_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""Cephes, single/expf.c: exp(r) = 1 + r + r^2 p(r) for |r| <= ln(2) / 2."""
_LN2 = (0.693359375, -2.12194440e-4)
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
"""Abramowitz and Stegun 1964, 7.1.26: within 1.5e-7."""
_ERF_STEP = 0.3275911


def softmax(name: str, shape: Shape, arithmetic: Arithmetic) -> Any:
    """Return the kernel of a softmax over the last axis. Its arguments: x and the result, float32 of the shape."""
    from tvm.tirx.script import builder as tir

    count, rows, lanes = shape[-1], math.prod(shape[:-1]), arithmetic.lanes
    whole = count // lanes
    rest = _rest(whole * lanes, count, lanes)

    def body() -> None:
        given, made = argument("x", shape, "float32"), argument("y", shape, "float32")
        x, y = viewed(given, (rows, count), "float32"), viewed(made, (rows, count), "float32")
        with tir.serial(0, rows) as row:
            most, total = local(1, "float32"), local(1, "float32")
            mosts, sums = local(lanes, "float32"), local(lanes, "float32")
            every = [span(0, lanes)]
            tir.buffer_store(mosts, _spread(x[row, 0], lanes), every)
            with tir.serial(0, whole) as part:
                tir.buffer_store(mosts, tir.max(mosts[every[0]], x[row, span(part * lanes, lanes)]), every)
            for start, size in rest:
                tir.buffer_store(mosts, tir.max(mosts[span(0, size)], x[row, span(start, size)]), [span(0, size)])
            tir.buffer_store(most, mosts[0], [0])
            for lane in range(1, lanes):
                tir.buffer_store(most, tir.max(most[0], mosts[lane]), [0])
            tir.buffer_store(sums, _wide(0, lanes), every)
            with tir.serial(0, whole) as part:
                place = span(part * lanes, lanes)
                powers = exponential(x[row, place] - _spread(most[0], lanes), lanes)
                tir.buffer_store(y, powers, [row, place])
                tir.buffer_store(sums, sums[every[0]] + powers, every)
            for start, size in rest:
                powers = exponential(x[row, span(start, size)] - _spread(most[0], size), size)
                tir.buffer_store(y, powers, [row, span(start, size)])
                tir.buffer_store(sums, sums[span(0, size)] + powers, [span(0, size)])
            tir.buffer_store(total, sums[0], [0])
            for lane in range(1, lanes):
                tir.buffer_store(total, total[0] + sums[lane], [0])
            tir.buffer_store(total, tir.float32(1) / total[0], [0])
            with tir.serial(0, whole) as part:
                place = span(part * lanes, lanes)
                tir.buffer_store(y, y[row, place] * _spread(total[0], lanes), [row, place])
            for start, size in rest:
                tir.buffer_store(y, y[row, span(start, size)] * _spread(total[0], size), [row, span(start, size)])

    return kernel(name, body)


def _rest(start: int, count: int, lanes: int) -> list[tuple[int, int]]:
    """Return start and size of what is left behind whole vectors, in ever smaller ones."""
    found = []
    while start < count:
        lanes //= 2
        if start + lanes <= count:
            found.append((start, lanes))
            start += lanes
    return found


def gelu(name: str, shape: Shape, arithmetic: Arithmetic) -> Any:
    """Return the kernel of x / 2 (1 + erf(x / sqrt(2))). Its arguments: x and the result, float32 of the shape."""
    return _each(name, shape, arithmetic, _gelu)


def _gelu(x: Any, lanes: int) -> Any:
    from tvm.tirx.script import builder as tir

    scaled = x * _wide(math.sqrt(0.5), lanes)
    size = tir.max(scaled, _wide(0, lanes) - scaled)
    t = _wide(1, lanes) / fused(_wide(_ERF_STEP, lanes), size, _wide(1, lanes), lanes)
    powers = _polynomial(_ERF, t, lanes) * t
    erf = _wide(1, lanes) - powers * exponential(_wide(0, lanes) - size * size, lanes)
    signed = tir.Select(scaled < _wide(0, lanes), _wide(0, lanes) - erf, erf)
    return x * _wide(0.5, lanes) * (_wide(1, lanes) + signed)


def exponential(x: Any, lanes: int) -> Any:
    """Return exp of float32 (lanes,) from -87 to 88, else that of the nearer end; within 2 units in the last place."""
    from tvm.tirx.script import builder as tir

    kept = tir.min(tir.max(x, _wide(-87, lanes)), _wide(88, lanes))
    power = tir.nearbyint(kept * _wide(1 / math.log(2), lanes))
    rest = fused(power, _wide(-_LN2[0], lanes), kept, lanes)
    rest = fused(power, _wide(-_LN2[1], lanes), rest, lanes)
    made = fused(_polynomial(_EXP, rest, lanes) * rest, rest, rest, lanes) + _wide(1, lanes)
    kind, whole = (f"float32x{lanes}", f"int32x{lanes}") if lanes > 1 else ("float32", "int32")
    bits = (tir.cast(power, whole) + _ints(127, lanes)) << _ints(23, lanes)
    return made * tir.reinterpret(kind, bits)


def _polynomial(factors: tuple[float, ...], x: Any, lanes: int) -> Any:
    """Return the value by Horner's rule, the highest power's factor first."""
    value = _wide(factors[0], lanes)
    for factor in factors[1:]:
        value = fused(value, x, _wide(factor, lanes), lanes)
    return value


def _each(name: str, shape: Shape, arithmetic: Arithmetic, compute: Callable[[Any, int], Any]) -> Any:
    """Return the kernel of a function of single numbers."""
    from tvm.tirx.script import builder as tir

    count, lanes = math.prod(shape), arithmetic.lanes
    whole = count // lanes * lanes

    def body() -> None:
        given, made = argument("x", shape, "float32"), argument("y", shape, "float32")
        x, y = viewed(given, (count,), "float32"), viewed(made, (count,), "float32")
        with tir.serial(0, count // lanes) as part:
            place = span(part * lanes, lanes)
            tir.buffer_store(y, compute(x[place], lanes), [place])
        with tir.serial(whole, count) as i:
            tir.buffer_store(y, compute(x[i], 1), [i])

    return kernel(name, body)


def _wide(value: float, lanes: int) -> Any:
    from tvm.tirx.script import builder as tir

    return _spread(tir.float32(value), lanes)


def _ints(value: int, lanes: int) -> Any:
    from tvm.tirx.script import builder as tir

    return _spread(tir.int32(value), lanes)


def _spread(value: Any, lanes: int) -> Any:
    from tvm.tirx.script import builder as tir

    return tir.broadcast(value, lanes) if lanes > 1 else value
