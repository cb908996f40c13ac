"""From raw samples to the figures that are reported, each with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STATISTICS = ("median", "p90", "p99", "mean")
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Seconds."""

    median: float
    p90: float
    p99: float
    mean: float
    ci95: tuple[float, float]
    """Of the statistic that was asked for."""

    def value(self, statistic: str) -> float:
        """Return one of `STATISTICS`. Raises ValueError for another name."""
        if statistic not in STATISTICS:
            raise ValueError(f"latency statistic: expected one of {', '.join(STATISTICS)}, got {statistic!r}")
        return float(getattr(self, statistic))


def statistic_of(samples: NDArray[np.float64], statistic: str, axis: int = -1) -> NDArray[np.float64]:
    """Return one of `STATISTICS` along an axis."""
    if statistic == "mean":
        return np.asarray(samples.mean(axis=axis))
    quantile = {"median": 0.5, "p90": 0.9, "p99": 0.99}[statistic]
    return np.asarray(np.quantile(samples, quantile, axis=axis))


def summarise(sessions: Sequence[Sequence[int]], statistic: str = "median", seed: int = 0) -> LatencySummary:
    """Summarise wall times of one or several sessions (fresh processes).

    One session: the interval is a bootstrap over its runs (Efron 1979, percentile method). Several:
    runs of one process share its luck with memory and caches, so the sessions are the sample: each figure
    is the mean of the sessions' figures, and the interval is Student's.

    Args:
        sessions: wall times in nanoseconds.
        statistic: one of `STATISTICS`.
        seed: of the bootstrap.
    """
    arrays = [np.asarray(s, dtype=np.float64) * 1e-9 for s in sessions if len(s)]
    if not arrays:
        raise ValueError("no samples to summarise")
    if len(arrays) == 1:
        runs = arrays[0]
        drawn = _bootstrap(runs, statistic, np.random.default_rng(seed))
        interval = (float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975)))
        return LatencySummary(*_all(runs), interval)
    table = np.array([_all(runs) for runs in arrays])
    median, p90, p99, mean = (float(value) for value in table.mean(axis=0))
    values = table[:, STATISTICS.index(statistic)]
    half = _t(0.975, len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    middle = float(values.mean())
    return LatencySummary(median, p90, p99, mean, (middle - half, middle + half))


def probability_within(sessions: Sequence[Sequence[int]], budget_s: float, statistic: str) -> float:
    """Return P(the statistic of this artifact on this board <= budget), given interleaved sessions.

    Student's t over the logarithms of the sessions' statistics: the posterior of the mean under a
    flat prior (Gelman et al., Bayesian Data Analysis, section 3.2). With one session, its runs'
    bootstrap share.
    """
    arrays = [np.asarray(s, dtype=np.float64) * 1e-9 for s in sessions if len(s)]
    if not arrays:
        raise ValueError("no samples to judge by")
    if len(arrays) == 1:
        return float(np.mean(_bootstrap(arrays[0], statistic, np.random.default_rng(0)) <= budget_s))
    logs = np.log([float(statistic_of(runs, statistic)) for runs in arrays])
    return _student_below(logs, float(np.log(budget_s)))


def probability_ratio_within(sessions: Sequence[Sequence[int]], baseline: Sequence[Sequence[int]], factor: float,
                             statistic: str) -> float:
    """Return P(artifact <= factor x baseline), both measured in the same rounds, in turn.

    Student's t over the rounds' logarithmic ratios: what disturbs a whole round cancels. With one round,
    the bootstrap share of both artifacts' runs.
    """
    pairs = [(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
             for a, b in zip(sessions, baseline, strict=False) if len(a) and len(b)]
    if not pairs:
        raise ValueError("no rounds to compare")
    if len(pairs) == 1:
        rng = np.random.default_rng(0)
        ours, theirs = (_bootstrap(runs, statistic, rng) for runs in pairs[0])
        return float(np.mean(ours <= factor * theirs))
    logs = np.array([float(np.log(statistic_of(a, statistic) / statistic_of(b, statistic))) for a, b in pairs])
    return _student_below(logs, float(np.log(factor)))


def _bootstrap(runs: NDArray[np.float64], statistic: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the statistic of `RESAMPLES` resamples of one session's runs, (RESAMPLES,)."""
    return statistic_of(runs[rng.integers(0, len(runs), (RESAMPLES, len(runs)))], statistic)


def _student_below(values: NDArray[np.float64], limit: float) -> float:
    """Return P(mean <= limit); with values without spread, 0 or 1."""
    from scipy import stats

    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
    if spread == 0.0:
        return float(values.mean() <= limit)
    return float(stats.t.cdf((limit - float(values.mean())) / spread, len(values) - 1))


def _all(runs: NDArray[np.float64]) -> tuple[float, float, float, float]:
    median, p90, p99, mean = (float(statistic_of(runs, name)) for name in STATISTICS)
    return median, p90, p99, mean


def _t(quantile: float, freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(quantile, freedom))
