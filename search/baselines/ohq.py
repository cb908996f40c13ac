"""OHQ-like: measures a table on the chip, layer by layer, then solves the integer program on it.

Huang et al. 2023, On-Chip Hardware-Aware Quantization for Mixed Precision Neural Networks (arXiv 2309.01945), the
On-Chip Quantization Awareness pipeline and the linear program. A table of every layer takes one measurement for each
scheme (all layers in it) where the runtime has a profile of its layers; where it has none, the whole network's time
is spread over the layers as the prior has it. As there, the table knows no conversions between formats. Instead of
the mask-guided estimate, which wants on-chip passes too, the sensitivity is the divergence from float32 on the host.
"""

from __future__ import annotations

import statistics
from functools import cached_property

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints, Tables
from search.adaptive.memory import key_of
from search.adaptive.quality import measure_sensitivity
from search.baselines.front import Front
from search.baselines.ledger import Ledger, Result


class Ohq:
    """Measures every scheme and every pruning level on all layers, then walks along the front of what that says."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._task = ledger, ledger.task
        self._schemes, self._levels = uniform_configs(self._task.graph, self._task.int8)
        self._wanted = {key_of(config) for config in [*self._schemes.values(), *self._levels.values()]}
        self._site_s: dict[bytes, Floats] = {}
        self._front = Front(ledger, lambda: self._loss, self._table)

    @cached_property
    def _loss(self) -> Floats:
        return measure_sensitivity(self._task.graph, self._task.divergence, self._task.floating, least=0.0).table

    def propose(self) -> Ints | None:
        """See Strategy."""
        for config in [*self._schemes.values(), *self._levels.values()]:
            if self._ledger.fresh(config[None])[0]:
                return config
        return self._front.propose()

    def learn(self, config: Ints, result: Result | None) -> None:
        """See Strategy."""
        self._front.learn(config, result)
        key = key_of(config)
        if result is not None and key in self._wanted and key not in self._site_s:
            prior = self._prior_s(config)
            self._site_s[key] = prior * result.latency_s / float(prior.sum())

    def wants_profile(self, config: Ints) -> bool:
        """See SiteTable."""
        return key_of(config) in self._wanted

    def tell_profile(self, config: Ints, site_s: Floats) -> None:
        """See SiteTable."""
        self._site_s[key_of(config)] = np.maximum(site_s, 0.0)

    def _prior_s(self, config: Ints) -> Floats:
        """Return the prior's seconds of every site, conversions with their consumer: (sites,)."""
        own, switching = (part[0] for part in self._task.prior.parts(config[None]))
        found: Floats = own.copy()
        for (_, b), cost in zip(self._task.graph.edges, switching, strict=True):
            found[b] += cost
        least: Floats = np.maximum(found, 1e-12)
        return least

    def _ratios(self, config: Ints) -> Floats | None:
        """Return measured over prior of every site in a uniform configuration; None while it is not measured."""
        measured = self._site_s.get(key_of(config))
        return None if measured is None else measured / self._prior_s(config)

    def _table(self) -> Tables:
        """Return the prior of every option, as many times slower as the site was in that scheme and that level."""
        graph, prior = self._task.graph, self._task.prior
        by_scheme = {name: r for name, c in self._schemes.items() if (r := self._ratios(c)) is not None}
        by_level = {level: r for level, c in self._levels.items() if (r := self._ratios(c)) is not None}
        usual = statistics.median(float(np.median(r)) for r in by_scheme.values()) if by_scheme else 1.0
        base = self._ratios(self._task.int8)
        factor = np.full((graph.length, graph.width), usual)
        for s, site in enumerate(graph.sites):
            for o, option in enumerate(site.options):
                if option.scheme in by_scheme:
                    factor[s, o] = by_scheme[option.scheme][s]
                if base is not None and option.level in by_level:
                    factor[s, o] *= by_level[option.level][s] / max(float(base[s]), 1e-12)
        return Tables(graph, prior.sites * factor[:, None, :], np.zeros_like(prior.edges))


def uniform_configs(graph: Graph, int8: Ints) -> tuple[dict[str, Ints], dict[int, Ints]]:
    """Return scheme -> all sites in it at int8's level, level -> all sites at it in int8's scheme.

    Where a site lacks it, it stays int8.
    """
    def row(scheme: str | None, level: int | None) -> Ints:
        picks = int8.copy()
        for s, site in enumerate(graph.sites):
            own = site.options[int(int8[s])]
            wanted = (scheme or own.scheme, own.level if level is None else level)
            picks[s] = next((o for o, option in enumerate(site.options) if (option.scheme, option.level) == wanted),
                            int(int8[s]))
        return np.asarray(graph.settle(picks[None])[0])

    schemes = dict.fromkeys(option.scheme for index in graph.timed for option in graph.sites[index].options)
    levels = sorted({option.level for site in graph.sites for option in site.options})
    lowest = {level for site, o in zip(graph.sites, int8, strict=True) for level in [site.options[int(o)].level]}
    return ({scheme: row(scheme, None) for scheme in schemes},
            {level: row(None, level) for level in levels if {level} != lowest})
