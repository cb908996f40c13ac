"""Kernels against numpy, bit by bit: any shape, any tile, each arithmetic that this machine can execute."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from recipes.compilers.tvm.host import host_target
from recipes.compilers.tvm.kernels import convolution, depthwise, elementwise, matmul, smooth
from recipes.compilers.tvm.kernels.convolution import Tile
from recipes.compilers.tvm.kernels.isa import AS_FLOAT32, PLAIN, Arithmetic, Isa, isa_of
from recipes.compilers.tvm.kernels.parts import joined
from recipes.compilers.tvm.kernels.window import Window
from recipes.compilers.tvm.target import llvm_target
from recipes.ports import Array
from tests.recipes.tvm.references import convolved, convolved_in_halves, fma, requantised, spread

HOST = host_target("test")
FLAGS = ("avx512_vnni", "avx512bw", "avx2", "asimddp")
ISAS = list(dict.fromkeys([*(isa_of(HOST.machine, (flag,)) for flag in FLAGS if flag in HOST.cpu_features), PLAIN]))
SHAPES = 12
"""Random shapes of every kernel and arithmetic."""
HALF_SHAPES = 4
"""Of float16 in float32, which LLVM takes a second for."""


def run(function: Any, arguments: list[Array], shape: tuple[int, ...], dtype: str) -> Array:
    """Compile a kernel for this machine and call it."""
    import tvm

    library = tvm.compile(tvm.IRModule({"main": function}), target=llvm_target(HOST))
    result = tvm.runtime.empty(shape, dtype)
    library["main"](*map(tvm.runtime.tensor, arguments), result)
    return np.asarray(result.numpy())


def draw_window(dice: np.random.Generator, deep: bool) -> Window:
    kernel = tuple(int(n) for n in dice.integers(1, 5, 2))
    channels = int(dice.integers(1, 40))
    kernels = channels if deep else int(dice.integers(1, 70))
    dilation = tuple(int(n) for n in dice.integers(1, 3, 2))
    return Window(int(dice.integers(9, 16)), int(dice.integers(9, 16)), channels, kernels, (kernel[0], kernel[1]),
                  (int(dice.integers(1, 4)), int(dice.integers(1, 4))), tuple(dice.integers(0, 3, 4).tolist()),
                  (dilation[0], dilation[1]))


def shapes(window: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (1, window.height, window.width, window.channels), (1, window.rows, window.columns, window.kernels)


def integers(dice: np.random.Generator, arithmetic: Arithmetic, shape: tuple[int, ...]) -> Array:
    return dice.integers(arithmetic.low, arithmetic.high + 1, shape).astype(arithmetic.activation)


def case(number: int, isa: Isa) -> np.random.Generator:
    return np.random.default_rng([number, isa.integer.lanes, isa.integer.group])


def template(window: Window, arithmetic: Arithmetic, dice: np.random.Generator, deep: bool, weights: Array,
             bits: int = 8) -> tuple[Any, int, Array]:
    given, made = shapes(window)
    pixels = int(dice.integers(1, 9))
    if deep:
        return (depthwise.depthwise("main", window, arithmetic, pixels, given, made, bits),
                depthwise.padded_channels(window, arithmetic), depthwise.packed(weights, arithmetic, bits))
    tile = Tile(pixels, int(dice.integers(1, 4)), bool(dice.integers(2)))
    return (convolution.convolution("main", window, arithmetic, tile, given, made, bits),
            convolution.padded_kernels(window, arithmetic, tile),
            convolution.packed(weights, arithmetic, tile, bits))


@pytest.mark.parametrize("isa", ISAS, ids=[isa.name for isa in ISAS])
@pytest.mark.parametrize("number", range(SHAPES))
class TestWithWeights:
    @pytest.mark.parametrize(("deep", "bits"), list(product((False, True), (8, 4, 2))))
    def test_integers_are_exact(self, number: int, isa: Isa, deep: bool, bits: int) -> None:
        dice, arithmetic = case(number, isa), isa.integer
        window = draw_window(dice, deep)
        given, made = shapes(window)
        zero_in, zero_out = (int(n) for n in dice.integers(arithmetic.low, arithmetic.high + 1, 2))
        x = integers(dice, arithmetic, given)
        most = 2 ** (bits - 1) - 1
        shape = (window.kernels, *window.kernel, *(() if deep else (window.channels,)))
        weights = dice.integers(-most, most + 1, shape)
        own = dice.integers(-40 * most, 40 * most + 1, window.kernels)
        scale = dice.uniform(0.2, 2, window.kernels).astype(np.float32) / np.float32(
            most * math.sqrt(weights[0].size))
        name, total, packed = template(window, arithmetic, dice, deep, weights.astype(np.int8), bits)
        bias, scales = np.zeros(total, np.int32), np.zeros(total, np.float32)
        bias[:window.kernels] = own - zero_in * weights.reshape(window.kernels, -1).sum(axis=1)
        scales[:window.kernels] = scale
        low, high = arithmetic.low - zero_out, arithmetic.high - zero_out
        got = run(name, [x, joined(bias, scales, packed, np.array([low, high], np.float32),
                                   np.array([zero_in, zero_out], np.int32))], made, arithmetic.activation)
        whole = spread(weights) if deep else weights
        sums = convolved(x[0].astype(np.int64) - zero_in, whole, window) + own
        expected = requantised(sums, scale, low, high, zero_out)
        assert np.array_equal(got[0].astype(np.int64), expected)
        assert len(np.unique(expected)) > 2, "the scales leave something to compare"

    def test_signs_are_exact(self, number: int, isa: Isa) -> None:
        dice, arithmetic = case(number, isa), isa.signs
        window = draw_window(dice, False)
        window = replace(window, channels=int(dice.choice([3, 16, 32, 50, 64, 96])))
        given, made = shapes(window)
        zero_in, zero_out, least = (int(n) for n in dice.integers(arithmetic.low, arithmetic.high + 1, 3))
        x = integers(dice, arithmetic, given)
        weights = dice.standard_normal((window.kernels, *window.kernel, window.channels))
        tile = Tile(int(dice.integers(1, 9)), int(dice.integers(1, 4)), bool(dice.integers(2)))
        total = convolution.padded_kernels(window, arithmetic, tile)
        scale, bias = np.zeros(total, np.float32), np.zeros(total, np.float32)
        scale[:window.kernels] = dice.uniform(-2, 2, window.kernels) * 40 / math.sqrt(weights[0].size)
        bias[:window.kernels] = dice.uniform(-50, 50, window.kernels) - scale[:window.kernels] * weights[0].size / 2
        low, high = arithmetic.low - zero_out, arithmetic.high - zero_out
        got = run(convolution.convolution("main", window, arithmetic, tile, given, made, 1),
                  [x, joined(bias, scale, convolution.packed(weights, arithmetic, tile, 1),
                             np.array([low, high], np.float32), np.array([least, zero_out, zero_in], np.int32))],
                  made, arithmetic.activation)
        signs = np.where(x[0].astype(np.int64) >= least, 1, -1)
        products = convolved(signs, np.where(weights > 0, 1, -1), window, 1 if zero_in >= least else -1)
        negative = ((weights[0].size - products) // 2).astype(np.float32)
        value = fma(negative, scale[:window.kernels], np.broadcast_to(bias[:window.kernels], negative.shape))
        expected = np.rint(np.clip(value, np.float32(low), np.float32(high))).astype(np.int64) + zero_out
        assert np.array_equal(got[0].astype(np.int64), expected)
        assert len(np.unique(expected)) > 2, "the scales leave something to compare"

    @pytest.mark.parametrize("deep", [False, True], ids=["whole", "depthwise"])
    def test_floats_are_close(self, number: int, isa: Isa, deep: bool) -> None:
        dice, arithmetic = case(number, isa), isa.floating
        window = draw_window(dice, deep)
        given, made = shapes(window)
        x = dice.standard_normal(given).astype(np.float32)
        weights = dice.standard_normal((window.kernels, *window.kernel, *(() if deep else (window.channels,))))
        weights = weights.astype(np.float32)
        own = dice.standard_normal(window.kernels).astype(np.float32)
        function, total, packed = template(window, arithmetic, dice, deep, weights)
        bias = np.zeros(total, np.float32)
        bias[:window.kernels] = own
        got = run(function, [x, joined(bias, packed, np.array([0, 6], np.float32))], made, "float32")
        whole = (spread(weights) if deep else weights).astype(np.float64)
        expected = np.clip(convolved(x[0].astype(np.float64), whole, window) + own, 0, 6)
        assert np.abs(got[0] - expected).max() < 1e-5 * max(1.0, float(np.abs(whole).sum(axis=(1, 2, 3)).max()))


@pytest.mark.parametrize("isa", ISAS, ids=[isa.name for isa in ISAS])
@pytest.mark.parametrize("number", range(HALF_SHAPES))
@pytest.mark.parametrize("deep", [False, True], ids=["whole", "depthwise"])
def test_halves_in_float32_are_exact(number: int, isa: Isa, deep: bool) -> None:
    dice, arithmetic = case(number, isa), isa_of(HOST.machine, (isa.name, AS_FLOAT32)).half
    assert arithmetic is not None and arithmetic.as_float32
    window = draw_window(dice, deep)
    given, made = shapes(window)
    x = dice.standard_normal(given).astype(np.float16)
    shape = (window.kernels, *window.kernel, *(() if deep else (window.channels,)))
    weights, own = (dice.standard_normal(size).astype(np.float16) for size in (shape, window.kernels))
    function, total, packed = template(window, arithmetic, dice, deep, weights)
    bias = np.zeros(total, np.float16)
    bias[:window.kernels] = own
    got = run(function, [x, joined(bias, packed, np.array([-1, 6], np.float16))], made, "float16")
    expected = convolved_in_halves(x[0], spread(weights) if deep else weights, own, window).clip(-1, 6)
    assert np.array_equal(got[0], expected)


@pytest.mark.parametrize("isa", ISAS, ids=[isa.name for isa in ISAS])
@pytest.mark.parametrize("number", range(SHAPES))
class TestWithoutWeights:
    def test_there_and_back(self, number: int, isa: Isa) -> None:
        dice, arithmetic = case(number, isa), isa.integer
        shape = (1, *(int(n) for n in dice.integers(1, 9, 3)))
        x = (3 * dice.standard_normal(shape)).astype(np.float32)
        scale, zero = np.float32(dice.uniform(0.01, 0.05)), int(dice.integers(arithmetic.low, arithmetic.high + 1))
        low, high = arithmetic.low - zero, arithmetic.high - zero
        inverse = np.float32(1) / scale
        got = run(elementwise.quantise("main", shape, arithmetic),
                  [x, joined(np.array([inverse, low, high], np.float32), np.array([zero], np.int32))], shape,
                  arithmetic.activation)
        expected = np.rint(np.clip(x * inverse, np.float32(low), np.float32(high))).astype(np.int64) + zero
        assert np.array_equal(got.astype(np.int64), expected)
        back = run(elementwise.dequantise("main", shape, arithmetic),
                   [got, joined(np.array([scale], np.float32), np.array([zero], np.int32))], shape, "float32")
        assert np.array_equal(back, (got.astype(np.int32) - zero).astype(np.float32) * scale)

    def test_float16_there_and_back(self, number: int, isa: Isa) -> None:
        dice = case(number, isa)
        shape = (1, *(int(n) for n in dice.integers(1, 9, 3)))
        x = (30_000 * dice.standard_normal(shape)).astype(np.float32)
        with np.errstate(over="ignore"):
            half = x.astype(np.float16)
        got = run(elementwise.cast("main", shape, "float32", "float16", isa.floating.lanes), [x], shape, "float16")
        assert np.array_equal(got, half)
        back = run(elementwise.cast("main", shape, "float16", "float32", isa.floating.lanes), [got], shape, "float32")
        assert np.array_equal(back, half.astype(np.float32))

    def test_sums_of_float16(self, number: int, isa: Isa) -> None:
        dice, arithmetic = case(number, isa), isa_of(HOST.machine, (isa.name, AS_FLOAT32)).half
        assert arithmetic is not None
        shape = (1, *(int(n) for n in dice.integers(1, 9, 3)))
        one, two = (dice.standard_normal(shape).astype(np.float16) for _ in range(2))
        got = run(elementwise.add_floats("main", shape, arithmetic), [one, two, np.array([0, 1], np.float16)], shape,
                  "float16")
        assert np.array_equal(got, (one + two).clip(0, 1))

    def test_products_of_matrices(self, number: int, isa: Isa) -> None:
        dice = case(number, isa)
        batch, rows, depth, columns = (int(n) for n in dice.integers(1, (4, 20, 40, 70)))
        one = dice.standard_normal((batch, rows, depth)).astype(np.float32)
        two = dice.standard_normal((batch, depth, columns)).astype(np.float32)
        made = (batch, rows, columns)
        got = run(matmul.matmul("main", batch, rows, depth, columns, isa.floating, (one.shape, two.shape), made),
                  [one, two], made, "float32")
        assert np.abs(got - one.astype(np.float64) @ two).max() < 1e-5 * depth

    def test_softmax_and_gelu(self, number: int, isa: Isa) -> None:
        dice = case(number, isa)
        shape = tuple(int(n) for n in dice.integers(1, (4, 9, 70)))
        x = (6 * dice.standard_normal(shape)).astype(np.float32)
        x.flat[0] = dice.choice([-300, 0, 300])
        wide = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
        found = run(smooth.softmax("main", shape, isa.floating), [x], shape, "float32")
        assert np.abs(found - wide / wide.sum(axis=-1, keepdims=True)).max() < 1e-6
        expected = [each / 2 * (1 + math.erf(each / math.sqrt(2))) for each in x.ravel().tolist()]
        found = run(smooth.gelu("main", shape, isa.floating), [x], shape, "float32")
        assert np.abs(found.ravel() - expected).max() < 2e-6

    def test_sums(self, number: int, isa: Isa) -> None:
        dice, arithmetic = case(number, isa), isa.integer
        shape = (1, *(int(n) for n in dice.integers(1, 9, 3)))
        one, two = integers(dice, arithmetic, shape), integers(dice, arithmetic, shape)
        zeros = dice.integers(arithmetic.low, arithmetic.high + 1, 3)
        scales = dice.uniform(0.1, 1.5, 2).astype(np.float32)
        low, high = arithmetic.low - int(zeros[2]), arithmetic.high - int(zeros[2])
        got = run(elementwise.add("main", shape, arithmetic),
                  [one, two, joined(np.array([*scales, low, high], np.float32), zeros.astype(np.int32))], shape,
                  arithmetic.activation)
        real = [(each.astype(np.int32) - int(zero)).astype(np.float32) for each, zero in zip((one, two), zeros[:2],
                                                                                            strict=True)]
        total = fma(real[0], scales[0], real[1] * scales[1])
        expected = np.rint(np.clip(total, np.float32(low), np.float32(high))).astype(np.int64) + int(zeros[2])
        assert np.array_equal(got.astype(np.int64), expected)


def test_weights_are_padded_with_zeros_to_whole_tiles() -> None:
    arithmetic, tile = PLAIN.integer, Tile(1, 2)
    window = Window(1, 1, 3, 5)
    weights = np.arange(15, dtype=np.int8).reshape(5, 1, 1, 3)
    found = convolution.packed(weights, arithmetic, tile)
    assert found.size == convolution.padded_kernels(window, arithmetic, tile) * 3 == 24
    assert found[0, 0, 0, 0].tolist() == [0, 3, 6, 9, 12, 0, 0, 0]
