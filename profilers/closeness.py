"""How close outputs are to float32's: a divergence, and how much of a metric's difference is luck.

On 2,000 examples the top-1 accuracy of a pruned network has a standard error of 0.3 points against float32's; the
divergence of all its outputs tells good from better with half of that (docs/decisions/0010-luck.md). So the engine
asks for both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from profilers.golden import Array
from recipes.errors import DataError
from recipes.models.dataset import Metric, apply_metrics
from search.errors import InfeasibleCandidate


@dataclass(frozen=True, slots=True)
class Closeness:
    """Outputs beside float32's, on the same examples."""

    divergence: float
    """0 or more, see `output_divergence`."""
    luck: Mapping[str, float]
    """Metric -> a standard error of its difference to float32's, from one pair of halves: a single draw. Metrics that
    cannot be computed on half of the examples are absent."""


Halves = Mapping[str, tuple[float, float]]
"""Metric -> its values on the even and on the odd examples; a metric that fails on half of them is absent."""


def halves_of(metrics: Mapping[str, Metric], outputs: tuple[Array, ...], targets: Array) -> Halves:
    """Return the metrics of outputs, each (N, ...), on either half of the examples; `targets`: (N, ...)."""
    found: dict[str, tuple[float, float]] = {}
    for name, metric in metrics.items():
        with contextlib.suppress(DataError):
            even, odd = (apply_metrics({name: metric}, tuple(o[start:len(targets):2] for o in outputs),
                                       targets[start::2])[name] for start in (0, 1))
            found[name] = even, odd
    return found


def closeness(reference: tuple[Array, ...], its_halves: Halves, outputs: tuple[Array, ...],
              halves: Halves) -> Closeness:
    """Compare outputs, each (N, ...), with float32's on the same examples. Raises InfeasibleCandidate for NaN.

    Were the difference of a metric all luck, it would differ between even and odd examples with twice its standard
    error on all of them.
    """
    found = float(np.mean([output_divergence(one, two) for one, two in zip(reference, outputs, strict=True)]))
    luck = {}
    for name in set(its_halves) & set(halves):
        even, odd = (own - its for own, its in zip(halves[name], its_halves[name], strict=True))
        luck[name] = abs(even - odd) / 2
    return Closeness(found, luck)


def output_divergence(expected: Array, found: Array) -> float:
    """Return the mean KL divergence (nats) of class scores (examples, classes), else the normalised squared error.

    Scores are probabilities when they are not negative and sum to one, else logits. Raises InfeasibleCandidate
    for NaN.
    """
    one, two = expected.astype(np.float64), found.astype(np.float64)
    if not np.isfinite(two).all():
        raise InfeasibleCandidate("its outputs are not finite")
    if one.ndim == 2 and one.shape[1] > 1:
        p, q = _log_scores(one, one), _log_scores(two, one)
        return max(0.0, float((np.exp(p) * (p - q)).sum(1).mean()))
    return float(((two - one) ** 2).mean() / max(float(one.var()), 1e-12))


def _log_scores(scores: NDArray[np.float64], judged: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log probabilities; whether scores are probabilities already is judged by the reference."""
    if bool((judged >= 0).all()) and np.allclose(judged.sum(1), 1, atol=1e-3):
        shares = np.clip(scores, 1e-7, None)
        scaled: NDArray[np.float64] = np.log(shares / shares.sum(1, keepdims=True))
        return scaled
    found: NDArray[np.float64] = log_softmax(scores, axis=1)
    return found
