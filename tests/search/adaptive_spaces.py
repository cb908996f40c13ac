"""Small networks for the adaptive engine, with costs that a test can enumerate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.baselines.wiring import make_searcher
from search.candidate import Candidate
from search.goal import Goal
from search.oracle import Estimate
from search.proposers.graph import GraphProposer
from search.sites import Sites, sites_for_all
from search.space import LayerConfig, Scheme, SearchSpace
from tests.search.spaces import SHARE, AdditiveBoard

OPTIONS = tuple(Option(scheme, form, (scheme, f"p{level}"), level)
                for level in range(2) for scheme, form in (("float", "f"), ("int8", "i"), ("int4", "i")))


def random_graph(rng: np.random.Generator, length: int, most: int) -> Graph:
    """Return a graph of up to `most` options a site, with skips and a tied site now and then."""
    sites: list[Site] = []
    for index in range(length):
        source = int(rng.integers(max(-1, index - 2), index)) if index else -1
        tied = bool(rng.random() < 0.3)
        count = int(rng.integers(1, most + 1))
        options = OPTIONS if tied else tuple(OPTIONS[i] for i in sorted(rng.permutation(len(OPTIONS))[:count]))
        skips = (int(rng.integers(0, index)),) if index > 1 and rng.random() < 0.3 else ()
        sites.append(Site(f"s{index}", "conv" if index % 2 else "fc", options, source,
                          tuple(s for s in skips if s != source), f"g{rng.integers(2)}" if tied else ""))
    return Graph(tuple(sites))


def random_tables(rng: np.random.Generator, graph: Graph) -> Tables:
    """Return positive costs, lower at narrower levels; conversions only where formats differ."""
    shape = (graph.length, graph.depth, graph.width)
    read, own = 1 - rng.uniform(0.2, 0.4) * np.arange(graph.depth), 1 - rng.uniform(0.2, 0.4) * graph.levels
    edges = np.zeros((len(graph.edges), graph.width, graph.width))
    for e, (a, b) in enumerate(graph.edges):
        cost = float(rng.uniform(0.1, 0.6))
        for i, one in enumerate(graph.sites[a].options):
            for j, other in enumerate(graph.sites[b].options):
                edges[e, i, j] = cost * (one.format != other.format)
    costs = rng.uniform(0.2, 2.0, (graph.length, 1, graph.width)) * rng.uniform(0.9, 1.1, shape)
    return Tables(graph, costs * read[None, :, None] * own[:, None, :], edges)


def every(graph: Graph) -> Ints:
    """Return all configurations."""
    rows = np.array(list(product(*(range(len(site.options)) for site in graph.sites))), np.int64)
    kept = [row for row in rows if np.array_equal(graph.settle(row[None])[0], row)]
    return np.array(kept)


def chain(space: SearchSpace) -> Graph:
    """Return a space's layers, one after the other, and what is chosen for all of them."""
    return Graph((*(
        Site(layer.name, layer.kind, tuple(
            Option(c.label, "i" if c.scheme is Scheme.STATIC else "f", (c.label,)) for c in layer.choices), index - 1)
        for index, layer in enumerate(space.layers)), *sites_for_all(space)))


def flat_prior(space: SearchSpace, sites: Graph) -> Tables:
    """Return a prior that knows the schemes of `AdditiveBoard`, but not its layers."""
    table = np.zeros((sites.length, sites.depth, sites.width))
    for index, layer in enumerate(space.layers):
        for option, config in enumerate(layer.choices):
            table[index, :, option] = 2e-4 * SHARE[config]
    return Tables(sites, table, np.zeros((len(sites.edges), sites.width, sites.width)))


class AdditiveOracle:
    """A host that knows `AdditiveBoard`'s accuracy, and counts what it is asked."""

    def __init__(self, space: SearchSpace) -> None:
        self._board = AdditiveBoard(space)
        self.estimated = 0

    def divergences(self, candidates: Sequence[Candidate]) -> list[float | None]:
        return [0.9 - self._board.evidence(c).metrics["top1"] for c in candidates]

    def builds(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        return self.estimates(candidates)

    def estimates(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        self.estimated += len(candidates)
        found = [self._board.evidence(c) for c in candidates]
        return [Estimate(e.size_bytes, e.metrics) for e in found]


def proposer(space: SearchSpace, goal: Goal, sampler: str, seed: int = 0, threads: int = 1,
             choices: Mapping[str, tuple[LayerConfig, ...]] | None = None) -> GraphProposer:
    """Return a proposer with a simulated host."""
    sites = chain(space)
    return GraphProposer(Sites(space, sites), flat_prior(space, sites), AdditiveOracle(space), goal,
                         lambda task: make_searcher(sampler, task), seed, threads, choices)


def losses(table: Floats, configs: Ints) -> Floats:
    """Return additive losses, computed apart from the code under test."""
    return np.array([sum(table[site, option] for site, option in enumerate(config)) for config in configs])


def entering(graph: Graph, config: Ints, site: Site) -> int:
    """Return the level of what a site reads."""
    return graph.sites[site.source].options[config[site.source]].level if site.source >= 0 else 0


def totals(tables: Tables, configs: Ints) -> Floats:
    """Return additive costs, computed apart from the code under test."""
    graph = tables.graph
    found = []
    for config in configs:
        cost = sum(tables.sites[s, entering(graph, config, site), config[s]]
                   for s, site in enumerate(graph.sites))
        found.append(cost + sum(tables.edges[e, config[a], config[b]] for e, (a, b) in enumerate(graph.edges)))
    return np.array(found)
