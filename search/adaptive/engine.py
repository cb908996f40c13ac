"""Solve, measure, correct, solve again: proposes the configuration that a board should measure next.

Every round: the latency model's mean and a few draws from it give corrected costs; the solver finds the least
divergence within the budget for each; the host evaluates the accuracy of what is new; the board gets the
configuration with the largest expected gain times the probability that it meets the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, product

import numpy as np

from search.adaptive.correction import corrected
from search.adaptive.graph import Floats, Graph, Ints, Tables, unique
from search.adaptive.judge import LEAST_PROBABILITY, Aim, Judge, Outlook
from search.adaptive.latency import LatencyModel, Profile, Reading
from search.adaptive.memory import Memory, News, configs_of, key_of
from search.adaptive.polish import Problem
from search.adaptive.posterior import Posterior
from search.adaptive.quality import Divergence, Sensitivity, probes
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
INNER = 2
"""Sensitivity tables that are taken anew in a round, each around the best that the last one led to."""
DOUBT = 0.4
"""Spread of the factors by which a draw's divergences differ from the tables'."""
KEPT = 2
"""Tables around former centers that are still solved with."""
EVALUATIONS = 14
"""Configurations whose accuracy the host computes after each table."""
CROSSED = 1500
"""Children of the best that are screened by the tables in a round."""
SCREENED = 40
"""Of these, those whose divergence is computed."""
PARENTS = 12
ELIGIBLE = 300
"""Most accurate configurations among which the parents are chosen."""
SCAN = 5000
SURPRISE = 2.0
"""Standard deviations."""
MARGIN = 0.001
"""What counts as an improvement: 0.1 points, or 0.1 % of the latency."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A further additive resource, e.g. the size of the artifact in bytes."""

    tables: Tables
    limit: float


