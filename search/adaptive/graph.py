"""A network as the engine sees it: sites with options, the order in which data flows, and what switching costs.

Everything is held in arrays that are padded to the largest number of options, so that thousands of configurations
are evaluated at once. A configuration is an int array (sites,): the option's index at every site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that a site may be."""

    scheme: str
    """How it computes: options of one scheme share their corrections to the prior."""
    format: str
    """Of its activations: where neighbours differ, there is a conversion."""
    attributes: tuple[str, ...]
    """What it is made of, e.g. (weights, activations, pruning): the effects of attributes on quality add up."""
    level: int = 0
    """Pruning level of its own outputs."""


@dataclass(frozen=True, slots=True)
class Site:
    """One layer."""

    name: str
    kind: str
    """Sites of one kind share their corrections to the prior."""
    options: tuple[Option, ...]
    source: int = -1
    """The site whose outputs it reads; -1: none."""
    skips: tuple[int, ...] = ()
    """Further sites whose outputs are joined with its own."""
    tied: bool = False
    """Its level is always its source's (depthwise)."""

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError(f"site {self.name!r} has no option: nothing can be searched there")


@dataclass(frozen=True)
class Graph:
    """The sites, each after those that it reads."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if not self.sites:
            raise ValueError("the search space is empty: there is no site")
        names = [site.name for site in self.sites]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"site names must be unique, got twice: {', '.join(twice)}")
        for index, site in enumerate(self.sites):
            if any(other >= index for other in (site.source, *site.skips)):
                raise ValueError(f"site {site.name!r} reads a site that comes after it; order them by data flow")
            if site.tied and site.source < 0:
                raise ValueError(f"site {site.name!r} is tied to its source, but has none")

    @property
    def length(self) -> int:
        """Number of sites."""
        return len(self.sites)

    @cached_property
    def width(self) -> int:
        """Most options of a site."""
        return max(len(site.options) for site in self.sites)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Whether an option exists: (sites, width)."""
        return np.array([[o < len(site.options) for o in range(self.width)] for site in self.sites])

    @cached_property
    def levels(self) -> Ints:
        """Level of an option: (sites, width)."""
        return self._padded([[option.level for option in site.options] for site in self.sites])

    @cached_property
    def sources(self) -> Ints:
        """Source of every site, itself where it has none: (sites,)."""
        return np.array([site.source if site.source >= 0 else index for index, site in enumerate(self.sites)])

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(from, to): first the sources, one for each site that has one, then the skips."""
        chain = [(site.source, index) for index, site in enumerate(self.sites) if site.source >= 0]
        return (*chain, *((skip, index) for index, site in enumerate(self.sites) for skip in site.skips))

    @cached_property
    def chained(self) -> int:
        """How many of the edges are sources."""
        return sum(site.source >= 0 for site in self.sites)

    @cached_property
    def follow(self) -> tuple[tuple[int, Ints], ...]:
        """Of every tied site: its index, and the option that it takes, by (its option, its source's level)."""
        found = []
        for index, site in enumerate(self.sites):
            if not site.tied:
                continue
            count = int(self.levels.max()) + 1
            table = np.tile(np.arange(self.width)[:, None], (1, count))
            for own, option in enumerate(site.options):
                for level in range(count):
                    match = [o for o, other in enumerate(site.options)
                             if other.level == level and other.attributes[:-1] == option.attributes[:-1]]
                    table[own, level] = match[0] if match else own
            found.append((index, table))
        return tuple(found)

    def settle(self, configs: Ints) -> Ints:
        """Give tied sites their source's level: (configurations, sites) -> the same."""
        if not self.follow:
            return configs
        settled = configs.copy()
        for index, table in self.follow:
            source = self.sites[index].source
            settled[:, index] = table[settled[:, index], self.levels[source, settled[:, source]]]
        return settled

    def neighbours(self, config: Ints) -> Ints:
        """Return every configuration that differs at one site (and at those tied to it): (count, sites)."""
        sites, options = self._moves
        differs = config[sites] != options
        rows = np.repeat(config[None], int(differs.sum()), axis=0)
        rows[np.arange(len(rows)), sites[differs]] = options[differs]
        return self.settle(rows)

    @cached_property
    def _moves(self) -> tuple[Ints, Ints]:
        """Every option of every site: its site, its number."""
        sites, options = np.nonzero(self.valid)
        return sites.astype(np.int64), options.astype(np.int64)

    def _padded(self, rows: Sequence[Sequence[int]]) -> Ints:
        table = np.zeros((self.length, self.width), np.int64)
        for index, row in enumerate(rows):
            table[index, :len(row)] = row
        return table


def unique(configs: Ints) -> Ints:
    """Return the distinct rows in order of appearance."""
    _, first = np.unique(configs, axis=0, return_index=True)
    return configs[np.sort(first)]


@dataclass(frozen=True)
class Tables:
    """An additive cost: of a site given its source's option, and of every edge."""

    graph: Graph
    sites: Floats
    """(sites, width of the source's options, width): row 0 alone where a site has no source."""
    edges: Floats
    """(edges, width, width): from option x to option."""

    def parts(self, configs: Ints) -> tuple[Floats, Floats]:
        """Return every site's and every edge's cost: (configurations, sites), (configurations, edges)."""
        graph = self.graph
        own = self.sites[np.arange(graph.length)[None], self._sources(configs), configs]
        if not graph.edges:
            return own, np.zeros((len(configs), 0))
        ends = np.array(graph.edges)
        return own, self.edges[np.arange(len(ends))[None], configs[:, ends[:, 0]], configs[:, ends[:, 1]]]

    def total(self, configs: Ints) -> Floats:
        """Return the cost of configurations: (configurations,)."""
        own, switching = self.parts(configs)
        total: Floats = own.sum(1) + switching.sum(1)
        return total

    def _sources(self, configs: Ints) -> Ints:
        """Return the option of every site's source, 0 where it has none."""
        graph = self.graph
        picked = configs[:, graph.sources]
        rootless = np.array([site.source < 0 for site in graph.sites])
        return np.where(rootless[None], 0, picked)
