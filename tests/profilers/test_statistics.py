"""Figures against numpy and scipy, and their uncertainty against simulated boards of which the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from orchestrator.workbench import MIN_RUNS
from profilers.statistics import (
    QUANTILES,
    STATISTICS,
    probability_ratio_within,
    probability_within,
    statistic_of,
    summarise,
)

SEEDS = 300
TRUE_S = 1e-4
RUN_SPREAD = 0.05
SESSION_SPREAD = 0.01
MEAN_OF_RUNS = math.exp(RUN_SPREAD**2 / 2)
"""Mean over median of log-normal runs."""
Session = tuple[int, ...]
Runs = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""A distribution: a generator and a count to seconds."""
TAILS = [("p90", MIN_RUNS["p90"]), ("p99", MIN_RUNS["p99"])]


def session(rng: np.random.Generator, runs: int, true_s: float = TRUE_S, luck: float = 0.0) -> Session:
    """Log-normal runs of one process; their median is `true_s`, but for the process's own luck."""
    factor = 1 + luck * rng.standard_normal()
    return tuple(int(v) for v in 1e9 * true_s * factor * np.exp(RUN_SPREAD * rng.standard_normal(runs)))


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def long_tail(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return runs of which 3 in 100 are interrupted, their median about `TRUE_S`."""
    usual = np.exp(0.03 * rng.standard_normal(count))
    interrupted = rng.random(count) < 0.03
    return np.asarray(TRUE_S * np.where(interrupted, 1.3 * np.exp(0.1 * rng.standard_normal(count)), usual))


def log_normal(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return np.asarray(TRUE_S * np.exp(0.3 * rng.standard_normal(count)))


@cache
def true_quantile(runs: Runs, statistic: str) -> float:
    """Return a quantile of four million runs: surer than what is tested by far."""
    return float(np.quantile(runs(np.random.default_rng(99), 4_000_000), QUANTILES[statistic]))


def nanoseconds(runs: NDArray[np.float64]) -> Session:
    return tuple(np.rint(1e9 * runs).astype(int).tolist())


def test_statistics_are_numpys() -> None:
    rng = np.random.default_rng(0)
    runs = rng.integers(50_000, 90_000, 500)
    summary = summarise([tuple(int(r) for r in runs)])
    assert summary.median == pytest.approx(np.median(runs) * 1e-9)
    assert summary.mean == pytest.approx(np.mean(runs) * 1e-9)
    assert summary.p90 == pytest.approx(np.percentile(runs, 90, method="median_unbiased") * 1e-9)
    assert summary.p99 == pytest.approx(np.percentile(runs, 99, method="median_unbiased") * 1e-9)
    for name in STATISTICS:
        assert summary.value(name) == getattr(summary, name)
    with pytest.raises(ValueError, match="expected one of median, p90, p99, mean, got 'max'"):
        summary.value("max")


@pytest.mark.parametrize("statistic", STATISTICS)
def test_several_sessions_are_students(statistic: str) -> None:
    rng = np.random.default_rng(1)
    sessions = [session(rng, 80, luck=SESSION_SPREAD) for _ in range(7)]
    figures = [float(statistic_of(np.array(s, float), statistic)) * 1e-9 for s in sessions]
    summary = summarise(sessions, statistic)
    expected = stats.t.interval(0.95, len(figures) - 1, loc=np.mean(figures), scale=stats.sem(figures))
    assert summary.value(statistic) == pytest.approx(np.mean(figures))
    assert summary.ci95 == pytest.approx(expected)


def test_one_session_agrees_with_scipys_bootstrap() -> None:
    runs = session(np.random.default_rng(2), 100)
    expected = stats.bootstrap((np.array(runs) * 1e-9,), np.mean, method="percentile", n_resamples=4000,
                               rng=np.random.default_rng(3)).confidence_interval
    found = summarise([runs], "mean").ci95
    assert found == pytest.approx((expected.low, expected.high), rel=0.004)
    assert summarise([runs], "mean").ci95 == found, "the same samples must give the same report"


@pytest.mark.parametrize("statistic", QUANTILES)
@pytest.mark.parametrize("count", [100, 500, 1000])
def test_one_sessions_interval_agrees_with_scipys_quantile_test(statistic: str, count: int) -> None:
    runs = session(np.random.default_rng(2), count)
    expected = stats.quantile_test(np.array(runs) * 1e-9, p=QUANTILES[statistic]).confidence_interval(0.95)
    low, high = summarise([runs], statistic).ci95
    assert low == pytest.approx(expected.low)
    if math.isnan(expected.high):
        assert (statistic, count, high) == ("p99", 100, max(runs) * 1e-9), "no run is sure to be above p99"
    else:
        assert high == pytest.approx(expected.high)


@pytest.mark.parametrize(("statistic", "runs", "truth"), [
    ("median", 30, TRUE_S), ("median", 200, TRUE_S), ("mean", 200, TRUE_S * MEAN_OF_RUNS)])
def test_one_sessions_interval_holds_the_truth_95_times_in_100(statistic: str, runs: int, truth: float) -> None:
    hits = []
    for seed in range(SEEDS):
        low, high = summarise([session(np.random.default_rng(seed), runs)], statistic, seed).ci95
        hits.append(low <= truth <= high)
    assert 0.915 <= share(hits) <= 0.985


@pytest.mark.parametrize(("statistic", "sessions"), [("median", 2), ("median", 5), ("median", 15), ("mean", 5)])
def test_the_interval_of_several_sessions_holds_the_truth_95_times_in_100(statistic: str, sessions: int) -> None:
    truth = TRUE_S * (MEAN_OF_RUNS if statistic == "mean" else 1)
    hits = []
    for seed in range(2 * SEEDS):
        rng = np.random.default_rng(seed)
        low, high = summarise([session(rng, 40, luck=SESSION_SPREAD) for _ in range(sessions)], statistic).ci95
        hits.append(low <= truth <= high)
    assert 0.93 <= share(hits) <= 0.97


@pytest.mark.parametrize("runs", [log_normal, long_tail])
@pytest.mark.parametrize(("statistic", "count"), TAILS)
@pytest.mark.parametrize(("sessions", "luck"), [(1, 0.0), (5, 0.02), (15, 0.0)])
def test_intervals_of_tails_hold_the_truth_95_times_in_100(runs: Runs, statistic: str, count: int, sessions: int,
                                                           luck: float) -> None:
    """With as many runs as a search makes at least, and as many sessions as a confirmation."""
    truth, hits = true_quantile(runs, statistic), []
    rng = np.random.default_rng(10)
    for _ in range(SEEDS):
        drawn = [runs(rng, count) * (1 + luck * rng.standard_normal()) for _ in range(sessions)]
        low, high = summarise([nanoseconds(one) for one in drawn], statistic).ci95
        hits.append(low <= truth <= high)
    assert 0.92 <= share(hits) <= 0.995


@pytest.mark.parametrize(("statistic", "count"), TAILS)
@pytest.mark.parametrize("sessions", [1, 5, 15])
def test_a_tail_exactly_at_the_budget_passes_5_times_in_100(statistic: str, count: int, sessions: int) -> None:
    truth, rng, passed = true_quantile(long_tail, statistic), np.random.default_rng(11), []
    for _ in range(SEEDS):
        drawn = [nanoseconds(long_tail(rng, count)) for _ in range(sessions)]
        passed.append(probability_within(drawn, truth, statistic) >= 0.95)
    assert 0.01 <= share(passed) <= 0.09


def test_luck_of_processes_is_not_mistaken_for_precision() -> None:
    """Many runs of one process say nothing about the next process; sessions do."""
    rng = np.random.default_rng(4)
    sessions = [session(rng, 1000, luck=0.03) for _ in range(5)]
    pooled = summarise([tuple(run for runs in sessions for run in runs)]).ci95
    honest = summarise(sessions).ci95
    assert honest[1] - honest[0] > 4 * (pooled[1] - pooled[0])


def test_empty_sessions_count_for_nothing() -> None:
    runs = session(np.random.default_rng(5), 50)
    assert summarise([(), runs, ()]) == summarise([runs])
    with pytest.raises(ValueError, match="no samples to summarise"):
        summarise([(), ()])
    with pytest.raises(ValueError, match="no samples to judge by"):
        probability_within([()], 1.0, "median")
    with pytest.raises(ValueError, match="no rounds to compare"):
        probability_ratio_within([(), runs], [runs, ()], 1.0, "median")


def calibration(told: NDArray[np.float64], true: NDArray[np.bool_]) -> list[tuple[float, float, int]]:
    """Return (mean probability told, share that was true, number) by bins of the probability."""
    edges = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0001]
    found = []
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (told >= low) & (told < high)
        found.append((float(told[inside].mean()), float(true[inside].mean()), int(inside.sum())))
    return found


@pytest.mark.parametrize("relative", [False, True])
def test_a_probability_of_70_percent_is_right_70_times_in_100(relative: bool) -> None:
    """True latencies are drawn around the budget; the probability told must be the frequency found."""
    rng = np.random.default_rng(6)
    told, true = [], []
    for _ in range(1500):
        ratio = float(rng.uniform(0.97, 1.03))
        candidate, baseline = [], []
        for _ in range(5):
            shared = 1 + 0.05 * rng.standard_normal() if relative else 1.0
            candidate.append(session(rng, 25, 0.8 * TRUE_S * ratio * shared, SESSION_SPREAD))
            baseline.append(session(rng, 25, TRUE_S * shared, SESSION_SPREAD))
        if relative:
            told.append(probability_ratio_within(candidate, baseline, 0.8, "median"))
        else:
            told.append(probability_within(candidate, 0.8 * TRUE_S, "median"))
        true.append(ratio <= 1)
    for probability, frequency, count in calibration(np.array(told), np.array(true)):
        assert count > 50
        assert abs(probability - frequency) <= 3.5 * math.sqrt(0.25 / count), (probability, frequency, count)


@pytest.mark.parametrize("rounds", [5, 15])
def test_an_artifact_exactly_at_the_budget_passes_5_times_in_100(rounds: int) -> None:
    passed = []
    for seed in range(2 * SEEDS):
        rng = np.random.default_rng(seed)
        sessions = [session(rng, 25, luck=SESSION_SPREAD) for _ in range(rounds)]
        passed.append(probability_within(sessions, TRUE_S, "median") >= 0.95)
    assert 0.025 <= share(passed) <= 0.08


def test_a_clear_case_is_clear() -> None:
    rng = np.random.default_rng(7)
    fast, slow = ([session(rng, 30, factor * TRUE_S, SESSION_SPREAD) for _ in range(5)] for factor in (0.8, 1.2))
    for statistic in STATISTICS:
        assert probability_within(fast, TRUE_S, statistic) > 0.99 or statistic == "p99"
        assert probability_within(slow, TRUE_S, statistic) < 0.01
        assert probability_ratio_within(fast, slow, 1.0, statistic) > 0.99
        assert probability_ratio_within(slow, fast, 1.0, statistic) < 0.01


def test_what_disturbs_a_whole_round_cancels() -> None:
    """A board that is slower in some rounds hides a difference of 2 % from anyone who does not pair."""
    rng = np.random.default_rng(8)
    candidate, baseline = [], []
    for weather in np.linspace(0.9, 1.1, 9):
        candidate.append(session(rng, 100, 0.98 * TRUE_S * weather))
        baseline.append(session(rng, 100, TRUE_S * weather))
    assert probability_ratio_within(candidate, baseline, 1.0, "median") > 0.95
    assert 0.2 < probability_within(candidate, TRUE_S, "median") < 0.95


@pytest.mark.parametrize("relative", [False, True])
def test_one_round_is_not_a_certainty(relative: bool) -> None:
    """After an interrupt there may be one round only: a borderline case must not be told as sure."""
    rng = np.random.default_rng(9)
    ours, theirs = session(rng, 30, 0.999 * TRUE_S), session(rng, 30)
    if relative:
        found = probability_ratio_within([ours], [theirs], float(np.median(ours) / np.median(theirs)), "median")
    else:
        found = probability_within([ours], float(np.median(ours)) * 1e-9, "median")
    assert 0.2 < found < 0.8


def test_without_spread_the_answer_is_yes_or_no() -> None:
    """Simulated boards give the same time every time."""
    steady = [(100_000,) * 20] * 5
    assert probability_within(steady, 1.0001e-4, "median") == 1.0
    assert probability_within(steady, 0.9999e-4, "median") == 0.0
    assert probability_ratio_within(steady, steady, 1.0, "mean") == 1.0
    assert summarise(steady).ci95 == pytest.approx((1e-4, 1e-4))
