"""Luck is taken away where there is luck, and nothing where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.adaptive.luck import LEAST, Close, believed

FLOAT32 = 0.91
SLOPE = 0.4


def drawn(count: int, luck: float, own: float, seed: int = 0) -> tuple[dict[bytes, float], dict[bytes, Close],
                                                                      dict[bytes, float]]:
    """Return accuracies as measured, how close they are to float32, and the truth."""
    rng = np.random.default_rng(seed)
    divergence = rng.uniform(0.001, 0.03, count)
    truth = FLOAT32 - SLOPE * divergence + rng.normal(0, own, count)
    seen = truth + rng.normal(0, luck, count)
    keys = [b"%d" % n for n in range(count)]
    close = [Close(float(d), abs(float(rng.normal(0, luck)))) for d in divergence]
    return (dict(zip(keys, map(float, seen), strict=True)), dict(zip(keys, close, strict=True)),
            dict(zip(keys, map(float, truth), strict=True)))


def error(found: dict[bytes, float], truth: dict[bytes, float], keys: list[bytes]) -> float:
    return float(np.sqrt(np.mean([(found[k] - truth[k]) ** 2 for k in keys])))


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_is_nearer(seed: int) -> None:
    accuracy, close, truth = drawn(200, luck=0.003, own=0.001, seed=seed)
    found = believed(accuracy, close, FLOAT32)
    nearest = sorted(close, key=lambda k: close[k].divergence)[:100]
    assert error(found, truth, nearest) < 0.6 * error(accuracy, truth, nearest)
    top = max(nearest, key=lambda k: accuracy[k])
    assert found[top] < accuracy[top], "the highest of many is the luckiest"


@pytest.mark.parametrize("seed", range(5))
def test_what_is_no_luck_stays(seed: int) -> None:
    accuracy, close, truth = drawn(200, luck=0.0003, own=0.003, seed=seed)
    found = believed(accuracy, close, FLOAT32)
    assert error(found, truth, list(accuracy)) < 1.1 * error(accuracy, truth, list(accuracy))


def test_nothing_changes_where_nothing_is_known() -> None:
    accuracy, close, _ = drawn(40, luck=0.003, own=0.001)
    assert believed(accuracy, close, None) == accuracy
    assert believed(accuracy, {}, FLOAT32) == accuracy
    few = dict(list(close.items())[:LEAST - 1])
    assert believed(accuracy, few, FLOAT32) == accuracy
    lucky = {key: Close(one.divergence, 0.0) for key, one in close.items()}
    assert believed(accuracy, lucky, FLOAT32) == accuracy
    better = {key: accuracy[key] + 2 * SLOPE * one.divergence for key, one in close.items()}
    assert believed(better, close, FLOAT32) == better, "divergence costs nothing here"


def test_an_infeasible_one_stays_infeasible() -> None:
    accuracy, close, _ = drawn(40, luck=0.003, own=0.001)
    key = min(close, key=lambda k: close[k].divergence)
    found = believed({**accuracy, key: math.nan}, close, FLOAT32)
    assert math.isnan(found[key])
    assert all(math.isfinite(value) for k, value in found.items() if k != key)
