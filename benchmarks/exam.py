"""One problem of the search exam in the searchers' words (docs/search.md says where the exam comes from).

The exam's configurations are (scheme, pruning level) of every layer; here each pair is an option of a site.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.baselines.task import Metrics, Task

TIMER_S = 4e-6
"""What the runtime's timer adds to every layer of a profile."""
TIE = 0.1
"""Percentage points."""


class Exam:
    """A problem as graph, prior and host."""

    def __init__(self, problem: Any) -> None:
        from simulator import AB, FMT, PRUNE, SCHEMES, SID, WB

        self.problem, model = problem, problem.m
        names, kinds = model.names, problem.b.kindof
        self.pairs: list[list[tuple[int, int]]] = []
        sites: list[Site] = []
        groups: list[str] = []
        for layer in range(problem.L):
            levels = len(PRUNE) if model.prune[layer] else 1
            pairs = [(s, level) for level in range(levels) for s in range(len(SCHEMES))]
            self.pairs.append(pairs)
            options = tuple(Option(SCHEMES[s][0], str(FMT[s]), (f"w{WB[s]}", f"a{AB[s]}", f"p{level}"), level)
                            for s, level in pairs)
            skip = () if model.skip[layer] < 0 else (int(model.skip[layer]),)
            source = int(model.pred[layer])
            groups.append(groups[source] if model.prune[layer] == "tied" else names[layer])
            sites.append(Site(names[layer], kinds[layer], options, source, skip, groups[-1]))
        self.graph = Graph(tuple(sites))
        self.floating = np.full(problem.L, SID["fp32"], np.int64)
        self.int8 = np.full(problem.L, SID["w8a8"], np.int64)
        self.lookup = np.zeros((problem.L, self.graph.width, 2), np.int64)
        for layer, pairs in enumerate(self.pairs):
            self.lookup[layer, :len(pairs)] = pairs
        self._bits = [(int(weights), int(activations)) for weights, activations in zip(WB, AB, strict=True)]

    def task(self, seed: int) -> Task:
        """Return the problem as a task."""
        prior = self.prior()
        return Task(prior, self.divergence, self.accuracy, self.problem.budget, self.floating, self.int8,
                    self.ladder(prior), seed, Metrics(lambda configs: {"accuracy": self.accuracy(configs)},
                                                      {"accuracy": None}), tie=TIE)

    def pruned(self) -> list[Ints]:
        """Return uniform int8 at every pruning level but none, the least first."""
        from simulator import PRUNE, SID

        rows = [[pairs.index(pair) if (pair := (SID["w8a8"], level)) in pairs else int(own)
                 for pairs, own in zip(self.pairs, self.int8, strict=True)] for level in range(1, len(PRUNE))]
        return list(self.graph.settle(np.array(rows, np.int64)))

    def config(self, picks: Ints) -> Ints:
        """Return the exam's own form: (layers, 2)."""
        return self.lookup[np.arange(len(picks)), picks]

    def prior(self) -> Tables:
        """Return the exam's prior as tables of options."""
        table, edges, elements, fixed = self.problem.prior()
        graph, width = self.graph, self.graph.width
        sites = np.zeros((graph.length, graph.depth, width))
        for layer, pairs in enumerate(self.pairs):
            source = graph.sites[layer].source
            for before in range(graph.depth if source >= 0 and self.problem.m.prune[source] else 1):
                for j, (scheme, own) in enumerate(pairs):
                    sites[layer, before, j] = table[layer, scheme, before, own]
        weights = {(int(a), int(b)): w for a, b, w in edges}
        switching = np.zeros((len(graph.edges), width, width))
        for e, (a, b) in enumerate(graph.edges):
            for i, one in enumerate(graph.sites[a].options):
                for j, other in enumerate(graph.sites[b].options):
                    if one.format != other.format:
                        switching[e, i, j] = weights[a, b] * (fixed + elements[a, one.level])
        return Tables(graph, sites, switching)

    def ladder(self, prior: Tables) -> tuple[tuple[int, ...], ...]:
        """Return, widest first, the schemes that no wider one beats in the prior of the whole network."""
        whole = [float(prior.total(np.full((1, self.graph.length), s, np.int64))[0]) for s in range(len(self._bits))]

        def beaten(scheme: int) -> bool:
            weights, activations = self._bits[scheme]
            return any(w >= weights and a >= activations and whole[other] <= whole[scheme]
                       for other, (w, a) in enumerate(self._bits) if other != scheme)

        kept = sorted((s for s in range(len(self._bits)) if not beaten(s)),
                      key=lambda s: (-self._bits[s][1], -self._bits[s][0]))
        return tuple(tuple(pairs.index((s, level)) for s in kept for level in sorted({p for _, p in pairs}))
                     for pairs in self.pairs)

    def divergence(self, configs: Ints) -> Floats:
        """Return KL(float32 || configuration) of the outputs on the calibration inputs."""
        if not hasattr(self, "reference"):
            self.reference = _log_softmax(self.problem.m.calib_logits(self.config(self.floating)))
        found = []
        for picks in configs:
            other = _log_softmax(self.problem.m.calib_logits(self.config(picks)))
            found.append(float((np.exp(self.reference) * (self.reference - other)).sum(1).mean()))
        return np.array(found)

    def accuracy(self, configs: Ints) -> Floats:
        """Return the accuracy in percent, evaluated on the host."""
        return np.array([self.problem.host(self.config(picks))[0] for picks in configs])


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found
