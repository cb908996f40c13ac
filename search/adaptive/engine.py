"""Solve, measure, correct, solve again: proposes the configuration that a board should measure next.

Every round: the latency model's mean and a few draws from it give corrected costs; the solver finds the least
divergence within the budget for each; the host evaluates the accuracy of what is new; the board gets the
configuration with the largest expected gain times the probability that it meets the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from search.adaptive.graph import Floats, Graph, Ints, Tables, unique
from search.adaptive.latency import LatencyModel, Posterior, Profile, Reading
from search.adaptive.quality import Divergence, Sensitivity, measure_sensitivity
from search.adaptive.solver import Problem, solve

DRAWS = 2
TARGETS = (0.975, 0.99, 1.005)
"""Budgets that are solved for, relative to the real one."""
CAUTIOUS = (0.88, 0.94, 0.98)
"""The same while nothing is known to meet the budget."""
SHRINK = (0.97, 0.92, 0.85, 0.75)
"""Where the least latency is looked for: budgets relative to the incumbent's latency."""
TRUST = (0.0, 0.5, 2.0)
"""Penalties on leaving the incumbent, in its own mean divergence per site."""
INNER = 2
"""Sensitivity tables that are taken anew in a round, each around the best that the last one led to."""
KEPT = 2
"""Tables around former centers that are still solved with."""
LEAST_PROBABILITY = 0.35
"""Nothing less likely to meet the budget is measured, once something is known to meet it."""
EVALUATIONS = 12
"""Configurations whose accuracy the host computes after each table."""
CROSSED = 1500
"""Children of the best that are screened by the tables in a round."""
SCREENED = 40
"""Of these, those whose divergence is computed."""
PARENTS = 12
CURSE = 0.3
"""What is chosen among hundreds is chosen because its latency is underestimated, by so many standard deviations."""
SCAN = 5000
SURPRISE = 2.0
"""Standard deviations."""


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
        passes: calibration passes that the host has time for while one measurement is made: tables around new
            centers and the screening wait until they are affordable.
        evaluations: configurations whose accuracy the host computes after each table.
        fastest: the least latency is looked for among what `accuracy` does not call NaN.
    """

    model: LatencyModel
    divergence: Divergence
    accuracy: Callable[[Ints], Floats]
    budget_s: float | None
    floating: Ints
    seed: int
    extra: Sequence[Extra] = ()
    fastest: bool = False
    passes: float = np.inf
    evaluations: int = EVALUATIONS
    known: dict[bytes, float] = field(default_factory=dict)
    """Configuration -> accuracy on the host."""
    measured: dict[bytes, list[float]] = field(default_factory=dict)
    """Configuration -> its readings, seconds."""
    blocked: set[bytes] = field(default_factory=set)
    """Configurations that are under way or infeasible."""
    _tables: list[Sensitivity] = field(default_factory=list)
    _credit: float = field(init=False)

    def __post_init__(self) -> None:
        self._credit = self.passes

    @property
    def graph(self) -> Graph:
        return self.model.graph

    def tell(self, config: Ints, latency_s: float, accuracy: float | None,
             confirmed: bool = False) -> None:
        """Take in a measurement; `accuracy` as the host computes it. A confirmed one is no spike."""
        key = key_of(config)
        self._credit = min(self._credit + self.passes, 4 * self._price() + self.passes)
        self.measured.setdefault(key, []).append(latency_s)
        self.blocked.discard(key)
        if accuracy is not None:
            self.known[key] = accuracy
        self.model.readings.append(Reading(tuple(int(o) for o in config), latency_s, confirmed))

    def tell_profile(self, config: Ints, site_s: Floats, timer_s: float) -> None:
        """Take in the time of every site of one configuration."""
        self.model.profiles.append(Profile(tuple(int(o) for o in config), tuple(float(t) for t in site_s), timer_s))

    def tell_infeasible(self, config: Ints) -> None:
        """A configuration can never be measured."""
        self.blocked.add(key_of(config))

    def propose(self) -> Ints | None:
        """Return what to measure next, never the same twice; None when nothing new is left."""
        posterior = self.model.posterior()
        rng = np.random.default_rng([self.seed, len(self.model.readings), len(self.blocked)])
        best = self.incumbent(posterior)
        for _ in range(INNER):
            fresh_table = self._linearise(posterior)
            self._evaluate(self._screen(self._pool(posterior, rng, best), posterior))
            if not fresh_table:
                break
        pool = configs_of(self.known, self.graph.length)
        fresh = np.array([k not in self.measured and k not in self.blocked for k in map(key_of, pool)], bool)
        if not fresh.any():
            return self._any_left()
        pool = pool[fresh]
        return self._choose(pool, posterior, best)

    def surprising(self, config: Ints, latency_s: float) -> bool:
        """Tell whether a reading is so much slower than expected that it should be repeated before it is believed."""
        posterior = self.model.posterior()
        mean, deviation = (float(value[0]) for value in posterior.predict(config[None]))
        spread = float(np.hypot(deviation, posterior.noise * mean))
        return latency_s > mean + SURPRISE * spread

    def incumbent(self, posterior: Posterior, confidence: float = 0.5) -> Ints | None:
        """Return the most accurate measured configuration that meets the budget with this probability."""
        if not self.measured:
            return None
        configs = configs_of(self.measured, self.graph.length)
        chance = self.probability(configs, posterior)
        accuracy = np.array([self.known.get(key_of(c), np.nan) for c in configs])
        usable = (chance >= confidence) & np.isfinite(accuracy)
        if not usable.any():
            return None
        worth = -posterior.predict(configs)[0] if self.fastest else accuracy
        found: Ints = configs[np.argmax(np.where(usable, worth, -np.inf))]
        return found

    def probability(self, configs: Ints, posterior: Posterior) -> Floats:
        """Return P(latency <= budget): (configurations,)."""
        if self.budget_s is None:
            return np.ones(len(configs))
        mean, deviation = posterior.predict(configs)
        found: Floats = norm.cdf((self.budget_s - mean - CURSE * deviation) / deviation)
        return found

    def _linearise(self, posterior: Posterior) -> bool:
        """Take a sensitivity table around float32 once, then around the best that is known; tell whether one was."""
        if not self._tables:
            self._tables.append(measure_sensitivity(self.graph, self.divergence, self.floating, least=0.0))
        center = self._center(posterior)
        if center is None or any(np.array_equal(table.center, center) for table in self._tables[1:]):
            return False
        if self._credit < self._price():
            return False
        self._credit -= self._price()
        del self._tables[1:len(self._tables) - KEPT + 1]
        self._tables.append(measure_sensitivity(self.graph, self.divergence, center))
        return True

    def _price(self) -> int:
        """Return what a sensitivity table costs, in passes, at most."""
        return 1 + sum(len({a for option in site.options for a in enumerate(option.attributes)}) - 1
                       for site in self.graph.sites)

    def _center(self, posterior: Posterior) -> Ints | None:
        """Return the best configuration that the host knows and that probably meets the budget."""
        if not self.known:
            return None
        configs = configs_of(self.known, self.graph.length)
        accuracy = np.array(list(self.known.values()))
        usable = np.isfinite(accuracy) & (self.probability(configs, posterior) >= 0.5)
        if not usable.any():
            return None
        worth = -posterior.predict(configs)[0] if self.fastest else accuracy
        found: Ints = configs[np.argmax(np.where(usable, worth, -np.inf))]
        return found

    def _pool(self, posterior: Posterior, rng: np.random.Generator, best: Ints | None) -> Ints:
        """Solve for the mean and for draws, and cross what is good already."""
        targets = self._targets(posterior, best)
        tables = [posterior.tables(), *(posterior.tables(posterior.draw(rng)) for _ in range(DRAWS))]
        found = []
        for number, table in enumerate(tables):
            for target in targets if number == 0 else targets[1:2]:
                for loss in self._losses():
                    found.append(solve(Problem(self.graph, loss, (table, *(e.tables for e in self.extra)),
                                               (target, *(e.limit for e in self.extra)))))
        crossed = self._cross(posterior, rng, best)
        return unique(np.concatenate([np.array(found), crossed]))

    def _targets(self, posterior: Posterior, best: Ints | None) -> tuple[float, ...]:
        """Return the latencies (s) to solve for."""
        if not self.fastest:
            return tuple(t * (self.budget_s or np.inf) for t in (CAUTIOUS if best is None else TARGETS))
        start = self.floating if best is None else best
        now = min(float(posterior.predict(start[None])[0][0]), self.budget_s or np.inf)
        return tuple(shrink * now for shrink in SHRINK)

    def _losses(self) -> list[Floats]:
        """Return the additive losses to solve for."""
        first, *around = self._tables
        found = [first.table]
        for table in around:
            stay = np.ones(table.table.shape)
            stay[np.arange(self.graph.length), table.center] = 0.0
            scale = abs(table.base) / self.graph.length
            found.extend(table.table + trust * scale * stay for trust in TRUST)
        return found

    def _cross(self, posterior: Posterior, rng: np.random.Generator, best: Ints | None) -> Ints:
        """Return children of the best known configurations that should meet the budget, the most promising ones."""
        configs = configs_of(self.known, self.graph.length)
        if not len(configs):
            return np.empty((0, self.graph.length), np.int64)
        accuracy = np.array(list(self.known.values()))
        score = np.where(np.isfinite(accuracy), accuracy, -np.inf) * self.probability(configs, posterior)
        parents = configs[np.argsort(-score)[:PARENTS]]
        one, two = parents[rng.integers(len(parents), size=CROSSED)], parents[rng.integers(len(parents), size=CROSSED)]
        children = np.where(rng.random(one.shape) < rng.choice([0.0, 0.2, 0.5], size=(CROSSED, 1)), two, one)
        changes = rng.random(one.shape) < rng.choice([0.0, 1.5, 3.0], size=(CROSSED, 1)) / self.graph.length
        counts = np.array([len(site.options) for site in self.graph.sites])
        children = np.where(changes, rng.integers(0, counts[None], size=one.shape), children)
        children = unique(self.graph.settle(children))
        within = posterior.tables().total(children) <= max(self._targets(posterior, best))
        for resource in self.extra:
            within &= resource.tables.total(children) <= resource.limit
        children = children[within]
        children = children[[key_of(c) not in self.known for c in children]] if len(children) else children
        if not len(children):
            return children
        return children[np.argsort(self._tables[-1].predict(children))[:SCREENED]]

    def _screen(self, pool: Ints, posterior: Posterior) -> Ints:
        """Keep the new configurations whose divergence and chance promise most."""
        new = [c for c in pool if key_of(c) not in self.known and key_of(c) not in self.blocked]
        if not new:
            return np.empty((0, self.graph.length), np.int64)
        configs = np.array(new)
        chance = self.probability(configs, posterior)
        predicted = self._tables[-1].predict(configs)
        affordable = int(min(len(configs), max(self._credit, self.evaluations)))
        kept = np.argsort(np.where(chance >= LEAST_PROBABILITY / 2, predicted, np.inf), kind="stable")[:affordable]
        configs, chance = configs[kept], chance[kept]
        self._credit -= len(configs)
        divergence = self.divergence(configs)
        rank = np.where(chance >= LEAST_PROBABILITY / 2, divergence, np.inf)
        order = np.argsort(rank, kind="stable")[:self.evaluations]
        return configs[order]

    def _evaluate(self, configs: Ints) -> None:
        if len(configs):
            self.known.update(zip(map(key_of, configs), map(float, self.accuracy(configs)), strict=True))

    def _any_left(self) -> Ints | None:
        """Return the first configuration that was neither measured nor blocked; None when there is none."""
        picks = product(*(range(len(site.options)) for site in self.graph.sites))
        for row in islice(picks, len(self.measured) + len(self.blocked) + SCAN):
            config: Ints = self.graph.settle(np.array([row], np.int64))[0]
            if key_of(config) not in self.measured and key_of(config) not in self.blocked:
                return config
        return None

    def _choose(self, pool: Ints, posterior: Posterior, best: Ints | None) -> Ints:
        """Return the largest expected gain times the probability to meet the budget."""
        chance = self.probability(pool, posterior)
        accuracy = np.array([self.known[key_of(c)] for c in pool])
        accuracy = np.where(np.isfinite(accuracy), accuracy, -np.inf)
        if self.fastest and best is not None:
            return self._choose_fastest(pool, posterior, best, np.isfinite(accuracy))
        if best is None:
            floor = 0.5 * float(np.max(accuracy)) if np.isfinite(accuracy).any() else 0.0
            caution = 1 + len(self.measured)
            found: Ints = pool[np.argmax(np.maximum(accuracy - floor, 0.0) * chance ** caution)]
            return found
        gain = self._gain(accuracy, posterior)
        score = np.where(chance >= LEAST_PROBABILITY, gain * chance, 0.0)
        if score.max() > 0:
            return np.asarray(pool[np.argmax(score)])
        return np.asarray(pool[np.argmax(np.where(chance >= LEAST_PROBABILITY, accuracy, -np.inf) + 1e-6 * chance)])

    def _gain(self, accuracy: Floats, posterior: Posterior) -> Floats:
        """Return the expected gain over what is measured, each of which meets the budget only probably.

        E[max(a - V, 0)], V the best measured accuracy whose latency is within the budget.
        """
        configs = configs_of(self.measured, self.graph.length)
        values = np.array([self.known.get(key_of(c), np.nan) for c in configs])
        chance = np.where(np.isfinite(values), self.probability(configs, posterior), 0.0)
        order = np.argsort(-np.where(np.isfinite(values), values, -np.inf))
        values, chance = np.nan_to_num(values[order]), chance[order]
        better = np.concatenate([[1.0], np.cumprod(1 - chance)])
        floor = 0.5 * float(values.max())
        found: Floats = better[-1] * np.maximum(accuracy - floor, 0.0)
        for value, weight in zip(values, better[:-1] * chance, strict=True):
            found = found + weight * np.maximum(accuracy - value, 0.0)
        return found

    def _choose_fastest(self, pool: Ints, posterior: Posterior, best: Ints, allowed: NDArray[np.bool_]) -> Ints:
        """Return the largest expected saving (Jones et al. 1998, expected improvement, equation 15)."""
        now = float(posterior.predict(best[None])[0][0])
        mean, deviation = posterior.predict(pool)
        z = (now - mean) / deviation
        saving = deviation * (z * norm.cdf(z) + norm.pdf(z))
        return np.asarray(pool[np.argmax(np.where(allowed, saving, -np.inf))])


def key_of(config: Ints) -> bytes:
    """Return a configuration as a key."""
    return np.asarray(config, np.int64).tobytes()


def configs_of(keys: dict[bytes, float] | dict[bytes, list[float]], length: int) -> Ints:
    """Return keys as configurations: (count, sites)."""
    return np.array([np.frombuffer(k, np.int64) for k in keys], np.int64).reshape(-1, length)
