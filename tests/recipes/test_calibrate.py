"""Ranges of activations: what clips, clips what is rare, and what it keeps is what costs least."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from recipes.compilers.ranges import BINS, Histogram
from recipes.compilers.tflite.calibrate import calibrate, clip, load_statistics
from recipes.compilers.tflite.convert import convert
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.compilers.tflite.quantise import Quantiser
from recipes.compilers.tflite.run import tflite_outputs
from recipes.demo.data import fashion_mnist
from recipes.demo.networks import residual
from recipes.models.network import Network
from recipes.target import Target
from search.recipes import uniform
from search.space import Calibration

Ranges = dict[str, tuple[float, float]]
UNSEEN = 1000


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as found:
        yield found


def histogram(values: NDArray[np.float64]) -> Histogram:
    found = Histogram.between(float(values.min()), float(values.max()))
    for part in np.array_split(values, 3):
        found.add(part)
    return found


def error(values: NDArray[np.float64], low: float, high: float) -> float:
    """Return the squared error of 8-bit integers on a range, value by value."""
    step = (high - low) / 255
    zero = np.round(-low / step)
    integers = np.clip(np.round(values / step) + zero, 0, 255)
    return float((((integers - zero) * step - values) ** 2).sum())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("positive", [True, False])
def test_one_value_in_ten_thousand_is_clipped_on_either_side(seed: int, positive: bool) -> None:
    values = np.random.default_rng(seed).standard_t(3, 200_000)
    values = np.abs(values) if positive else values
    low, high = histogram(values).percentile()
    step = (values.max() - min(values.min(), 0.0)) / BINS
    assert (values > high).mean() <= 1e-4 <= (values > high - 1.01 * step).mean()
    if positive:
        assert low == 0.0
    else:
        assert (values < low).mean() <= 1e-4 <= (values < low + 1.01 * step).mean()


@pytest.mark.parametrize("seed", range(8))
def test_the_squared_error_is_the_least_of_all_shares(seed: int) -> None:
    values = np.random.default_rng(seed).standard_t(3, 50_000)
    low, high = histogram(values).mse()
    best = min(error(values, share * values.min(), share * values.max()) for share in np.linspace(0.2, 1.0, 81))
    assert error(values, low, high) <= 1.02 * best
    assert best < error(values, values.min(), values.max())


def test_values_that_are_spread_evenly_are_not_clipped() -> None:
    values = np.linspace(-1.0, 3.0, 100_000)
    assert histogram(values).mse() == pytest.approx((-1.0, 3.0), rel=0.03)


@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_a_tensor_with_one_value_keeps_it(value: float) -> None:
    found = histogram(np.full(100, value))
    for low, high in (found.percentile(), found.mse()):
        assert low <= min(value, 0.0)
        assert high >= max(value, 0.0)


def masked() -> dict[str, set[str]]:
    """Return method -> the tensors of a network with a causal mask whose ranges were clipped."""
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.score, self.out = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
            self.register_buffer("mask", torch.tensor([0.0] * 5 + [-math.inf] * 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.out(torch.softmax(self.score(x) + self.mask, 1))
            return found

    inputs = {"x": np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)}
    model, ports = convert(Network(Masked()), {"x": inputs["x"][:1]}, positional=True)
    plain = calibrate(model, ports, inputs)
    whole = load_statistics(plain)
    assert any(np.isinf(qsv["min"]).any() or np.abs(qsv["min"]).max() > 1e30 for qsv in whole.values())
    return {method.value: {tensor for tensor, qsv in load_statistics(data).items()
                           if not np.array_equal(qsv["max"], whole[tensor]["max"])}
            for method, data in clip(model, ports, inputs, plain).items()}


def test_a_masked_tensor_keeps_its_range_and_the_others_are_clipped(pool: ProcessPoolExecutor) -> None:
    found = pool.submit(masked).result()
    assert found.keys() == {"percentile", "mse"}
    assert found["mse"]


def ranges_and_divergences() -> tuple[dict[str, Ranges], dict[str, float]]:
    """Return of the demo's residual network: method -> tensor -> range, and method -> divergence as static int8."""
    images = {"input": fashion_mnist()["calibration"]}
    model, ports = convert(Network(residual()), {"input": images["input"][:1]}, positional=True)
    plain = calibrate(model, ports, images)
    every = {Calibration.MIN_MAX: plain, **clip(model, ports, images, plain)}
    layers = map_layers(read_graph(model), Target("x86_64", "litert", "2.3.0"))
    int8 = uniform(layers.space, "int8", 1)
    assert not isinstance(int8, str)
    unseen = {"input": fashion_mnist()["validation"][0][:UNSEEN]}
    expected = log_softmax(tflite_outputs(model, ports, unseen, UNSEEN)[0], axis=1)
    apart, ranges = {}, {}
    for method, data in every.items():
        statistics = load_statistics(data)
        quantised = Quantiser(model, statistics, layers).quantise(replace(int8.candidate, calibration=method))
        found = log_softmax(tflite_outputs(quantised, ports, unseen, UNSEEN)[0], axis=1)
        apart[method.value] = float((np.exp(expected) * (expected - found)).sum(1).mean())
        ranges[method.value] = {tensor: (float(np.min(qsv["min"])), float(np.max(qsv["max"])))
                                for tensor, qsv in statistics.items()}
    return ranges, apart


def test_clipped_ranges_lie_within_the_whole_ones_and_cost_less(pool: ProcessPoolExecutor) -> None:
    ranges, apart = pool.submit(ranges_and_divergences).result()
    whole = ranges["min_max"]
    for method in ("percentile", "mse"):
        clipped = ranges[method]
        assert clipped.keys() == whole.keys()
        for tensor, (low, high) in clipped.items():
            assert min(whole[tensor][0], 0.0) <= low + 1e-6
            assert high <= max(whole[tensor][1], 0.0) + 1e-6
            assert (low, high) == whole[tensor] or low <= 0.0 <= high
        assert sum(clipped[tensor] != whole[tensor] for tensor in whole) > len(whole) / 4
    assert apart["mse"] < 0.9 * apart["min_max"]
