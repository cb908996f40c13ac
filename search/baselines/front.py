"""Walks along the front of an additive program: the best within a target, which moves with what was measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from search.adaptive.graph import Extra, Floats, Ints, Tables
from search.adaptive.memory import key_of
from search.adaptive.polish import Problem
from search.adaptive.solver import solve
from search.baselines.ledger import Ledger, Result

STEP = 0.01
"""By so much the target moves when its solution is known already."""
STEPS = 60
CAREFUL = 2
"""So many steps tighter for every miss while nothing has met the goal: what is chosen for being fast on paper is
slower than that."""


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
        self._newest: Result | None = None
        self._misses = 0
        self._own: set[bytes] = set()

    def propose(self) -> Ints | None:
        """Return the first fresh solution on the way; None when there is none within `STEPS`."""
        task, loss, costs, resources = self._ledger.task, self._loss(), self._costs(), self._resources()
        target_s, skipped = self._target_s(), 0
        toward = -1 if task.fastest else 1
        if self._newest is not None and not self._ledger.feasible(self._newest):
            toward = -toward
        if self._ledger.choice() is None and not task.fastest:
            toward, skipped = -1, min(CAREFUL * (1 + self._misses), STEPS // 2)
        for sign, steps in ((toward, range(skipped, STEPS)), (-toward, range(STEPS))):
            for step in steps:
                problem = self._problem(loss, costs, resources, target_s, (1 + STEP) ** (sign * step))
                found = solve(problem)
                if self._ledger.fresh(found[None])[0]:
                    self._own.add(key_of(found))
                    return found
                if sign < 0 < problem.excess(found[None])[0] or (sign > 0 and self._least(problem, found)):
                    break  # the front ends here
        return None

    def learn(self, config: Ints, result: Result | None) -> None:
        """Remember what was measured last, and how often a solution missed the goal."""
        if result is not None:
            self._newest = result
            self._misses += key_of(config) in self._own and not self._ledger.feasible(result)

    def _problem(self, loss: Floats, costs: Tables, resources: tuple[Extra, ...], target_s: float | None,
                 factor: float) -> Problem:
        graph = self._ledger.task.graph
        if target_s is None:  # only further resources limit: they are what the front is over
            return Problem(graph, loss, tuple(r.tables for r in resources), tuple(r.limit * factor for r in resources))
        limits = (target_s * factor / self._rate(costs), *(r.limit for r in resources))
        return Problem(graph, loss, (costs, *(r.tables for r in resources)), limits)

    @staticmethod
    def _least(problem: Problem, found: Ints) -> bool:
        """Tell whether no configuration at all loses less."""
        least = np.where(problem.graph.valid, problem.loss, np.inf).min(1).sum()
        return bool(problem.losses(found[None])[0] <= least + 1e-12)

    def _target_s(self) -> float | None:
        """Return the latency to solve for first."""
        task, best = self._ledger.task, self._ledger.best()
        if task.budget_s is not None or not task.fastest:
            return task.budget_s
        return float(task.prior.total(task.int8[None])[0]) if best is None else best.latency_s

    def _rate(self, costs: Tables) -> float:
        """Return the newest measurement as a multiple of its costs; 1 before."""
        if self._newest is None:
            return 1.0
        return self._newest.latency_s / float(costs.total(self._newest.picks[None])[0])
