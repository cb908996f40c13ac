"""Plugs searchers into the search exam: `python score.py search_adapter.py:NAME` (see docs/search.md).

`search` (or `adaptive`) is the engine with the exam's own rules; every other name is a sampler's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.exam import TIMER_S, Exam
from search.adaptive.engine import Engine
from search.adaptive.graph import Ints
from search.adaptive.latency import LatencyModel
from search.adaptive.memory import key_of
from search.baselines.baseline import Baseline
from search.baselines.wiring import make_searcher
from search.proposers.adaptive import CONFIDENCE

HOPEFUL = 0.7
"""Probability to meet the budget from which on a candidate is measured again, to become sure of it."""
REPEATS = 3
"""Measurements that are kept for the finalists."""
MARGIN = 0.1
"""Accuracies are in percent."""
SEEDED = ("tpe", "nsga2", "gp", "random", "quantune")
"""What knows neither prior nor divergence starts with uniform int8 at every pruning level, until one meets the budget:
there is nothing else in reach of chance that does."""

Search = Callable[[Any, int, np.random.Generator], Ints | None]


def search(problem: Any, measurements: int, rng: np.random.Generator) -> Ints | None:
    """Search with the adaptive engine; return what it would ship.

    Uniform int8 is profiled first, a surprising reading is repeated, the last measurements certify the finalists.
    """
    exam = Exam(problem)
    engine = Engine(LatencyModel(exam.prior()), exam.divergence, exam.accuracy, problem.budget, exam.floating,
                    int(rng.integers(1 << 31)), margin=MARGIN)
    times, _, _ = problem.measure_profiled(exam.config(exam.int8))
    engine.tell_profile(exam.int8, times, TIMER_S)
    engine.blocked.add(key_of(exam.int8))

    def measure(picks: Ints) -> None:
        latency, _, _ = problem.measure(exam.config(picks))
        repeat = problem.n_meas < measurements and engine.model.surprising(picks, latency)
        if repeat:
            latency = min(latency, problem.measure(exam.config(picks))[0])
        engine.tell(picks, latency, None, confirmed=repeat)

    while problem.n_meas < measurements - REPEATS:
        picks = engine.propose()
        if picks is None:
            break
        measure(picks)
    while problem.n_meas < measurements:
        judge = engine.judge()
        hopeful, sure = judge.incumbent(HOPEFUL), judge.incumbent(CONFIDENCE)
        repeat = hopeful is not None and (sure is None or not np.array_equal(hopeful, sure))
        next_one = hopeful if repeat else engine.propose()
        if next_one is None:
            break
        measure(next_one)
    choice = engine.judge().incumbent(CONFIDENCE)
    return None if choice is None else exam.config(choice)


def search_with(name: str) -> Search:
    """Return the exam's search of a sampler, `adaptive` with its own rules."""
    if name == "adaptive":
        return search

    def searched(problem: Any, measurements: int, rng: np.random.Generator) -> Ints | None:
        """Search with a baseline: uniform int8 is profiled first, the last measurements repeat what it would ship."""
        exam = Exam(problem)
        searcher = make_searcher(name, exam.task(int(rng.integers(1 << 31))))
        sites = searcher.sites if isinstance(searcher, Baseline) else None

        def measure(picks: Ints, profiled: bool) -> None:
            if profiled:
                times = problem.measure_profiled(exam.config(picks))[0] - TIMER_S
                latency = float(times.sum())
                if sites is not None:
                    sites.tell_profile(picks, times)
            else:
                latency = problem.measure(exam.config(picks))[0]
            searcher.tell(picks, latency, float(exam.accuracy(picks[None])[0]), {})

        measure(exam.int8, True)
        for picks in exam.pruned() if name in SEEDED else ():
            if searcher.choice() is None and problem.n_meas < measurements:
                measure(picks, False)
        while problem.n_meas < measurements:
            last = searcher.choice() if problem.n_meas >= measurements - REPEATS else None
            new = searcher.propose() if last is None else None
            if last is not None:
                measure(last, False)
            elif new is not None:
                measure(new, sites is not None and sites.wants_profile(new))
            else:
                break
        choice = searcher.choice()
        return None if choice is None else exam.config(choice)

    return searched


def __getattr__(name: str) -> Search:
    """Return the search of a sampler by its name: score.py asks this module for the attribute NAME."""
    from search.samplers import SAMPLERS

    if name not in SAMPLERS:
        raise AttributeError(f"no sampler is called {name!r}; known: search, {', '.join(SAMPLERS)}")
    return search_with(name)
