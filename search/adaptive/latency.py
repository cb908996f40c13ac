"""A Bayesian latency model, linear in corrections to a prior.

    latency = sum over sites of prior * (1 + all + [kind, scheme] + [site, scheme] + [site, level] + [scheme, level])
            + sum over edges of prior * (1 + [from format, to format])
            + rest + noise

The rest is what does not add up over sites (a cache that overflows, say): similar configurations have a similar one,
a Gaussian process over the share of sites that differ. The corrections are independent Gaussians with mean 0, so
their posterior has a closed form (Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, section 2.1).
How wide they are, how much does not add up, and how loud the board is, are chosen by the marginal likelihood: a wrong
prior is widened, a right one is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints, Tables

WIDTHS = (1.0, 4.0, 16.0, 64.0)
"""Factors on the variance of the corrections."""
NOISES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3)
"""Relative standard deviation of one measurement."""
NOISE_PRIOR = (0.02, 0.5)
"""Its log-normal prior: median and spread."""
DEVIATIONS = {"all": 0.5, "kind": 0.25, "site": 0.12, "level": 0.12, "scheme": 0.12, "edge": 0.6}
"""Prior standard deviations of the corrections."""
RESTS = (0.005, 0.02, 0.06)
"""Relative standard deviation of what does not add up."""
REACH = 0.15
"""Share of the sites that may differ until two rests have little in common."""
EDGE_SHARE = 0.3
"""All edges together are allowed to be this share of a network's latency, also where the prior says nothing."""
SPIKE = 3.0
"""A measurement so many standard deviations too slow is a spike: it counts as one with so much more noise."""
PROFILE_NOISE = 0.08
"""Relative standard deviation of one site's time in a profile."""
LEAST = 0.02
"""A corrected cost is at least this share of its prior."""
FEW = 100
REFIT = 1.15
"""Beyond FEW rows, widths and noise are chosen again when there is so much more evidence."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement."""

    config: tuple[int, ...]
    latency_s: float
    confirmed: bool = False
    """Measured twice: no spike."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The time of every site, conversions counted where they are consumed."""

    config: tuple[int, ...]
    site_s: tuple[float, ...]
    timer_s: float = 0.0
    """What the timer itself adds to every site."""


