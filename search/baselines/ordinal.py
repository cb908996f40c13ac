"""A reduced ordinal scale: per site one integer for the scheme and one for the pruning level, widest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.adaptive.graph import Graph, Ints
from search.baselines.ledger import Ledger

NEIGHBOURS = 200


@dataclass(frozen=True, slots=True)
class Variable:
    """One integer of the scale."""

    name: str
    site: int
    of_level: bool
    count: int


class Scale:
    """Turns integers into configurations and back.

    Args:
        graph: says what is legal.
        ladder: of every site, the options on the scale, widest first.
        seed: of chance.
    """

    def __init__(self, graph: Graph, ladder: Sequence[Sequence[int]], seed: int) -> None:
        self.graph, self.ladder = graph, ladder
        self._rng = np.random.default_rng([seed, 1])
        self._schemes = [list(dict.fromkeys(site.options[o].scheme for o in options))
                         for site, options in zip(graph.sites, ladder, strict=True)]
        self._levels = [sorted({site.options[o].level for o in options})
                        for site, options in zip(graph.sites, ladder, strict=True)]
        self._option = [self._table(index) for index in range(graph.length)]
        names = [site.name for site in graph.sites]
        self.variables = tuple(
            [Variable(names[s], s, False, len(schemes)) for s, schemes in enumerate(self._schemes) if len(schemes) > 1]
            + [Variable(f"{names[s]}/level", s, True, len(levels)) for s, levels in enumerate(self._levels)
               if len(levels) > 1])

    def decode(self, values: Sequence[int]) -> Ints:
        """Return the legal configuration of one value for every variable: (sites,)."""
        scheme, level = [0] * self.graph.length, [0] * self.graph.length
        for variable, value in zip(self.variables, values, strict=True):
            (level if variable.of_level else scheme)[variable.site] = value
        row = [self._option[s][scheme[s]][level[s]] for s in range(self.graph.length)]
        return np.asarray(self.graph.settle(np.array([row], np.int64))[0])

    def encode(self, config: Ints) -> list[int] | None:
        """Return the variables' values; None for a configuration that is not on the scale."""
        if any(int(option) not in self.ladder[s] for s, option in enumerate(config)):
            return None
        return self.values(config)

    def values(self, config: Ints) -> list[int]:
        """Return the variables' values, the widest where a site is not on the scale."""
        places = [self._place(s, int(option)) for s, option in enumerate(config)]
        return [places[v.site][v.of_level] for v in self.variables]

    def chance(self) -> Ints:
        """Return any configuration on the scale."""
        return self.decode([int(self._rng.integers(v.count)) for v in self.variables])

    def mutate(self, config: Ints, moves: int) -> Ints:
        """Give so many variables any value; the others stay, on the scale or not."""
        row = config.copy()
        for place in self._rng.permutation(len(self.variables))[:moves]:
            variable = self.variables[int(place)]
            scheme, level = self._place(variable.site, int(row[variable.site]))
            value = int(self._rng.integers(variable.count))
            row[variable.site] = self._option[variable.site][scheme if variable.of_level else value][
                value if variable.of_level else level]
        return np.asarray(self.graph.settle(row[None])[0])

    def step(self, ledger: Ledger) -> Ints | None:
        """Return a fresh configuration one to four moves from the best; None when none was found."""
        best = ledger.best()
        if best is None or not self.variables:
            return None
        for attempt in range(NEIGHBOURS):
            config = self.mutate(best.picks, 1 + attempt // (NEIGHBOURS // 4))
            if ledger.fresh(config[None])[0]:
                return config
        return None

    def _table(self, site: int) -> list[list[int]]:
        """Return the option of every (scheme, level): the one of the nearest level where the scheme lacks a level."""
        return [[self._nearest(site, scheme, level) for level in self._levels[site]] for scheme in self._schemes[site]]

    def _nearest(self, site: int, scheme: str, level: int) -> int:
        options = self.graph.sites[site].options
        return min((o for o in self.ladder[site] if options[o].scheme == scheme),
                   key=lambda o: abs(options[o].level - level))

    def _place(self, site: int, option: int) -> tuple[int, int]:
        """Return an option's scheme and level on the scale, the widest where it is not on it."""
        found = self.graph.sites[site].options[option]
        schemes, levels = self._schemes[site], self._levels[site]
        return (schemes.index(found.scheme) if found.scheme in schemes else 0,
                levels.index(found.level) if found.level in levels else 0)
