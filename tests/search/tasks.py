"""Searches over small graphs with a board whose truth a test can enumerate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.adaptive.judge import Aim
from search.baselines.task import Metrics, Searcher, Task
from tests.search.adaptive_spaces import every, losses, random_tables, totals

SCHEMES = (("float", "f"), ("int8", "i"), ("int4", "i"))


def leveled(length: int, levels: int = 1) -> Graph:
    """Return a chain in which every site has every scheme at every level."""
    options = tuple(Option(scheme, form, (scheme, f"p{level}"), level)
                    for level in range(levels) for scheme, form in SCHEMES)
    return Graph(tuple(Site(f"s{i}", "conv" if i % 2 else "fc", options, i - 1) for i in range(length)))


@dataclass
class Bench:
    """A host and a board that know everything, and what was asked of them."""

    graph: Graph
    seconds: Tables
    loss: Floats
    """(sites, width)."""
    runs: Callable[[Ints], bool] = lambda config: True
    knows: bool = True
    """Whether the host's accuracy is a number."""
    told: list[tuple[Ints, float]] = field(default_factory=list)

    @classmethod
    def by_chance(cls, graph: Graph, seed: int = 0) -> Bench:
        """Return a bench on which narrower options are faster, and worse in accuracy."""
        rng = np.random.default_rng(seed)
        seconds = random_tables(rng, graph)
        speed, harm = np.ones((graph.length, graph.width)), np.zeros((graph.length, graph.width))
        for s, site in enumerate(graph.sites):
            for o, option in enumerate(site.options):
                narrow = {"float": 0.0, "int8": 1.0, "int4": 1.5}[option.scheme] + 0.7 * option.level
                speed[s, o], harm[s, o] = 1 / (1 + narrow), narrow * float(rng.uniform(0.1, 1.0))
        return cls(graph, Tables(graph, np.ones_like(seconds.sites) * speed[:, None, :], 0.1 * seconds.edges),
                   0.02 * harm)

    def latency_s(self, config: Ints) -> float:
        return float(totals(self.seconds, config[None])[0])

    def accuracy(self, configs: Ints) -> Floats:
        return 0.9 - losses(self.loss, configs) if self.knows else np.full(len(configs), np.nan)

    def divergence(self, configs: Ints) -> Floats:
        return losses(self.loss, configs)

    def task(self, share: float | None = 0.6, seed: int = 0, prior: Tables | None = None,
             metrics: Metrics | None = None, fastest: bool = False) -> Task:
        """Return a search whose budget is a share of float's latency."""
        floating = np.zeros(self.graph.length, np.int64)
        int8 = np.array([next((o for o, option in enumerate(site.options) if option.scheme == "int8"), 0)
                         for site in self.graph.sites], np.int64)
        floating, int8 = (self.graph.settle(config[None])[0] for config in (floating, int8))
        ladder = tuple(tuple(range(len(site.options))) for site in self.graph.sites)
        own = Metrics(lambda configs: {"top1": self.accuracy(configs)}, {"top1": None})
        return Task(prior or self.seconds, self.divergence, self.accuracy,
                    None if share is None else share * self.latency_s(floating), floating, int8, ladder, seed,
                    metrics or own, Aim.FASTEST if fastest else Aim.ACCURATE)

    def answer(self, searcher: Searcher, config: Ints) -> None:
        """Measure a configuration and tell."""
        self.told.append((config, self.latency_s(config)))
        if self.runs(config):
            searcher.tell(config, self.latency_s(config), float(self.accuracy(config[None])[0]), {})
        else:
            searcher.tell_infeasible(config)

    def drive(self, searcher: Searcher, count: int) -> list[tuple[int, ...]]:
        """Return what was proposed."""
        found: list[tuple[int, ...]] = []
        while len(found) < count and (config := searcher.propose()) is not None:
            found.append(tuple(int(o) for o in config))
            self.answer(searcher, config)
        return found

    def optimum(self, budget_s: float) -> float:
        """Return the least loss within a budget."""
        configs = every(self.graph)
        return float(losses(self.loss, configs)[totals(self.seconds, configs) <= budget_s].min())
