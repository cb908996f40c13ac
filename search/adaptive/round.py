"""One round: what should be looked at by the host, from what is believed and known by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search.adaptive.correction import corrected
from search.adaptive.graph import Extra, Floats, Graph, Ints, unique
from search.adaptive.judge import Aim, Judge
from search.adaptive.memory import Memory, key_of
from search.adaptive.polish import Problem
from search.adaptive.quality import Sensitivity
from search.adaptive.solver import solve_all

DRAWS = 2
TARGETS = (0.975, 0.99, 1.005)
"""Budgets that are solved for, relative to the real one."""
CAUTIOUS = (0.88, 0.94, 0.98)
"""The same while nothing is known to meet the budget."""
SHRINK = (0.97, 0.9, 0.75, 0.55)
"""Where the least latency is looked for: budgets relative to the incumbent's latency."""
SPREAD = 5
"""Points of the front that are solved for in one round."""
FAST = 0.8
"""Where the front may begin: relative to the least latency that is believed of what the host knows."""
TRUST = (0.0, 0.5, 2.0)
"""Penalties on leaving the incumbent, in its own mean divergence per site."""
DOUBT = 0.4
"""Spread of the factors by which a draw's divergences differ from the tables'."""
CROSSED = 1500
"""Children of the best that are screened by the tables in a round."""
SCREENED = 40
"""Of these, those whose divergence is computed."""
PARENTS = 12
ELIGIBLE = 300
"""Most accurate configurations among which the parents are chosen."""


