"""A network as the engine sees it: sites with options, the order in which data flows, and what switching costs.

Everything is held in arrays that are padded to the largest number of options, so that thousands of configurations
are evaluated at once. A configuration is an int array (sites,): the option's index at every site.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


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
    arithmetic: str = ""
    """What it multiplies with: schemes of one arithmetic share most of their corrections. Empty: the scheme's own."""


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
    group: str = ""
    """Sites of one group always have the same level: a depthwise layer and its source, the ends of a residual branch.

    Empty: a group of its own.
    """
    free: bool = False
    """A choice for the whole network that changes no latency, such as the method of calibration; it reads nothing."""

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError(f"site {self.name!r} has no option: nothing can be searched there")
        if self.free and (self.source >= 0 or self.skips or self.group):
            raise ValueError(f"site {self.name!r} is free: it reads no other site and has no channels")


@dataclass(frozen=True)
class Graph:
    """The sites, each after those that it reads."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if not self.sites:
            raise ValueError("the search space is empty: there is no site")
        every = [site.name for site in self.sites]
        twice = sorted({name for name in every if every.count(name) > 1})
        if twice:
            raise ValueError(f"site names must be unique, got twice: {', '.join(twice)}")
        for index, site in enumerate(self.sites):
            if any(other >= index for other in (site.source, *site.skips)):
                raise ValueError(f"site {site.name!r} reads a site that comes after it; order them by data flow")
        for members in self.groups.values():
            offered = [{option.level for option in self.sites[index].options} for index in members]
            if any(levels != offered[0] for levels in offered):
                names = ", ".join(self.sites[index].name for index in members)
                raise ValueError(f"sites of one group must offer the same levels: {names}")

    @property
    def length(self) -> int:
        """Number of sites."""
        return len(self.sites)

    @cached_property
    def width(self) -> int:
        """Most options of a site."""
        return max(len(site.options) for site in self.sites)

    @cached_property
    def timed(self) -> Ints:
        """Sites that cost time."""
        return np.array([index for index, site in enumerate(self.sites) if not site.free], np.int64)

    @cached_property
    def valid(self) -> Bools:
        """Whether an option exists: (sites, width)."""
        return np.array([[o < len(site.options) for o in range(self.width)] for site in self.sites])

    @cached_property
    def levels(self) -> Ints:
        """Level of an option: (sites, width)."""
        return self._padded([[option.level for option in site.options] for site in self.sites])

    @cached_property
    def depth(self) -> int:
        """Number of levels."""
        return int(self.levels.max()) + 1

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
    def ends(self) -> tuple[Ints, Ints]:
        """Where every edge starts, where it ends: (edges,) each."""
        found = np.array(self.edges, np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def levels_of(self, config: Ints) -> bytes:
        """Return the levels of all sites as a key."""
        return self.levels[np.arange(self.length), config].astype(np.int8).tobytes()

    def entering(self, configs: Ints) -> Ints:
        """Return the level of every site's source, 0 where it has none: (configurations, sites)."""
        sources = self.sources[None]
        found: Ints = np.where(self._rootless[None], 0, self.levels[sources, configs[:, self.sources]])
        return found

    @cached_property
    def _rootless(self) -> Bools:
        return np.array([site.source < 0 for site in self.sites])

    @cached_property
    def groups(self) -> dict[str, Ints]:
        """Group -> its sites in order, the first leads; only groups of several sites."""
        found: dict[str, list[int]] = {}
        for index, site in enumerate(self.sites):
            if site.group:
                found.setdefault(site.group, []).append(index)
        return {name: np.array(members) for name, members in found.items() if len(members) > 1}

    @cached_property
    def scattered(self) -> tuple[Ints, ...]:
        """Those groups of which a site does not read its predecessor in the group: the tree alone cannot tie them."""
        return tuple(members for members in self.groups.values()
                     if any(self.sites[b].source not in members[:n + 1] for n, b in enumerate(members[1:])))

    @cached_property
    def classes(self) -> Ints:
        """Which format and level an option has, as a number: (sites, width)."""
        numbers: dict[tuple[str, int], int] = {}
        return self._padded([[numbers.setdefault((option.format, option.level), len(numbers))
                              for option in site.options] for site in self.sites])

    @cached_property
    def class_count(self) -> int:
        """Number of pairs of format and level."""
        return int(self.classes.max()) + 1

    @cached_property
    def representatives(self) -> Ints:
        """An option of every class: (sites, classes); 0 where the site has none of it."""
        table = np.zeros((self.length, self.class_count), np.int64)
        for index, site in enumerate(self.sites):
            for own in range(len(site.options) - 1, -1, -1):
                table[index, self.classes[index, own]] = own
        return table

    @cached_property
    def attribute_numbers(self) -> Ints:
        """Every attribute of every option, as numbers of (site, place, value): (sites, width, places)."""
        places = max(len(option.attributes) for site in self.sites for option in site.options)
        numbers: dict[tuple[int, int, str], int] = {}
        table = np.zeros((self.length, self.width, places), np.int64)
        for index, site in enumerate(self.sites):
            for own, option in enumerate(site.options):
                for place in range(places):
                    value = option.attributes[place] if place < len(option.attributes) else ""
                    table[index, own, place] = numbers.setdefault((index, place, value), len(numbers))
        return table

    @cached_property
    def leaders(self) -> Ints:
        """The first site of every site's group: (sites,)."""
        found = np.arange(self.length)
        for members in self.groups.values():
            found[members] = members[0]
        return found

    @cached_property
    def _at_level(self) -> Ints:
        """The option of the same scheme at another level: (sites, width, levels); the first one where none is."""
        table = np.tile(np.arange(self.width)[None, :, None], (self.length, 1, self.depth))
        for index, site in enumerate(self.sites):
            first: dict[int, int] = {}
            same: dict[tuple[str, int], int] = {}
            for own, option in enumerate(site.options):
                first.setdefault(option.level, own)
                same.setdefault((option.scheme, option.level), own)
            for own, option in enumerate(site.options):
                for level, there in first.items():
                    table[index, own, level] = same.get((option.scheme, level), there)
        return table

    @property
    def full_width(self) -> Ints:
        """The option of the same scheme whose outputs are at full width, level 0: (sites, width)."""
        found: Ints = self._at_level[:, :, 0]
        return found

    def settle(self, configs: Ints) -> Ints:
        """Give the sites of every group their leader's level: (configurations, sites) -> the same."""
        if not self.groups:
            return configs
        rows, leading = np.arange(self.length)[None], configs[:, self.leaders]
        found: Ints = self._at_level[rows, configs, self.levels[self.leaders[None], leading]]
        return found

    def neighbours(self, config: Ints) -> Ints:
        """Return every configuration that differs at one site (and at those of its group): (count, sites)."""
        sites, options = np.nonzero(self.valid & (np.arange(self.width)[None] != config[:, None]))
        here = self.levels[np.arange(self.length), config]
        moves = (self.leaders[sites] == sites) | (self.levels[sites, options] == here[sites])
        rows = np.repeat(config[None], int(moves.sum()), axis=0)
        rows[np.arange(len(rows)), sites[moves]] = options[moves]
        return self.settle(rows)

    def every(self) -> Iterator[Ints]:
        """Yield all legal configurations, each once: (sites,)."""
        return self.among([range(len(site.options)) for site in self.sites])

    def among(self, options: Sequence[Sequence[int]]) -> Iterator[Ints]:
        """Yield the legal configurations of these options of every site, each once: (sites,)."""
        picked = np.zeros(self.length, np.int64)

        def rest(site: int) -> Iterator[Ints]:
            if site == self.length:
                yield picked.copy()
                return
            leader = self.leaders[site]
            for option in options[site]:
                if leader == site or self.levels[site, option] == self.levels[leader, picked[leader]]:
                    picked[site] = option
                    yield from rest(site + 1)

        return rest(0)

    def group_moves(self, config: Ints) -> Ints:
        """Return every configuration in which one group of several sites has another level: (count, sites)."""
        rows = []
        for members in self.groups.values():
            leader = members[0]
            here = self.levels[leader, config[leader]]
            for level in dict.fromkeys(option.level for option in self.sites[leader].options):
                if level != here:
                    row = config.copy()
                    row[members] = self._at_level[members, config[members], level]
                    rows.append(row)
        return np.array(rows, np.int64).reshape(-1, self.length)

    @cached_property
    def alone(self) -> Bools:
        """Whether a site shares its level with no other: (sites,)."""
        found = np.ones(self.length, bool)
        for members in self.groups.values():
            found[members] = False
        return found

    def _padded(self, rows: Sequence[Sequence[int]]) -> Ints:
        table = np.zeros((self.length, self.width), np.int64)
        for index, row in enumerate(rows):
            table[index, :len(row)] = row
        return table