@dataclass
class LatencyModel:
    """What is believed of one kind of board.

    Args:
        prior: what an analytic model, or another board, says (seconds).
    """

    prior: Tables
    readings: list[Reading] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    _chosen: tuple[int, float, float, float] | None = None

    @property
    def graph(self) -> Graph:
        return self.prior.graph

    @cached_property
    def groups(self) -> tuple[tuple[str, Ints], ...]:
        """(group, number of the correction for every option of every site: (sites, width))."""
        sites = self.graph.sites
        keys: dict[str, Callable[[int, int], Hashable]] = {
            "all": lambda s, o: 0,
            "kind": lambda s, o: (sites[s].kind, sites[s].options[o].scheme),
            "site": lambda s, o: (s, sites[s].options[o].scheme),
            "level": lambda s, o: (s, sites[s].options[o].level),
            "scheme": lambda s, o: (sites[s].options[o].scheme, sites[s].options[o].level)}
        found, offset = [], 0
        for group, key in keys.items():
            numbers: dict[Hashable, int] = {}
            table = np.zeros((self.graph.length, self.graph.width), np.int64)
            for s, site in enumerate(sites):
                for o in range(len(site.options)):
                    table[s, o] = offset + numbers.setdefault(key(s, o), len(numbers))
            offset += len(numbers)
            found.append((group, table))
        return tuple(found)

    @cached_property
    def edge_numbers(self) -> Ints:
        """Number of the correction for every pair of options: (edges, width, width)."""
        offset = 1 + max(int(table.max()) for _, table in self.groups)
        numbers: dict[Hashable, int] = {}
        found = np.full((len(self.graph.edges), self.graph.width, self.graph.width), offset, np.int64)
        for e, (a, b) in enumerate(self.graph.edges):
            for i, one in enumerate(self.graph.sites[a].options):
                for j, other in enumerate(self.graph.sites[b].options):
                    found[e, i, j] = offset + numbers.setdefault((one.format, other.format), len(numbers))
        return found

    @cached_property
    def _deviations(self) -> Floats:
        """Prior standard deviation of every correction."""
        size = 1 + max(int(self.edge_numbers.max(initial=0)), *(int(t.max()) for _, t in self.groups))
        found = np.zeros(size)
        for group, table in self.groups:
            found[np.unique(table)] = DEVIATIONS[group]
        if self.edge_numbers.size:
            typical = self.prior.total(np.zeros((1, self.graph.length), np.int64))[0]
            most = self.prior.edges.max(axis=(1, 2), initial=0.0).sum()
            found[np.unique(self.edge_numbers)] = max(DEVIATIONS["edge"], EDGE_SHARE * typical / max(most, 1e-12))
        return found

    def features(self, configs: Ints) -> Floats:
        """Return what every correction is multiplied with, in seconds: (configurations, corrections)."""
        own, switching = self.prior.parts(configs)
        found = np.zeros((len(configs), len(self._deviations)))
        rows = np.arange(len(configs))[:, None]
        sites = np.arange(self.graph.length)[None]
        for _, table in self.groups:
            np.add.at(found, (rows, table[sites, configs]), own)
        if self.graph.edges:
            ends = np.array(self.graph.edges)
            numbers = self.edge_numbers[np.arange(len(ends))[None], configs[:, ends[:, 0]], configs[:, ends[:, 1]]]
            np.add.at(found, (rows, numbers), switching)
        return found

    def _evidence(self) -> tuple[Floats, Floats, Floats]:
        """Return features, what the prior missed (s), and the scale of the noise (s) of every row."""
        configs = np.array([r.config for r in self.readings], np.int64).reshape(-1, self.graph.length)
        features = [self.features(configs)]
        missed = [np.array([r.latency_s for r in self.readings]) - self.prior.total(configs)]
        scale = [np.array([r.latency_s for r in self.readings])]
        for profile in self.profiles:
            rows, base = self._site_rows(np.array(profile.config, np.int64))
            times = np.maximum(np.array(profile.site_s) - profile.timer_s, 0.0)
            features.append(rows)
            missed.append(times - base)
            scale.append(np.full(len(times), np.nan))
        return np.concatenate(features), np.concatenate(missed), np.concatenate(scale)

    def _site_rows(self, config: Ints) -> tuple[Floats, Floats]:
        """Return features and prior cost of every single site of a configuration, its incoming edges with it."""
        own, switching = (part[0] for part in self.prior.parts(config[None]))
        rows = np.zeros((self.graph.length, len(self._deviations)))
        base = own.copy()
        for _, table in self.groups:
            for s in range(self.graph.length):
                rows[s, table[s, config[s]]] += own[s]
        for e, (a, b) in enumerate(self.graph.edges):
            rows[b, self.edge_numbers[e, config[a], config[b]]] += switching[e]
            base[b] += switching[e]
        return rows, base

    def posterior(self) -> Posterior:
        """Return what is believed after all readings and profiles."""
        features, missed, scale = self._evidence()
        if not len(missed):
            return Posterior(self, features, missed, np.ones((0, 0)), self._deviations ** 2, NOISE_PRIOR[0], RESTS[0])
        profiled = np.isnan(scale)
        surely = np.array([r.confirmed for r in self.readings] + [True] * int(profiled.sum()))
        times = np.concatenate([np.asarray(p.site_s) for p in self.profiles]) if self.profiles else np.zeros(0)
        loud = np.where(profiled, 0.0, np.nan_to_num(scale))
        site_noise = np.zeros(len(missed))
        site_noise[profiled] = PROFILE_NOISE * times + 2e-6
        spikes = np.zeros(len(missed))
        for _ in range(3):
            width, noise, rest = self._choose(features, missed, loud, site_noise, spikes)
            variance = np.diag((noise * loud) ** 2 + site_noise ** 2 + spikes ** 2)
            variance[:len(self.readings), :len(self.readings)] += rest ** 2 * self._similar()
            found = Posterior(self, features, missed, variance, self._deviations ** 2 * width, noise, rest)
            over = found.left_over()
            spiked = (over > SPIKE * np.maximum(NOISE_PRIOR[0], noise / 2) * loud) & ~surely
            if not (spiked & (spikes == 0)).any():
                break
            spikes = np.where(spiked, np.maximum(over, spikes), spikes)
        return found

    def similarity(self, configs: Ints, others: Ints) -> Floats:
        """Return the prior covariance of relative rests: (configurations, others)."""
        differ = (configs[:, None, :] != others[None, :, :]).mean(2)
        found: Floats = np.exp(-differ / REACH)
        return found

    @property
    def configs(self) -> Ints:
        """The configurations of all readings: (readings, sites)."""
        return np.array([r.config for r in self.readings], np.int64).reshape(-1, self.graph.length)

    def _similar(self) -> Floats:
        """Return the covariance of the readings' rests, in squared seconds, for a relative deviation of 1."""
        seconds = np.array([r.latency_s for r in self.readings])
        found: Floats = self.similarity(self.configs, self.configs) * np.outer(seconds, seconds)
        return found

    def _choose(self, features: Floats, missed: Floats, loud: Floats, site_noise: Floats,
                spikes: Floats) -> tuple[float, float, float]:
        """Choose width, noise and rest by marginal likelihood; with much evidence only when there is clearly more."""
        count = len(missed) + int((spikes > 0).sum())
        if self._chosen is not None and len(missed) > FEW and count < REFIT * self._chosen[0]:
            return self._chosen[1:]
        gram = (features * self._deviations ** 2) @ features.T
        best = (-np.inf, WIDTHS[0], NOISE_PRIOR[0], RESTS[0])
        similar = np.zeros_like(gram)
        similar[:len(self.readings), :len(self.readings)] = self._similar()
        for width, noise, rest in product(WIDTHS, NOISES, RESTS):
            covariance = gram * width + rest ** 2 * similar
            covariance += np.diag((noise * loud) ** 2 + site_noise ** 2 + spikes ** 2)
            root = np.linalg.cholesky(covariance + 1e-18 * np.eye(len(missed)))
            white = np.linalg.solve(root, missed)
            likelihood = -0.5 * float(white @ white) - float(np.log(np.diag(root)).sum())
            likelihood -= 0.5 * (np.log(noise / NOISE_PRIOR[0]) / NOISE_PRIOR[1]) ** 2
            best = max(best, (likelihood, width, noise, rest))
        self._chosen = (count, *best[1:])
        return best[1:]


