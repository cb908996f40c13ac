"""What a configuration is worth measuring: its expected gain, and the probability that it meets the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from scipy.stats import norm

from search.adaptive.graph import Floats, Ints
from search.adaptive.memory import key_of
from search.adaptive.posterior import Posterior
from search.hypervolume import area

LEAST_PROBABILITY = 0.35
"""Nothing less likely to meet the budget is measured, once something is known to meet it."""
LITTLE = 0.2
"""Expected gains of less than this share of the margin are none: a twin promises as much, in case the best misses."""
CURSE = 0.3
"""What is chosen among hundreds is chosen because its latency is underestimated, by so many standard deviations."""
FASTER = 0.01
"""A point that is as accurate as another and this share faster extends the front."""


class Aim(StrEnum):
    """What is looked for."""

    ACCURATE = "accurate"
    """The highest accuracy within the latency budget."""
    FASTEST = "fastest"
    """The least latency among what has an accuracy at all."""
    FRONT = "front"
    """The Pareto front of latency and accuracy."""


@dataclass(frozen=True)
class Outlook:
    """What one more measurement is expected to bring."""

    gain: float
    """In the unit of accuracy; seconds for the fastest."""
    probability: float
    """Of improving by more than the margin that was asked for."""


@dataclass(frozen=True, eq=False)
class Rivals:
    """What other searches for the same goal have measured within its constraints: a result must beat these, too."""

    latency_s: Floats
    """(candidates,)."""
    accuracy: Floats
    """(candidates,)."""

    def __len__(self) -> int:
        return len(self.latency_s)


NO_RIVALS = Rivals(np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Judge:
    """What is believed in one round."""

    posterior: Posterior
    aim: Aim
    budget_s: float | None
    accuracy: Mapping[bytes, float]
    """Configuration -> accuracy on the host."""
    measured: Ints
    """(configurations, sites)."""
    margin: float = 0.0
    """Less is no gain in accuracy: a measurement is not spent on it while anything may bring more."""
    rivals: Rivals = NO_RIVALS

    def probability(self, configs: Ints) -> Floats:
        """Return P(latency <= budget): (configurations,)."""
        if self.budget_s is None:
            return np.ones(len(configs))
        mean, deviation = self.posterior.predict(configs)
        found: Floats = norm.cdf((self.budget_s - mean - CURSE * deviation) / deviation)
        return found

    def incumbent(self, confidence: float = 0.5) -> Ints | None:
        """Return the best measured configuration that meets the budget with this probability."""
        return self.best(self.measured, self._values, confidence)

    def best(self, configs: Ints, accuracy: Floats, confidence: float) -> Ints | None:
        """Return the best of these that meets the budget with this probability."""
        if not len(configs):
            return None
        usable = np.isfinite(accuracy) & (self.probability(configs) >= confidence)
        if not usable.any():
            return None
        worth = -self.posterior.predict(configs)[0] if self.aim is Aim.FASTEST else accuracy
        found: Ints = configs[np.argmax(np.where(usable, worth, -np.inf))]
        return found

    def offers(self) -> Rivals:
        """Return what was measured and probably meets the budget, as it is believed: what rivals must beat."""
        usable = np.isfinite(self._values) & (self.probability(self.measured) >= 0.5)
        return Rivals(self.posterior.predict(self.measured[usable])[0], self._values[usable])

    def choose(self, pool: Ints) -> Ints:
        """Return what should be measured: the largest expected gain times the probability to meet the budget.

        Where none promises a gain, what may be as accurate and faster: there is room for more accuracy behind it.
        """
        accuracy = self._accuracy_of(pool)
        score = self.score(pool, accuracy)
        if (best := self._settled(score)) is not None:
            as_good = accuracy >= self.accuracy[key_of(best)] - self.margin
            score = np.where(as_good, self._saving(pool, self._expected_s(best)), 0.0)
        if score.max() > 0:
            return np.asarray(pool[np.argmax(score)])
        chance = self.probability(pool)
        likely = np.where((chance >= LEAST_PROBABILITY) & np.isfinite(accuracy), accuracy, -np.inf)
        return np.asarray(pool[np.lexsort((chance, likely))[-1]])

    def settled(self, pool: Ints) -> Ints | None:
        """Return the incumbent where nothing in a pool promises a gain in accuracy."""
        return self._settled(self.score(pool, self._accuracy_of(pool)))

    def _settled(self, score: Floats) -> Ints | None:
        promised = self.aim is not Aim.ACCURATE or score.max(initial=0.0) > LITTLE * self.margin
        return None if promised else self.incumbent()

    def outlook(self, pool: Ints, margin: float) -> Outlook | None:
        """Return what the best of a pool is expected to bring, and the probability that it is more than `margin`.

        None while nothing that was measured meets the budget, or nothing in the pool runs.
        """
        best, accuracy = self.incumbent(), self._accuracy_of(pool)
        pool, accuracy = pool[np.isfinite(accuracy)], accuracy[np.isfinite(accuracy)]
        if (best is None and not self.rivals) or not len(pool):
            return None
        if self.aim is Aim.FRONT:
            return self._front_outlook(pool, accuracy, margin)
        if self.aim is Aim.ACCURATE:
            own = -np.inf if best is None else self.accuracy[key_of(best)]
            more, chance = accuracy - self.rivals.accuracy.max(initial=own), self.probability(pool)
            return Outlook(float((chance * np.maximum(more, 0.0)).max()),
                           float(np.where(more > margin, chance, 0.0).max()))
        gain = float(self.score(pool, accuracy).max())
        mean, deviation = self.posterior.predict(pool)
        return Outlook(gain, float(norm.cdf(((1 - margin) * self.fastest_s(best) - mean) / deviation).max()))

    def fastest_s(self, best: Ints | None) -> float:
        """Return the latency that the fastest must beat: of the incumbent, and of its rivals."""
        own = np.inf if best is None else self._expected_s(best)
        return float(self.rivals.latency_s.min(initial=own))

    def _front_outlook(self, pool: Ints, accuracy: Floats, margin: float) -> Outlook:
        """Return the points of accuracy that the best would gain over what is as fast; whether it extends the front.

        It does when it is more than `FASTER` faster than everything measured that is as accurate to within the margin
        (epsilon-dominance: Laumanns et al. 2002, Evolutionary Computation 10, definition 3).
        """
        usable = np.isfinite(self._values) & (self.probability(self.measured) >= 0.5)
        times_s = np.concatenate([self.posterior.predict(self.measured[usable])[0], self.rivals.latency_s])
        values = np.concatenate([self._values[usable], self.rivals.accuracy])
        mean, deviation = self.posterior.predict(pool)
        within = self.probability(pool)
        rivals = np.where(values[None] >= accuracy[:, None] - margin, times_s[None], np.inf).min(1)
        alone = np.isinf(rivals)
        faster = norm.cdf((np.where(alone, 1.0, (1 - FASTER) * rivals) - mean) / deviation)
        extends = np.where(alone, within, np.minimum(faster, within))
        extends = np.where(accuracy > values.min(), extends, 0.0)  # beyond the reference point, see _growth
        as_fast = np.where(times_s[None] <= mean[:, None], values[None], -np.inf).max(1)
        gains = np.where(np.isfinite(as_fast), np.maximum(accuracy - as_fast, 0.0), 0.0) * extends
        return Outlook(float(gains.max()), float(extends.max()))

    def score(self, pool: Ints, accuracy: Floats) -> Floats:
        """Return expected gains, 0 or more: (configurations,)."""
        usable = np.where(np.isfinite(accuracy), accuracy, -np.inf)
        if self.aim is Aim.FRONT:
            return self._growth(pool, usable)
        best = self.incumbent()
        if best is None and not self.rivals:
            floor = 0.5 * float(np.max(usable)) if np.isfinite(usable).any() else 0.0
            found: Floats = np.maximum(usable - floor, 0.0) * self.probability(pool) ** (1 + len(self.measured))
            return found
        if self.aim is Aim.FASTEST:
            return np.where(np.isfinite(usable), self._saving(pool, self.fastest_s(best)), 0.0)
        chance = self.probability(pool)
        return np.where(chance >= LEAST_PROBABILITY, self._gain(usable) * chance, 0.0)

    @cached_property
    def _values(self) -> Floats:
        return self._accuracy_of(self.measured)

    def _accuracy_of(self, configs: Ints) -> Floats:
        return np.array([self.accuracy.get(key_of(c), np.nan) for c in configs])

    def _gain(self, accuracy: Floats) -> Floats:
        """Return the expected gain over what is measured, each of which meets the budget only probably.

        E[max(a - V - margin, 0)], V the best measured accuracy whose latency is within the budget.
        """
        values = np.concatenate([self._values, self.rivals.accuracy])
        own = np.where(np.isfinite(self._values), self.probability(self.measured), 0.0)
        chance = np.concatenate([own, np.ones(len(self.rivals))])
        order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable")
        values, chance = np.nan_to_num(values[order]), chance[order]
        better = np.concatenate([[1.0], np.cumprod(1 - chance)])
        floor = 0.5 * float(values.max())
        found: Floats = better[-1] * np.maximum(accuracy - floor, 0.0)
        for value, weight in zip(values, better[:-1] * chance, strict=True):
            found = found + weight * np.maximum(accuracy - value - self.margin, 0.0)
        return found

    def _expected_s(self, config: Ints) -> float:
        return float(self.posterior.predict(config[None])[0][0])

    def _saving(self, pool: Ints, now_s: float) -> Floats:
        """Return the expected saving in seconds (Jones et al. 1998, expected improvement, equation 15)."""
        mean, deviation = self.posterior.predict(pool)
        z = (now_s - mean) / deviation
        found: Floats = deviation * (z * norm.cdf(z) + norm.pdf(z))
        return found

    def _growth(self, pool: Ints, accuracy: Floats) -> Floats:
        """Return by how much the hypervolume under the front of log latency and accuracy grows at the mean.

        The reference point is the slowest and the least accurate that is known.
        """
        usable, runs = np.isfinite(self._values), np.isfinite(accuracy)
        if not usable.any() and not self.rivals:
            return np.where(runs, accuracy - accuracy[runs].min(initial=np.inf) + 1e-9, 0.0)
        times = np.log(np.concatenate([self.posterior.predict(self.measured[usable])[0], self.rivals.latency_s]))
        values = np.concatenate([self._values[usable], self.rivals.accuracy])
        slowest, worst = float(times.max()) + 0.05, float(values.min()) - 1e-6
        mean, deviation = self.posterior.predict(pool)
        news = np.log(mean + CURSE * deviation)
        if self.budget_s is not None:
            slowest = min(slowest, float(np.log(self.budget_s)))
        now = area(times, values, slowest, worst)
        found = np.zeros(len(pool))
        for index in np.flatnonzero(np.isfinite(accuracy)):
            found[index] = area(np.append(times, news[index]), np.append(values, accuracy[index]), slowest,
                                worst) - now
        return np.maximum(found, 0.0)