def unique(configs: Ints) -> Ints:
    """Return the distinct rows in order of appearance."""
    first = {row.tobytes(): index for index, row in reversed(list(enumerate(configs)))}
    return configs[sorted(first.values())]


@dataclass(frozen=True)
class Tables:
    """An additive cost: of a site given the level of what it reads, and of every edge."""

    graph: Graph
    sites: Floats
    """(sites, levels of the source, width): row 0 alone where a site has no source."""
    edges: Floats
    """(edges, width, width): from option x to option; equal for options of the same format and level."""

    def __post_init__(self) -> None:
        graph = self.graph
        for name, found, expected in (
                ("sites", self.sites.shape, (graph.length, graph.depth, graph.width)),
                ("edges", self.edges.shape, (len(graph.edges), graph.width, graph.width))):
            if found != expected:
                raise ValueError(f"tables of {name}: expected the shape {expected}, got {found}")

    @cached_property
    def full(self) -> Floats:
        """What the same scheme costs at full width: (sites, width)."""
        found: Floats = self.sites[np.arange(self.graph.length)[:, None], 0, self.graph.full_width]
        return found

    def parts(self, configs: Ints) -> tuple[Floats, Floats]:
        """Return every site's and every edge's cost: (configurations, sites), (configurations, edges)."""
        graph = self.graph
        own = self.sites[np.arange(graph.length)[None], graph.entering(configs), configs]
        if not graph.edges:
            return own, np.zeros((len(configs), 0))
        starts, ends = graph.ends
        return own, self.edges[np.arange(len(ends))[None], configs[:, starts], configs[:, ends]]

    def total(self, configs: Ints) -> Floats:
        """Return the cost of configurations: (configurations,)."""
        own, switching = self.parts(configs)
        total: Floats = own.sum(1) + switching.sum(1)
        return total


@dataclass(frozen=True, slots=True)
class Extra:
    """A further additive resource, e.g. the size of the artifact in bytes."""

    tables: Tables
    limit: float
