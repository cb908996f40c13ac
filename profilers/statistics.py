"""From raw samples to the figures that are reported, each with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STATISTICS = ("median", "p90", "p99", "mean")
QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99}
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
    """Return one of `STATISTICS` along an axis.

    Quantiles are median-unbiased for any distribution (Hyndman and Fan 1996, Sample Quantiles in Statistical
    Packages, definition 8). The usual linear interpolation puts p99 too low, and averaging sessions does not
    mend that: the more sessions, the surer the wrong answer.
    """
    if statistic == "mean":
        return np.asarray(samples.mean(axis=axis))
    return np.asarray(np.quantile(samples, QUANTILES[statistic], axis=axis, method="median_unbiased"))


def summarise(sessions: Sequence[Sequence[int]], statistic: str = "median", seed: int = 0) -> LatencySummary:
    """Summarise wall times of one or several sessions (fresh processes).

    One session: the interval of a quantile lies between two of the sorted runs (Conover 1999, Practical
    Nonparametric Statistics, section 3.2), that of the mean is a bootstrap (Efron 1979, percentile method).
    Several: runs of one process share its luck with memory and caches, so the sessions are the sample: each
    figure is the mean of the sessions' figures, and the interval is Student's.

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
        return LatencySummary(*_all(runs), _interval_of_one(runs, statistic, np.random.default_rng(seed)))
    table = np.array([_all(runs) for runs in arrays])
    median, p90, p99, mean = (float(value) for value in table.mean(axis=0))
    values = table[:, STATISTICS.index(statistic)]
    half = _t(0.975, len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    middle = float(values.mean())
    return LatencySummary(median, p90, p99, mean, (middle - half, middle + half))


def probability_within(sessions: Sequence[Sequence[int]], budget_s: float, statistic: str,
                       bias: float = 0.0) -> float:
    """Return P(the statistic of this artifact on this board <= budget), given interleaved sessions.

    Student's t over the logarithms of the sessions' statistics: the posterior of the mean under a
    flat prior (Gelman et al., Bayesian Data Analysis, section 3.2). With one session: for a quantile, the
    posterior of the share of runs within the budget, under Jeffreys' prior (Brown, Cai and DasGupta 2001,
    Interval Estimation for a Binomial Proportion); for the mean, the bootstrap's share.

    Args:
        sessions: wall times (ns) of each round.
        budget_s: seconds.
        statistic: of `STATISTICS`.
        bias: relative standard deviation of what all rounds of one confirmation share and no repeat shows; added as
            a standard uncertainty of its own (JCGM 100:2008, GUM, equation G.2b for the degrees of freedom).
    """
    arrays = [np.asarray(s, dtype=np.float64) * 1e-9 for s in sessions if len(s)]
    if not arrays:
        raise ValueError("no samples to judge by")
    if len(arrays) == 1:
        return _probability_of_one(arrays[0], budget_s, statistic)
    logs = np.log([float(statistic_of(runs, statistic)) for runs in arrays])
    return _student_below(logs, float(np.log(budget_s)), bias)


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


def _interval_of_one(runs: NDArray[np.float64], statistic: str, rng: np.random.Generator) -> tuple[float, float]:
    """Return an interval that holds the truth at least 95 times in 100.

    The k-th smallest of n runs is below the q-quantile when at least k runs are, and their number is
    binomial (n, q). Below 6 runs for the median, 36 for p90 and 368 for p99 no run is extreme enough: then
    the shortest or the longest stands in, and the interval holds the truth less often.
    """
    from scipy import stats

    if statistic == "mean":
        low, high = np.quantile(_bootstrap(runs, statistic, rng), (0.025, 0.975))
        return float(low), float(high)
    count = len(runs)
    first, last = stats.binom.ppf((0.025, 0.975), count, QUANTILES[statistic])
    ordered = np.sort(runs)
    return float(ordered[max(int(first), 1) - 1]), float(ordered[min(int(last) + 1, count) - 1])


def _probability_of_one(runs: NDArray[np.float64], budget_s: float, statistic: str) -> float:
    from scipy import stats

    if statistic == "mean":
        return float(np.mean(_bootstrap(runs, statistic, np.random.default_rng(0)) <= budget_s))
    within = int((runs <= budget_s).sum())
    return float(stats.beta.sf(QUANTILES[statistic], within + 0.5, len(runs) - within + 0.5))


def _bootstrap(runs: NDArray[np.float64], statistic: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the statistic of `RESAMPLES` resamples of one session's runs, (RESAMPLES,)."""
    return statistic_of(runs[rng.integers(0, len(runs), (RESAMPLES, len(runs)))], statistic)


def _student_below(values: NDArray[np.float64], limit: float, bias: float = 0.0) -> float:
    """Return P(mean <= limit); with values without spread or bias, 0 or 1."""
    from scipy import stats

    own = float(np.var(values, ddof=1)) / len(values)
    spread = (own + bias ** 2) ** 0.5
    if spread == 0.0:
        return float(values.mean() <= limit)
    distance = (limit - float(values.mean())) / spread
    if own == 0.0:
        return float(stats.norm.cdf(distance))
    return float(stats.t.cdf(distance, (len(values) - 1) * (spread ** 2 / own) ** 2))


def _all(runs: NDArray[np.float64]) -> tuple[float, float, float, float]:
    median, p90, p99, mean = (float(statistic_of(runs, name)) for name in STATISTICS)
    return median, p90, p99, mean


def _t(quantile: float, freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(quantile, freedom))