@dataclass
class Engine:
    """Proposes for one latency budget.

    Args:
        model: what is believed of the boards.
        divergence: from float32, of batches of configurations; cheap.
        accuracy: of batches of configurations, on the host; dearer. NaN where a configuration is infeasible.
        budget_s: the latency that must not be exceeded; None: there is no such limit.
        floating: the configuration that is float32.
        seed: of the draws.
        extra: further resources with limits.
        aim: what is looked for.
        passes: calibration passes that the host has time for while one measurement is made: tables around new
            centers and the screening wait until they are affordable.
        evaluations: configurations whose accuracy the host computes after each table.
        margin: what counts as an improvement, in the unit of `accuracy`.
        narrowing: what the divergence of a new combination of levels costs beside, in passes.
        conversions: new combinations of levels whose accuracy the host computes after each table.
    """

    model: LatencyModel
    divergence: Divergence
    accuracy: Callable[[Ints], Floats]
    budget_s: float | None
    floating: Ints
    seed: int
    extra: Sequence[Extra] = ()
    aim: Aim = Aim.ACCURATE
    passes: float = np.inf
    evaluations: int = EVALUATIONS
    margin: float = MARGIN
    narrowing: float = 0.0
    conversions: float = np.inf
    measured: dict[bytes, list[float]] = field(default_factory=dict)
    """Configuration -> its readings, seconds."""
    blocked: set[bytes] = field(default_factory=set)
    """Configurations that are under way or infeasible."""
    outlook: Outlook | None = None
    """What the last proposal is expected to bring."""

    def __post_init__(self) -> None:
        self.memory = Memory(self.graph)

    @property
    def graph(self) -> Graph:
        return self.model.graph

    def tell(self, config: Ints, latency_s: float, accuracy: float | None,
             confirmed: bool = False) -> None:
        """Take in a measurement; `accuracy` as the host computes it. A confirmed one is no spike."""
        key = key_of(config)
        self.measured.setdefault(key, []).append(latency_s)
        self.blocked.discard(key)
        if accuracy is not None:
            self.memory.accuracy[key] = accuracy
        self.model.readings.append(Reading(tuple(int(o) for o in config), latency_s, confirmed))

    def tell_profile(self, config: Ints, site_s: Floats, timer_s: float) -> None:
        """Take in the time of every site of one configuration."""
        self.model.profiles.append(Profile(tuple(int(o) for o in config), tuple(float(t) for t in site_s), timer_s))

    def tell_infeasible(self, config: Ints) -> None:
        """A configuration can never be measured."""
        self.blocked.add(key_of(config))

    def learn(self, news: News) -> None:
        """Take in what an earlier proposal of the same study made the host find out (see `news`)."""
        self.memory.learn(news)

    def news(self) -> News:
        """Return what the host has found out since the last call: with it a replayed study proposes the same."""
        return self.memory.news()

    def propose(self) -> Ints | None:
        """Return what to measure next, never the same twice; None when nothing new is left."""
        posterior = self.model.posterior()
        rng = np.random.default_rng([self.seed, len(self.model.readings), len(self.blocked)])
        for _ in range(INNER):
            fresh_table = self._linearise(posterior)
            self._evaluate(self._screen(self._pool(posterior, rng), posterior))
            if not fresh_table:
                break
        pool, accuracy = self.memory.known()
        free = np.array([k not in self.measured and k not in self.blocked for k in map(key_of, pool)], bool)
        runs = free & np.isfinite(accuracy)
        pool = pool[runs if runs.any() else free]
        judge = self.judge(posterior)
        self.outlook = judge.outlook(pool, self.margin)
        return judge.choose(pool) if len(pool) else self._any_left()

    def exhausted(self) -> bool:
        """Tell whether every configuration was measured, is under way or infeasible."""
        return self._any_left() is None

    def surprising(self, config: Ints, latency_s: float) -> bool:
        """Tell whether a reading is so much slower than expected that it should be repeated before it is believed."""
        posterior = self.model.posterior()
        mean, deviation = (float(value[0]) for value in posterior.predict(config[None]))
        spread = float(np.hypot(deviation, posterior.noise * mean))
        return latency_s > mean + SURPRISE * spread

    def judge(self, posterior: Posterior | None = None) -> Judge:
        """Return what is believed now."""
        return Judge(posterior or self.model.posterior(), self.aim, self.budget_s, self.memory.accuracy,
                     configs_of([*self.measured], self.graph.length))

    def _linearise(self, posterior: Posterior) -> bool:
        """Take a sensitivity table around float32 once, then around the best that is known; tell whether one was."""
        if not self.memory.tables:
            self.memory.take_table(self.divergence, self.floating, floating=True)
        center = self._center(posterior)
        if center is None or any(np.array_equal(table.center, center) for table in self._around()):
            return False
        if self._credit() < self._price(center):
            return False
        self.memory.take_table(self.divergence, center)
        self.memory.note_passes(int(self.narrowing * self._widenings))
        return True

    def _around(self) -> list[Sensitivity]:
        """Return the tables that are solved with beside the first."""
        return self.memory.tables[1:][-KEPT:]

    def _credit(self) -> float:
        """Return how many calibration passes the host has time for."""
        return self.passes * (1 + len(self.model.readings)) - self.memory.passes

    def _price(self, center: Ints) -> float:
        """Return what a sensitivity table costs, in passes."""
        return len(probes(self.graph, center)) + self.narrowing * self._widenings

    @cached_property
    def _widenings(self) -> int:
        """How many single changes of a level there are."""
        return sum(len({option.level for option in site.options}) - 1
                   for index, site in enumerate(self.graph.sites) if self.graph.leaders[index] == index)

    def _center(self, posterior: Posterior) -> Ints | None:
        """Return the best configuration that the host knows and that probably meets the budget.

        On the front, one point of it after the other.
        """
        configs, accuracy = self.memory.known()
        judge = self.judge(posterior)
        if self.aim is not Aim.FRONT or not len(configs):
            return judge.best(configs, accuracy, 0.5)
        usable = np.isfinite(accuracy) & (judge.probability(configs) >= 0.5)
        if not usable.any():
            return None
        times = posterior.predict(configs)[0]
        slots = np.geomspace(times[usable].min(), times[usable].max(), SPREAD + 1)
        most = slots[1 + len(self.model.readings) % SPREAD]
        found: Ints = configs[np.argmax(np.where(usable & (times <= most * (1 + 1e-9)), accuracy, -np.inf))]
        return found

    def _pool(self, posterior: Posterior, rng: np.random.Generator) -> Ints:
        """Solve for the mean and for draws, and cross what is good already."""
        targets = self._targets(posterior)
        tables = [posterior.tables(), *(posterior.tables(posterior.draw(rng)) for _ in range(DRAWS))]
        around, losses = self.memory.tables[-1].center, self._losses()
        beside, limits = tuple(e.tables for e in self.extra), tuple(e.limit for e in self.extra)
        problems = [Problem(self.graph, loss, (tables[0], *beside), (target, *limits), around)
                    for target in targets for loss in losses]
        for table in tables[1:]:
            doubted = [loss * rng.lognormal(0, DOUBT, loss.shape) for loss in losses]
            problems += [Problem(self.graph, loss, (table, *beside), (target, *limits), around)
                         for target in targets[1:2] for loss in doubted]
        crossed = self._cross(posterior, rng, max(targets))
        return unique(np.concatenate([solve_all(problems), crossed]))

    def _targets(self, posterior: Posterior) -> tuple[float, ...]:
        """Return the latencies (s) to solve for."""
        best = self.judge(posterior).incumbent()
        if self.aim is Aim.ACCURATE:
            return tuple(t * (self.budget_s or np.inf) for t in (CAUTIOUS if best is None else TARGETS))
        if self.aim is Aim.FRONT:
            return self._spread(posterior)
        start = self.floating if best is None else best
        now = min(float(posterior.predict(start[None])[0][0]), self.budget_s or np.inf)
        return tuple(shrink * now for shrink in SHRINK)

    def _spread(self, posterior: Posterior) -> tuple[float, ...]:
        """Return latencies over the whole front, others in every round."""
        configs, accuracy = self.memory.known()
        configs = np.concatenate([configs[np.isfinite(accuracy)], self.floating[None]])
        times = posterior.predict(configs)[0]
        low, high = FAST * float(times.min()), min(float(times.max()), self.budget_s or np.inf)
        shift = (0.5 + len(self.model.readings) * 0.618) % 1.0
        return tuple(float(low * (high / low) ** ((n + shift) / SPREAD)) for n in range(SPREAD))

    def _losses(self) -> list[Floats]:
        """Return the additive losses to solve for."""
        found, around = [self.memory.tables[0].table], self._around()
        for table in around:
            stay = np.ones(table.table.shape)
            stay[np.arange(self.graph.length), table.center] = 0.0
            scale = abs(table.base) / self.graph.length
            found.extend(table.table + trust * scale * stay for trust in TRUST)
        if around:
            found.append(self._corrected().table)
        return found

    def _corrected(self) -> Sensitivity:
        """Return the newest table, corrected by the accuracies that the host has computed."""
        table = self.memory.tables[-1]
        configs, accuracy = self.memory.known()
        return Sensitivity(table.center, table.base, corrected(self.graph, table, configs, accuracy))

    def _cross(self, posterior: Posterior, rng: np.random.Generator, most: float) -> Ints:
        """Return children of the best known configurations that should meet the budget, the most promising ones."""
        configs, accuracy = self.memory.known()
        if not len(configs):
            return configs
        order = np.argsort(-np.where(np.isfinite(accuracy), accuracy, -np.inf), kind="stable")[:ELIGIBLE]
        configs, accuracy = configs[order], accuracy[order]
        score = np.where(np.isfinite(accuracy), accuracy, -np.inf) * self.judge(posterior).probability(configs)
        parents = configs[np.argsort(-score, kind="stable")[:PARENTS]]
        one, two = parents[rng.integers(len(parents), size=CROSSED)], parents[rng.integers(len(parents), size=CROSSED)]
        children = np.where(rng.random(one.shape) < rng.choice([0.0, 0.2, 0.5], size=(CROSSED, 1)), two, one)
        changes = rng.random(one.shape) < rng.choice([0.0, 1.5, 3.0], size=(CROSSED, 1)) / self.graph.length
        counts = np.array([len(site.options) for site in self.graph.sites])
        children = np.where(changes, rng.integers(0, counts[None], size=one.shape), children)
        children = unique(self.graph.settle(children))
        within = posterior.tables().total(children) <= most
        for resource in self.extra:
            within &= resource.tables.total(children) <= resource.limit
        within &= np.array([key_of(c) not in self.memory.accuracy for c in children], bool)
        children = children[within]
        found: Ints = children[np.argsort(self._corrected().predict(children), kind="stable")[:SCREENED]]
        return found

    def _screen(self, pool: Ints, posterior: Posterior) -> Ints:
        """Keep the new configurations whose divergence and chance promise most."""
        new = [key_of(c) not in self.memory.accuracy and key_of(c) not in self.blocked for c in pool]
        configs: Ints = pool[np.array(new, bool)]
        if not len(configs):
            return configs
        chance = self.judge(posterior).probability(configs)
        table, better = self.memory.tables[-1], self._corrected()
        predicted = better.predict(configs)
        order = np.argsort(np.where(chance >= LEAST_PROBABILITY / 2, predicted, np.inf), kind="stable")
        prices = np.cumsum([1 + self.narrowing * fresh for fresh in self._fresh_levels(configs[order])])
        kept = order[:max(self.evaluations, int((prices <= self._credit()).sum()))]
        configs, chance = configs[kept], chance[kept]
        divergence = self.divergence(configs) + better.predict(configs) - table.predict(configs)
        self.memory.note_passes(int(prices[len(kept) - 1]))
        if self.aim is Aim.FRONT:
            order = self._spread_out(posterior, configs, divergence)
        else:
            rank = np.where(chance >= LEAST_PROBABILITY / 2, divergence, np.inf)
            order = self._few_levels(configs, np.argsort(rank, kind="stable"))[:self.evaluations]
        found: Ints = configs[order]
        return found

    def _fresh_levels(self, configs: Ints) -> list[bool]:
        """Tell which configurations have a combination of levels whose divergence is not known yet."""
        seen, found = self._built(), []
        for config in configs:
            levels = self.graph.levels_of(config)
            found.append(levels not in seen)
            seen.add(levels)
        return found

    def _built(self) -> set[bytes]:
        """Return the combinations of levels that the host has built."""
        return {self.graph.levels_of(config) for config in [*self.memory.known()[0], self.floating]}

    def _few_levels(self, configs: Ints, order: Ints) -> Ints:
        """Keep the order, but no more than `conversions` combinations of levels that the host has not built yet."""
        built = self._built()
        fresh: set[bytes] = set()
        kept = []
        for row in order:
            levels = self.graph.levels_of(configs[row])
            if levels not in built and levels not in fresh:
                if len(fresh) >= self.conversions:
                    continue
                fresh.add(levels)
            kept.append(row)
        return np.array(kept, np.int64)

    def _spread_out(self, posterior: Posterior, configs: Ints, divergence: Floats) -> Ints:
        """Return the rows with the least divergence in each of as many stretches of latency as are evaluated."""
        times = posterior.predict(configs)[0]
        stretches = np.array_split(np.argsort(times, kind="stable"), min(self.evaluations, len(configs)))
        return np.array([rows[np.argmin(divergence[rows])] for rows in stretches], np.int64)

    def _evaluate(self, configs: Ints) -> None:
        if len(configs):
            self.memory.note_accuracy(configs, self.accuracy(configs))

    def _any_left(self) -> Ints | None:
        """Return the first configuration that was neither measured nor blocked; None when there is none."""
        picks = product(*(range(len(site.options)) for site in self.graph.sites))
        for row in islice(picks, len(self.measured) + len(self.blocked) + SCAN):
            config: Ints = self.graph.settle(np.array([row], np.int64))[0]
            if key_of(config) not in self.measured and key_of(config) not in self.blocked:
                return config
        return None
