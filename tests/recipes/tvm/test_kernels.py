"""Kernels against numpy, bit by bit: any shape, any tile, each arithmetic that this machine can execute."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from recipes.compilers.tvm.host import host_target
from recipes.compilers.tvm.kernels import convolution, elementwise, matmul, smooth
from recipes.compilers.tvm.kernels.convolution import Tile
from recipes.compilers.tvm.kernels.isa import AS_FLOAT32, PLAIN, Arithmetic, Isa, isa_of
from recipes.compilers.tvm.kernels.parts import joined
from recipes.compilers.tvm.kernels.window import Window
from recipes.compilers.tvm.target import llvm_target
from recipes.compilers.tvm.templates import DEPTHWISE, Template
from recipes.ports import Array
from tests.recipes.tvm.references import convolved, convolved_in_halves, fma, requantised, spread

HOST = host_target("test")
FLAGS = ("avx512_vnni", "avx512bw", "avx2", "asimddp")
ISAS = list(dict.fromkeys([*(isa_of(HOST.machine, (flag,)) for flag in FLAGS if flag in HOST.cpu_features), PLAIN]))
KINDS = ("CONV_2D", "CONV_2D 1x1", "FULLY_CONNECTED")
"""What shapes without DEPTHWISE are drawn from, in turn."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        shapes = metafunc.config.getoption("--kernel-shapes")
        slow = metafunc.function.__name__ == "test_halves_in_float32_are_exact"  # LLVM takes a second for each
        metafunc.parametrize("number", range(-(-shapes // 3) if slow else shapes))


def run(function: Any, arguments: list[Array], shape: tuple[int, ...], dtype: str) -> Array:
    """Compile a kernel for this machine and call it."""
    import tvm

    library = tvm.compile(tvm.IRModule({"main": function}), target=llvm_target(HOST))
    result = tvm.runtime.empty(shape, dtype)
    library["main"](*map(tvm.runtime.tensor, arguments), result)
    return np.asarray(result.numpy())


def draw(dice: np.random.Generator, kind: str, arithmetic: Arithmetic, bits: int = 8) -> tuple[Template, Tile]:
    """Draw a shape, and one of the tiles that are measured for it or any other."""
    window = draw_window(dice, kind)
    if arithmetic.is_signs:
        window = replace(window, channels=int(dice.choice([1, 3, 16, 31, 32, 33, 50, 64, 96])))
    given, made = (window.height, window.width, window.channels), (window.rows, window.columns, window.kernels)
    linear = kind == KINDS[2]
    template = Template(kind.split()[0], f"{bits} bits", window, arithmetic, bits, (1, *given[linear:]),
                        (1, *made[linear:]))
    if arithmetic.as_float32 or dice.integers(2):  # LLVM would take minutes for larger ones
        return template, template.tiles()[dice.integers(len(template.tiles()))]
    return template, Tile(int(dice.integers(1, 9)), int(dice.integers(1, 4)), bool(dice.integers(2)))


def draw_window(dice: np.random.Generator, kind: str) -> Window:
    if kind == KINDS[2]:
        return Window(1, int(dice.integers(1, 20)), int(dice.integers(1, 200)), int(dice.integers(16, 200)))
    height, width, channels = (int(n) for n in dice.integers((9, 9, 1), (16, 16, 40)))
    kernels = channels if kind == DEPTHWISE else int(dice.integers(1, 70))
    high, wide, down, right, below, beside = (int(n) for n in dice.integers(1, (5, 5, 4, 4, 3, 3)))
    top, left, bottom, end = (int(n) for n in dice.integers(0, 3, 4))
    size = (1, 1) if kind == KINDS[1] else (high, wide)
    return Window(height, width, channels, kernels, size, (down, right), (top, left, bottom, end), (below, beside))


def weight_shape(template: Template) -> tuple[int, ...]:
    window = template.window
    return (window.kernels, *window.kernel, *(() if template.kind == DEPTHWISE else (window.channels,)))


def whole(template: Template, weights: Array) -> Array:
    return spread(weights) if template.kind == DEPTHWISE else weights


def same(got: Array, expected: Array, template: Template, tile: Tile) -> None:
    """Compare integers; a failure names the shape."""
    assert np.array_equal(got.astype(np.int64).ravel(), expected.ravel()), f"{template} with {tile}"
    assert template.window.kernels < 8 or len(np.unique(expected)) > 2, "the scales leave something to compare"


def image(x: Array, template: Template) -> Array:
    """Return activations as (height, width, channels)."""
    return x.reshape(template.window.height, template.window.width, -1)


def integers(dice: np.random.Generator, arithmetic: Arithmetic, shape: tuple[int, ...]) -> Array:
    return dice.integers(arithmetic.low, arithmetic.high + 1, shape).astype(arithmetic.activation)


def kind_of(number: int, deep: bool) -> str:
    return DEPTHWISE if deep else KINDS[number % len(KINDS)]


def case(number: int, isa: Isa) -> np.random.Generator:
    return np.random.default_rng([number, isa.integer.lanes, isa.integer.group])


@pytest.mark.parametrize("isa", ISAS, ids=[isa.name for isa in ISAS])
class TestWithWeights:
    @pytest.mark.parametrize(("deep", "bits"), list(product((False, True), (8, 4, 2))))
    def test_integers_are_exact(self, number: int, isa: Isa, deep: bool, bits: int) -> None:
        dice, arithmetic = case(number, isa), isa.integer
        template, tile = draw(dice, kind_of(number, deep), arithmetic, bits)
        window = template.window
        zero_in, zero_out = (int(n) for n in dice.integers(arithmetic.low, arithmetic.high + 1, 2))
        x = integers(dice, arithmetic, template.given)
        most = 2 ** (bits - 1) - 1
        weights = dice.integers(-most, most + 1, weight_shape(template))
        own = dice.integers(-40 * most, 40 * most + 1, window.kernels)
        scale = dice.uniform(0.2, 2, window.kernels).astype(np.float32) / np.float32(
            most * math.sqrt(weights[0].size))
        bias, scales = np.zeros(template.padded(tile), np.int32), np.zeros(template.padded(tile), np.float32)
        bias[:window.kernels] = own - zero_in * weights.reshape(window.kernels, -1).sum(axis=1)
        scales[:window.kernels] = scale
        low, high = arithmetic.low - zero_out, arithmetic.high - zero_out
        got = run(template.make("main", tile), [x, joined(
            bias, scales, template.packed(weights.astype(np.int8), tile), np.array([low, high], np.float32),
            np.array([zero_in, zero_out], np.int32))], template.made, arithmetic.activation)
        sums = convolved(image(x, template).astype(np.int64) - zero_in, whole(template, weights), window) + own
        same(got, requantised(sums, scale, low, high, zero_out), template, tile)

    def test_signs_are_exact(self, number: int, isa: Isa) -> None:
        dice, arithmetic = case(number, isa), isa.signs
        template, tile = draw(dice, kind_of(number, False), arithmetic, 1)
        window = template.window
        zero_in, zero_out, least = (int(n) for n in dice.integers(arithmetic.low, arithmetic.high + 1, 3))
        x = integers(dice, arithmetic, template.given)
        weights = dice.standard_normal(weight_shape(template))
        scale, bias = np.zeros(template.padded(tile), np.float32), np.zeros(template.padded(tile), np.float32)
        scale[:window.kernels] = dice.uniform(-2, 2, window.kernels) * 40 / math.sqrt(weights[0].size)
        bias[:window.kernels] = dice.uniform(-50, 50, window.kernels) - scale[:window.kernels] * weights[0].size / 2
        low, high = arithmetic.low - zero_out, arithmetic.high - zero_out
        got = run(template.make("main", tile), [x, joined(
            bias, scale, template.packed(weights, tile), np.array([low, high], np.float32),
            np.array([least, zero_out, zero_in], np.int32))], template.made, arithmetic.activation)
        signs = np.where(image(x, template).astype(np.int64) >= least, 1, -1)
        products = convolved(signs, np.where(weights > 0, 1, -1), window, 1 if zero_in >= least else -1)
        negative = ((weights[0].size - products) // 2).astype(np.float32)
        value = fma(negative, scale[:window.kernels], np.broadcast_to(bias[:window.kernels], negative.shape))
        rounded = np.rint(np.clip(value, np.float32(low), np.float32(high))).astype(np.int64) + zero_out
        same(got, rounded, template, tile)

    @pytest.mark.parametrize("deep", [False, True], ids=["whole", "depthwise"])
    def test_floats_are_close(self, number: int, isa: Isa, deep: bool) -> None:
        dice, arithmetic = case(number, isa), isa.floating
        template, tile = draw(dice, kind_of(number, deep), arithmetic)
        window = template.window
        x = dice.standard_normal(template.given).astype(np.float32)
        weights = dice.standard_normal(weight_shape(template)).astype(np.float32)
        own = dice.standard_normal(window.kernels).astype(np.float32)
        bias = np.zeros(template.padded(tile), np.float32)
        bias[:window.kernels] = own
        got = run(template.make("main", tile), [x, joined(bias, template.packed(weights, tile),
                                                          np.array([0, 6], np.float32))], template.made, "float32")
        known = whole(template, weights).astype(np.float64)
        expected = np.clip(convolved(image(x, template).astype(np.float64), known, window) + own, 0, 6)
        error = np.abs(got.ravel() - expected.ravel()).max()
        most = float(np.abs(known).sum(axis=(1, 2, 3)).max())
        assert error < 1e-5 * max(1.0, most), f"{template} with {tile}"

    @pytest.mark.parametrize("deep", [False, True], ids=["whole", "depthwise"])
    def test_halves_in_float32_are_exact(self, number: int, isa: Isa, deep: bool) -> None:
        dice, arithmetic = case(number, isa), isa_of(HOST.machine, (isa.name, AS_FLOAT32)).half
        assert arithmetic is not None and arithmetic.as_float32
        template, tile = draw(dice, kind_of(number, deep), arithmetic)
        window = template.window
        x = dice.standard_normal(template.given).astype(np.float16)
        weights, own = (dice.standard_normal(size).astype(np.float16)
                        for size in (weight_shape(template), window.kernels))
        bias = np.zeros(template.padded(tile), np.float16)
        bias[:window.kernels] = own
        got = run(template.make("main", tile), [x, joined(bias, template.packed(weights, tile),
                                                          np.array([-1, 6], np.float16))], template.made, "float16")
        expected = convolved_in_halves(image(x, template), whole(template, weights), own, window).clip(-1, 6)
        assert np.array_equal(got.ravel(), expected.ravel()), f"{template} with {tile}"


@pytest.mark.parametrize("isa", ISAS, ids=[isa.name for isa in ISAS])
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
