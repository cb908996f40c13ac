"""Sensitivity tables: what every option of one site costs in divergence from float, and how far that adds up.

One site at a time: KL(float32 || perturbed) of the outputs on calibration data (Dong et al. 2019, HAWQ, uses
curvature instead; KL needs no labels and ranks better). Attributes (weights, activations, pruning) are perturbed
apart and added, which takes fewer passes than all options. Near the optimum the table is taken anew around the
incumbent, where it is more accurate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints, Option

Divergence = Callable[[Ints], Floats]
"""(configurations, sites) -> divergence of the outputs from float32: (configurations,), 0 or more."""


@dataclass(frozen=True)
class Sensitivity:
    """A table around one configuration."""

    center: Ints
    base: float
    """Divergence of the center."""
    table: Floats
    """(sites, width): change of the divergence when one site takes an option."""

    def predict(self, configs: Ints) -> Floats:
        """Return the predicted divergence: (configurations,)."""
        found: Floats = self.base + self.table[np.arange(len(self.center))[None], configs].sum(1)
        return found


def measure_sensitivity(graph: Graph, divergence: Divergence, center: Ints, least: float | None = None) -> Sensitivity:
    """Take a table around a configuration.

    Args:
        graph: the sites.
        divergence: computes configurations in batches; what it calls infinite (it does not run) counts as twice the
            worst that does.
        center: the configuration around which sites change.
        least: a lower bound of every entry, e.g. 0 around float32, where nothing can improve.
    """
    plans = _plans(graph, center)
    rows, places = _rows(graph, center, plans)
    values = divergence(rows)
    finite = values[np.isfinite(values)]
    values = np.where(np.isfinite(values), values, 2 * finite.max(initial=1.0))
    table = np.zeros((graph.length, graph.width))
    for index, plan in enumerate(plans):
        changes = {o: float(values[places[index, o]] - values[0]) for o in plan.probes}
        table[index, :len(graph.sites[index].options)] = plan.spread(changes)
    if least is not None:
        table = np.maximum(table, least)
        table[np.arange(graph.length), center] = 0.0
    return Sensitivity(center, float(values[0]), table)


def probes(graph: Graph, center: Ints) -> Ints:
    """Return the configurations that a table around a center needs, the center first: (count, sites)."""
    return _rows(graph, center, _plans(graph, center))[0]


def _rows(graph: Graph, center: Ints, plans: Sequence[_Plan]) -> tuple[Ints, dict[tuple[int, int], int]]:
    """Return distinct configurations, and the row of every (site, option); a group's level is its leader's."""
    rows, places, known = [center], {}, {center.tobytes(): 0}
    for index, plan in enumerate(plans):
        for option in plan.probes:
            changed = center.copy()
            changed[index] = option
            row = graph.settle(changed[None])[0]
            if row.tobytes() not in known:
                known[row.tobytes()] = len(rows)
                rows.append(row)
            places[index, option] = known[row.tobytes()]
    return np.array(rows), places


@dataclass(frozen=True)
class _Plan:
    """Which options of a site are computed, and how the others follow from them."""

    probes: tuple[int, ...]
    terms: tuple[tuple[tuple[int, str], ...], ...]
    """Of every option: its attributes that differ from the center's."""
    order: tuple[tuple[int, tuple[int, str]], ...]
    """(probe, the attribute that it is the first to show)."""

    def spread(self, changes: dict[int, float]) -> list[float]:
        effects: dict[tuple[int, str], float] = {}
        for probe, fresh in self.order:
            known = sum(effects[t] for t in self.terms[probe] if t != fresh)
            effects[fresh] = changes[probe] - known
        return [changes[o] if o in changes else sum(effects[t] for t in terms)
                for o, terms in enumerate(self.terms)]


def _plans(graph: Graph, center: Ints) -> list[_Plan]:
    return [_plan(site.options, int(option)) for site, option in zip(graph.sites, center, strict=True)]


@lru_cache(maxsize=4096)
def _plan(options: tuple[Option, ...], center: int) -> _Plan:
    here = options[center].attributes
    terms = tuple(tuple((k, v) for k, (v, own) in enumerate(zip(option.attributes, here, strict=True)) if v != own)
                  for option in options)
    seen: set[tuple[int, str]] = set()
    order: list[tuple[int, tuple[int, str]]] = []
    while True:
        fresh = [(len(terms[o]), o) for o in range(len(options)) if sum(t not in seen for t in terms[o]) == 1]
        if not fresh:
            break
        _, option = min(fresh)
        new = next(t for t in terms[option] if t not in seen)
        seen.add(new)
        order.append((option, new))
    lone = [o for o in range(len(options)) if any(t not in seen for t in terms[o])]
    return _Plan(tuple([o for o, _ in order] + lone), terms, tuple(order))
