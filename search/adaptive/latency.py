"""A Bayesian latency model, linear in corrections to a prior.

    latency = sum over sites of prior * (1 + all + [kind, arithmetic] + [kind, scheme] + [site, level]
                                         + [scheme, level])
            + sum over sites of (prior + floor * typical) * [site, scheme]
            + sum over edges of prior * (1 + [from format, to format])
            + sum over sites of what the prior says that narrowing saves * [narrowing]
            + sites * typical * overhead + bias of the board * prior + rest + noise

The prior counts in proportion only: it is scaled to the readings first, for all that follows is relative to it.
What a site takes on average in float is typical: a small site is not wrong in proportion to its own time (a floor that
the first readings do without).
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

import numpy as np

from search.adaptive.graph import Bools, Floats, Graph, Ints, Tables
from search.adaptive.one_core import one_core
from search.adaptive.posterior import Posterior, Rows
from search.adaptive.scales import NOISE_PRIOR, Likelihood, Scales, likeliest, widened

DEVIATIONS = {"all": 0.5, "arithmetic": 0.23, "kind": 0.1, "site": 0.12, "level": 0.12, "scheme": 0.12, "edge": 0.6,
              "narrowing": 0.3, "overhead": 0.02}
"""Prior standard deviations of the corrections; of the overhead of all sites: as a share of float's latency."""
BIAS = 0.03
"""Prior standard deviation of what one board of a kind is slower or faster than the average one, as a share."""
REACH = 0.15
"""Share of the sites that may differ until two rests have little in common."""
EDGE_SHARE = 0.3
"""All edges together are allowed to be this share of a network's latency, also where the prior says nothing."""
SPIKE = 3.0
"""A measurement so many standard deviations too slow is a spike: it counts as one with so much more noise."""
SPIKE_ROUNDS = 3
PROFILE_NOISE = 0.08
"""Relative standard deviation of one site's time in a profile."""
SURPRISE = 2.0
"""Standard deviations."""
EARLY = 8
"""Readings before which a site's error counts as proportional to its own time: then the whole prior may be wrong, and
doubts about every small site keep proposals at the edge of the budget."""
FEW = 40
REFIT = 1.15
MOST = 100
"""See LatencyModel._scales."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement."""

    config: tuple[int, ...]
    latency_s: float
    confirmed: bool = False
    """Measured twice: no spike."""
    board: str = ""


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
        given: what an analytic model, or another board, says (seconds).
        floor: what every site's own correction is multiplied with beside its prior, as a share of what is typical; from
            `EARLY` readings on.
    """

    given: Tables
    floor: float = 1.0
    readings: list[Reading] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    _scaled: dict[int, Tables] = field(default_factory=dict)
    _chosen: dict[tuple[int, int], Scales] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError where the prior says that a free site costs time."""
        for index, site in enumerate(self.graph.sites):
            if site.free and self.given.sites[index].any():
                raise ValueError(f"the prior says that the site {site.name!r} costs time, but it is free")

    @property
    def graph(self) -> Graph:
        return self.given.graph

    @property
    def prior(self) -> Tables:
        """What was given, scaled to the geometric mean of the first readings."""
        count = min(len(self.readings), FEW)
        if count not in self._scaled:
            first = self.readings[:count]
            totals = self.given.total(np.array([r.config for r in first], np.int64).reshape(count, self.graph.length))
            apart = [r.latency_s / total for r, total in zip(first, totals, strict=True) if total > 0]
            scale = float(np.exp(np.mean(np.log(apart)))) if apart else 1.0
            self._scaled[count] = Tables(self.graph, self.given.sites * scale, self.given.edges * scale)
        return self._scaled[count]

    @cached_property
    def groups(self) -> tuple[tuple[str, Ints], ...]:
        """(group, number of the correction for every option of every site: (sites, width))."""
        sites = self.graph.sites
        keys: dict[str, Callable[[int, int], Hashable]] = {
            "all": lambda s, o: 0,
            "arithmetic": lambda s, o: (sites[s].kind, sites[s].options[o].arithmetic or sites[s].options[o].scheme),
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
    def _suspects(self) -> tuple[int, ...]:
        """Corrections that may be outliers: those of an arithmetic in a kind of site."""
        return tuple(int(number) for number in np.unique(dict(self.groups)["arithmetic"]))

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

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards that measured, where there are several: a single one's bias is its kind's own speed."""
        found = sorted({reading.board for reading in self.readings})
        return tuple(found) if len(found) > 1 else ()

    def _variance(self, scales: Scales) -> Floats:
        """Prior variance of every correction, the boards' biases last: how wrong the prior is says nothing of these."""
        return np.append(scales.width * widened(self._shared ** 2, scales.outliers), [BIAS ** 2] * len(self.boards))

    @cached_property
    def overhead(self) -> int:
        """Number of the correction that is the sites' overhead."""
        return len(self._shared) - 1

    @property
    def narrowing(self) -> int:
        """Number of the correction to what narrowing saves, in all sites together."""
        return self.overhead - 1

    @cached_property
    def _shared(self) -> Floats:
        """The same without the boards' biases."""
        size = 3 + max(int(self.edge_numbers.max(initial=0)), *(int(t.max()) for _, t in self.groups))
        found = np.zeros(size)
        found[-2:] = DEVIATIONS["narrowing"], DEVIATIONS["overhead"]
        for group, table in self.groups:
            found[np.unique(table)] = DEVIATIONS[group]
        if self.edge_numbers.size:
            typical = self.given.total(np.zeros((1, self.graph.length), np.int64))[0]
            most = self.given.edges.max(axis=(1, 2), initial=0.0).sum()
            found[np.unique(self.edge_numbers)] = max(DEVIATIONS["edge"], EDGE_SHARE * typical / max(most, 1e-12))
        return found

    def features(self, configs: Ints) -> Floats:
        """Return what every correction is multiplied with, in seconds: (configurations, corrections).

        On the average board: no bias has a part in it.
        """
        own, switching = self.prior.parts(configs)
        size, sites = len(self._shared) + len(self.boards), np.arange(self.graph.length)[None]
        numbers = [table[sites, configs] for _, table in self.groups]
        typical = self.typical
        weights = [own + self.share * typical if group == "site" else own for group, _ in self.groups]
        if self.graph.edges:
            starts, ends = self.graph.ends
            numbers.append(self.edge_numbers[np.arange(len(ends))[None], configs[:, starts], configs[:, ends]])
            weights.append(switching)
        flat = np.concatenate(numbers, 1) + size * np.arange(len(configs))[:, None]
        found = np.asarray(np.bincount(flat.ravel(), np.concatenate(weights, 1).ravel(), size * len(configs)), float)
        found = found.reshape(len(configs), size)
        found[:, self.overhead] = typical.sum()
        found[:, self.narrowing] = (self.prior.full[sites, configs] - own).sum(1)
        return found

    @property
    def share(self) -> float:
        """The floor, once there are `EARLY` readings."""
        return self.floor if len(self.readings) >= EARLY else 0.0

    @property
    def typical(self) -> Floats:
        """What a site takes on average in float, in seconds; 0 for free ones: (sites,)."""
        found = np.zeros(self.graph.length)
        found[self.graph.timed] = self.prior.total(np.zeros((1, self.graph.length), np.int64)) / len(self.graph.timed)
        return found

    def surprising(self, config: Ints, latency_s: float) -> bool:
        """Tell whether a reading is so much slower than expected that it should be repeated before it is believed."""
        posterior = self.posterior()
        mean, deviation = (float(value[0]) for value in posterior.predict(config[None]))
        spread = float(np.hypot(deviation, posterior.noise * mean))
        return latency_s > mean + SURPRISE * spread

    def _evidence(self) -> tuple[Floats, Floats, Floats]:
        """Return features, what the prior missed (s), and the scale of the noise (s) of every row."""
        configs = np.array([r.config for r in self.readings], np.int64).reshape(-1, self.graph.length)
        features, whole = [self.features(configs)], self.prior.total(configs)
        for number, board in enumerate(self.boards, self.overhead + 1):
            features[0][:, number] = np.where([r.board == board for r in self.readings], whole, 0.0)
        missed = [np.array([r.latency_s for r in self.readings]) - whole]
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
        rows = np.zeros((self.graph.length, len(self._shared) + len(self.boards)))
        typical = rows[:, self.overhead] = self.typical
        base = own.copy()
        for group, table in self.groups:
            for s in range(self.graph.length):
                rows[s, table[s, config[s]]] += own[s] + (self.share * typical[s] if group == "site" else 0.0)
        rows[:, self.narrowing] = self.prior.full[np.arange(self.graph.length), config] - own
        for e, (a, b) in enumerate(self.graph.edges):
            rows[b, self.edge_numbers[e, config[a], config[b]]] += switching[e]
            base[b] += switching[e]
        return rows, base

    @one_core()
    def posterior(self) -> Posterior:
        """Return what is believed after all readings and profiles."""
        features, missed, scale = self._evidence()
        if not len(missed):
            return Posterior(self, features, missed, np.ones((0, 0)), self._variance(Scales()), Scales().noise,
                             Scales().rest)
        rows = Rows(features, missed, np.nan_to_num(scale), self._site_noise(len(missed)), self._similar(),
                     np.array([r.confirmed for r in self.readings] + [True] * (len(missed) - len(self.readings))))
        return self._without_spikes(rows, self._scales(rows))

    def _without_spikes(self, rows: Rows, scales: Scales) -> Posterior:
        """Return what is believed when readings that noise does not explain count for little."""
        spikes = np.zeros(len(rows.missed))
        found = self._solved(rows, scales, spikes)
        for _ in range(SPIKE_ROUNDS - 1):
            grown = self._grown(found, rows, spikes)
            if grown is None:
                break
            spikes = grown
            found = found.with_variance(rows.variance(scales.noise, scales.rest, spikes))
        return found

    def _solved(self, rows: Rows, scales: Scales, spikes: Floats) -> Posterior:
        return Posterior(self, rows.features, rows.missed, rows.variance(scales.noise, scales.rest, spikes),
                         self._variance(scales), scales.noise, scales.rest)

    def _grown(self, found: Posterior, rows: Rows, spikes: Floats) -> Floats | None:
        """Return the spikes (s) with those that this leaves unexplained; None: there are no more."""
        grown = np.where(self._spiked(found, rows), np.maximum(found.left_over(), spikes), spikes)
        return grown if ((grown > 0) & (spikes == 0)).any() else None

    def _spiked(self, found: Posterior, rows: Rows) -> Bools:
        """Tell which readings are slower than noise explains."""
        loud = np.maximum(NOISE_PRIOR[0], found.noise / 2) * rows.loud
        spiked: Bools = (found.left_over() > SPIKE * loud) & ~rows.surely
        return spiked

    def _site_noise(self, count: int) -> Floats:
        """Return the noise of a profile's rows in seconds, 0 for readings: (rows,)."""
        found = np.zeros(count)
        if self.profiles:
            times = np.concatenate([np.asarray(p.site_s) for p in self.profiles])
            found[len(self.readings):] = PROFILE_NOISE * times + 2e-6
        return found

    def _scales(self, rows: Rows) -> Scales:
        """Choose width, noise and rest by the marginal likelihood of the evidence up to a round number of readings.

        Thereby a study that is replayed chooses the same, and seldom: up to FEW each time, then when there is REFIT
        times as much; of more than MOST readings, MOST that are spread evenly.
        """
        count = min(len(self.readings), FEW)
        while count >= FEW and count * REFIT <= len(self.readings):
            count = int(count * REFIT)
        key = (count, len(self.profiles))
        if key not in self._chosen:
            picked = np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int)) if count else np.zeros(0, int)
            profiled = np.arange(len(self.readings), len(rows.missed))
            few = rows.of(np.concatenate([picked, profiled[:MOST]]))
            spikes: Floats | None = np.zeros(len(few.missed))
            for _ in range(SPIKE_ROUNDS):
                if spikes is None:
                    break
                best = likeliest(Likelihood(few, spikes, self._variance(Scales()), len(self.boards)), self._suspects)
                spikes = self._grown(self._solved(few, best, spikes), few, spikes)
            self._chosen[key] = best
        return self._chosen[key]

    def similarity(self, configs: Ints, others: Ints) -> Floats:
        """Return the prior covariance of relative rests: (configurations, others)."""
        small = np.uint8 if max(self.graph.length, self.graph.width) < 256 else np.uint16
        timed = self.graph.timed
        one, two = configs.T[timed].astype(small), others.T[timed].astype(small)
        differ = np.zeros((len(configs), len(others)), small)
        for mine, theirs in zip(one, two, strict=True):
            differ += (mine[:, None] != theirs[None]).view(np.uint8)
        found: Floats = np.exp(np.arange(len(timed) + 1) / (-REACH * len(timed)))[differ]
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
