"""Walks along the front of an additive program: the best within a target, which moves with what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from search.adaptive.engine import Extra
from search.adaptive.graph import Floats, Ints, Tables
from search.adaptive.memory import key_of
from search.adaptive.polish import Problem
from search.adaptive.solver import solve
from search.baselines.ledger import Ledger, Result

STEP = 0.01
"""By so much the target moves when its solution is known already."""
STEPS = 60
HEED = 1
"""The newest measurements that say by which factor the costs are wrong."""


class Front:
    """Solves for the latency budget, with the costs rescaled to what was measured, and moves on from there.

    Where the newest measurement met the goal the target widens (where the fastest is asked for: tightens), else the
    other way, step by step until the solution is fresh; then the other side is looked at.

    Args:
        ledger: what is known.
        loss: returns the additive loss: (sites, width).
        costs: returns seconds of every option and conversion; only their proportions count.
        resources: returns further resources; None: the task's own.
    """

    def __init__(self, ledger: Ledger, loss: Callable[[], Floats], costs: Callable[[], Tables],
                 resources: Callable[[], tuple[Extra, ...]] | None = None) -> None:
        self._ledger, self._loss, self._costs = ledger, loss, costs
        self._resources = resources or ledger.task.limits
        self._order: list[bytes] = []

    def propose(self) -> Ints | None:
        """Return the first fresh solution on the way; None when there is none within `STEPS`."""
        loss, costs, resources = self._loss(), self._costs(), self._resources()
        target_s = self._target_s()
        wider = not self._ledger.task.fastest
        if self._order:
            wider = self._ledger.feasible(self._ledger.results[self._order[-1]]) != self._ledger.task.fastest
        for sign in (1, -1) if wider else (-1, 1):
            for step in range(STEPS):
                factor = (1 + STEP) ** (sign * step)
                found = self._solution(loss, costs, resources, target_s, factor)
                if self._ledger.fresh(found[None])[0]:
                    return found
        return None

    def learn(self, config: Ints, result: Result | None) -> None:
        """Remember in which order configurations were measured."""
        key = key_of(config)
        if result is not None:
            self._order = [*(k for k in self._order if k != key), key]

    def _solution(self, loss: Floats, costs: Tables, resources: tuple[Extra, ...], target_s: float | None,
                  factor: float) -> Ints:
        graph = self._ledger.task.graph
        if target_s is None:  # only further resources limit: they are what the front is over
            return solve(Problem(graph, loss, tuple(r.tables for r in resources),
                                 tuple(r.limit * factor for r in resources)))
        limits = (target_s * factor / self._rate(costs), *(r.limit for r in resources))
        return solve(Problem(graph, loss, (costs, *(r.tables for r in resources)), limits))

    def _target_s(self) -> float | None:
        """Return the latency to solve for first."""
        task, best = self._ledger.task, self._ledger.best()
        if task.budget_s is not None or not task.fastest:
            return task.budget_s
        return float(task.prior.total(task.int8[None])[0]) if best is None else best.latency_s

    def _rate(self, costs: Tables) -> float:
        """Return what was measured as a multiple of the costs, in the median of the newest; 1 before."""
        newest = [self._ledger.results[key] for key in self._order[-HEED:]]
        if not newest:
            return 1.0
        return statistics.median(r.latency_s / float(costs.total(r.picks[None])[0]) for r in newest)