@dataclass(frozen=True)
class Round:
    """What is believed and known; nothing of it changes until the host has answered."""

    graph: Graph
    judge: Judge
    memory: Memory
    around: Sequence[Sensitivity]
    """Tables that are solved with beside the first."""
    extra: Sequence[Extra]
    floating: Ints
    """The configuration that is float32."""
    number: int
    """Of readings."""
    settled: Ints | None = None
    """The incumbent, where nothing that the host knows promises more."""

    @cached_property
    def known(self) -> tuple[Ints, Floats]:
        """Configurations whose accuracy the host knows, and it."""
        return self.memory.known()

    @cached_property
    def corrected(self) -> Sensitivity:
        """The newest table, corrected by the accuracies that the host has computed."""
        table = self.memory.tables[-1]
        return Sensitivity(table.center, table.base, corrected(self.graph, table, *self.known))

    @cached_property
    def seen(self) -> frozenset[bytes]:
        """Combinations of levels whose accuracy the host knows."""
        return frozenset(self.graph.levels_of(config) for config in [*self.known[0], self.floating])

    def pool(self, rng: np.random.Generator) -> Ints:
        """Solve for the mean and for draws, and cross what is good already."""
        posterior, targets = self.judge.posterior, self._targets
        tables = [posterior.tables(), *(posterior.tables(posterior.draw(rng)) for _ in range(DRAWS))]
        around, losses = self.memory.tables[-1].center, self._losses()
        beside, limits = tuple(e.tables for e in self.extra), tuple(e.limit for e in self.extra)
        problems = [Problem(self.graph, loss, (tables[0], *beside), (target, *limits), around)
                    for target in targets for loss in losses]
        for table in tables[1:]:
            doubted = [loss * rng.lognormal(0, DOUBT, loss.shape) for loss in losses]
            problems += [Problem(self.graph, loss, (table, *beside), (target, *limits), around, roughly=True)
                         for target in targets[1:2] for loss in doubted]
        return unique(np.concatenate([solve_all(problems), self._cross(rng), self._flips()]))

    def corrected_divergence(self, configs: Ints, divergence: Floats) -> Floats:
        """Return measured divergences, corrected as the table is: (configurations,)."""
        table: Floats = self.memory.tables[-1].predict(configs)
        return divergence + self.corrected.predict(configs) - table

    def fresh_levels(self, configs: Ints) -> list[bool]:
        """Tell which configurations have a combination of levels whose divergence is not known yet."""
        seen, found = set(self.seen), []
        for config in configs:
            levels = self.graph.levels_of(config)
            found.append(levels not in seen)
            seen.add(levels)
        return found

    def few_levels(self, configs: Ints, order: Ints, most: float) -> Ints:
        """Keep the order, but no more than `most` combinations of levels that the host has not seen yet."""
        fresh: set[bytes] = set()
        kept = []
        for row in order:
            levels = self.graph.levels_of(configs[row])
            if levels not in self.seen and levels not in fresh:
                if len(fresh) >= most:
                    continue
                fresh.add(levels)
            kept.append(row)
        return np.array(kept, np.int64)

    def spread_out(self, configs: Ints, divergence: Floats, count: int) -> Ints:
        """Return the rows with the least divergence in each of as many stretches of latency as are evaluated."""
        times = self.judge.posterior.predict(configs)[0]
        stretches = np.array_split(np.argsort(times, kind="stable"), min(count, len(configs)))
        return np.array([rows[np.argmin(divergence[rows])] for rows in stretches], np.int64)

    @cached_property
    def _targets(self) -> tuple[float, ...]:
        """Latencies (s) to solve for."""
        best, budget_s = self.judge.incumbent(), self.judge.budget_s or np.inf
        if self.judge.aim is Aim.ACCURATE:
            return tuple(t * budget_s for t in (CAUTIOUS if best is None else TARGETS))
        if self.judge.aim is Aim.FRONT:
            return self._spread()
        start = self.floating if best is None else best
        now = min(self.judge.fastest_s(start), budget_s)
        return tuple(shrink * now for shrink in SHRINK)

    def _spread(self) -> tuple[float, ...]:
        """Return latencies over the whole front, others in every round."""
        configs, accuracy = self.known
        configs = np.concatenate([configs[np.isfinite(accuracy)], self.floating[None]])
        times = self.judge.posterior.predict(configs)[0]
        low, high = FAST * float(times.min()), min(float(times.max()), self.judge.budget_s or np.inf)
        shift = (0.5 + self.number * 0.618) % 1.0
        return tuple(float(low * (high / low) ** ((n + shift) / SPREAD)) for n in range(SPREAD))

    def _losses(self) -> list[Floats]:
        """Return the additive losses to solve for."""
        found = [self.memory.tables[0].table]
        for table in self.around:
            stay = np.ones(table.table.shape)
            stay[np.arange(self.graph.length), table.center] = 0.0
            scale = abs(table.base) / self.graph.length
            found.extend(table.table + trust * scale * stay for trust in TRUST)
        if self.around:
            found.append(self.corrected.table)
        return found

    def _flips(self) -> Ints:
        """Return the incumbent with another option of the same level at one site, where nothing promises more."""
        best, levels = self.settled, self.graph.levels
        if best is None:
            return np.zeros((0, self.graph.length), np.int64)
        found = [np.where(np.arange(self.graph.length) == site, option, best) for site in self.graph.timed
                 for option in np.flatnonzero(self.graph.valid[site] & (levels[site] == levels[site, best[site]]))]
        return np.array(found, np.int64)

    def _cross(self, rng: np.random.Generator) -> Ints:
        """Return children of the best known configurations that should meet the budget, the most promising ones."""
        configs, accuracy = self.known
        if not len(configs):
            return configs
        order = np.argsort(-np.where(np.isfinite(accuracy), accuracy, -np.inf), kind="stable")[:ELIGIBLE]
        configs, accuracy = configs[order], accuracy[order]
        score = np.where(np.isfinite(accuracy), accuracy * self.judge.probability(configs), -np.inf)
        parents = configs[np.argsort(-score, kind="stable")[:PARENTS]]
        one, two = parents[rng.integers(len(parents), size=CROSSED)], parents[rng.integers(len(parents), size=CROSSED)]
        children = np.where(rng.random(one.shape) < rng.choice([0.0, 0.2, 0.5], size=(CROSSED, 1)), two, one)
        changes = rng.random(one.shape) < rng.choice([0.0, 1.5, 3.0], size=(CROSSED, 1)) / self.graph.length
        counts = np.array([len(site.options) for site in self.graph.sites])
        children = np.where(changes, rng.integers(0, counts[None], size=one.shape), children)
        children = unique(self.graph.settle(children))
        within = self.judge.posterior.tables().total(children) <= max(self._targets)
        for resource in self.extra:
            within &= resource.tables.total(children) <= resource.limit
        timed = self.graph.timed  # a child that differs from a known one in free sites alone is its twin
        known = set(map(key_of, self.known[0][:, timed]))
        within &= np.array([key_of(c) not in known for c in children[:, timed]], bool)
        children = children[within]
        found: Ints = children[np.argsort(self.corrected.predict(children), kind="stable")[:SCREENED]]
        return found