class Posterior:
    """The corrections after the evidence."""

    def __init__(self, model: LatencyModel, features: Floats, missed: Floats, variance: Floats, prior: Floats,
                 noise: float, rest: float) -> None:
        """Solve for the corrections.

        Args:
            model: what it belongs to.
            features: (rows, corrections), seconds.
            missed: (rows,), what the prior missed in seconds.
            variance: (rows, rows), covariance of rests and noise in squared seconds.
            prior: (corrections,), their variance.
            noise: relative standard deviation of one measurement.
            rest: relative standard deviation of what does not add up.
        """
        self._model, self._features, self._variance, self._prior = model, features, variance, prior
        self.noise, self._rest, self._missed = noise, rest, missed
        covariance = (features * prior) @ features.T + variance
        self._root = np.linalg.cholesky(covariance + 1e-18 * np.eye(len(missed)))
        self._weights = self._solve(missed)
        self.mean = prior * (features.T @ self._weights)

    def _solve(self, right: Floats) -> Floats:
        found: Floats = np.linalg.solve(self._root.T, np.linalg.solve(self._root, right))
        return found

    def left_over(self) -> Floats:
        """Return what corrections and rests do not explain of every row, in seconds."""
        found: Floats = np.diag(self._variance) * self._weights
        similar = self._variance - np.diag(np.diag(self._variance))
        return np.where(similar.any(1), self._missed - self._features @ self.mean - similar @ self._weights, found)

    def draw(self, rng: np.random.Generator) -> Floats:
        """Return corrections drawn from the posterior (Matheron's rule)."""
        start = rng.normal(size=len(self._prior)) * np.sqrt(self._prior)
        loud = np.linalg.cholesky(self._variance + 1e-18 * np.eye(len(self._variance)))
        told = self._features @ start + loud @ rng.normal(size=len(self._variance))
        return start + self._prior * (self._features.T @ self._solve(self._missed - told))

    def tables(self, corrections: Floats | None = None) -> Tables:
        """Return the corrected costs in seconds, of the mean or of given corrections."""
        theta = self.mean if corrections is None else corrections
        model = self._model
        factor = 1.0 + sum(theta[table] for _, table in model.groups)
        sites = model.prior.sites * np.maximum(factor, LEAST)[:, None, :]
        edges = model.prior.edges
        if model.graph.edges:
            edges = edges * np.maximum(1.0 + theta[model.edge_numbers], 0.0)
        return Tables(model.graph, sites, edges)

    def predict(self, configs: Ints) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the true latency in seconds: (configurations,) each."""
        model = self._model
        features, base = model.features(configs), model.prior.total(configs)
        shared = (features * self._prior) @ self._features.T
        seconds = np.maximum(base + features @ self.mean, LEAST * base)
        if model.readings:
            known = np.array([r.latency_s for r in model.readings])
            shared[:, :len(known)] += self._rest ** 2 * model.similarity(configs, model.configs) * np.outer(
                seconds, known)
        mean = base + shared @ self._weights
        white = np.linalg.solve(self._root, shared.T)
        variance = (features ** 2 * self._prior).sum(1) + (self._rest * seconds) ** 2 - (white ** 2).sum(0)
        return mean, np.sqrt(np.maximum(variance, (1e-4 * mean) ** 2))
