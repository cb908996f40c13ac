"""Outputs beside float32's: the divergence, and the luck of a metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from profilers.closeness import Closeness, closeness, halves_of
from profilers.golden import Array
from recipes.models.dataset import Metric, top1
from search.errors import InfeasibleCandidate

METRICS: Mapping[str, Metric] = {"top1": top1}


def compared(metrics: Mapping[str, Metric], reference: Array, outputs: Array, targets: Array) -> Closeness:
    return closeness((reference,), halves_of(metrics, (reference,), targets), (outputs,),
                     halves_of(metrics, (outputs,), targets))


def scores(rng: np.random.Generator, count: int) -> Array:
    return rng.normal(0, 1, (count, 10)).astype(np.float32)


def test_the_same_outputs_are_as_close_as_can_be() -> None:
    rng = np.random.default_rng(0)
    outputs, targets = scores(rng, 100), rng.integers(0, 10, 100)
    found = compared(METRICS, outputs, outputs, targets)
    assert found.divergence == 0
    assert found.luck == {"top1": 0.0}


def test_luck_is_the_standard_error_of_the_difference() -> None:
    rng, count = np.random.default_rng(1), 1000
    draws, gaps = [], []
    for _ in range(400):
        targets = rng.integers(0, 10, count)
        reference = np.eye(10, dtype=np.float32)[np.where(rng.random(count) < 0.9, targets, (targets + 1) % 10)]
        outputs = np.eye(10, dtype=np.float32)[np.where(rng.random(count) < 0.88, targets, (targets + 1) % 10)]
        draws.append(compared(METRICS, reference, outputs, targets).luck["top1"])
        gaps.append(top1(outputs, targets) - top1(reference, targets))
    assert np.sqrt(np.mean(np.square(draws))) == pytest.approx(np.std(gaps), rel=0.15)


def test_a_metric_that_half_of_the_examples_break_has_no_luck() -> None:
    def needs_all(outputs: Any, targets: Array) -> float:
        if len(targets) < 100:
            raise ValueError("too few")
        return top1(outputs, targets)

    rng = np.random.default_rng(3)
    outputs, targets = scores(rng, 100), rng.integers(0, 10, 100)
    assert compared({"top1": top1, "whole": needs_all}, outputs, outputs, targets).luck == {"top1": 0.0}


def test_what_is_not_finite_is_infeasible() -> None:
    rng = np.random.default_rng(4)
    outputs, targets = scores(rng, 10), rng.integers(0, 10, 10)
    with pytest.raises(InfeasibleCandidate, match="not finite"):
        compared(METRICS, outputs, np.full_like(outputs, np.nan), targets)
