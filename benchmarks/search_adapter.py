"""Plugs the engine into the search exam: `python score.py search_adapter.py:search` (see docs/search.md).

The exam's configurations are (scheme, pruning level) of every layer; here each pair is an option of a site.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from search.adaptive.engine import Engine
from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.adaptive.latency import LatencyModel
from search.adaptive.memory import key_of

TIMER_S = 4e-6
CONFIDENCE = 0.95
REPEATS = 3
"""Measurements that are kept for the finalists."""


class Exam:
    """One problem of the exam in the engine's words."""

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


def search(problem: Any, measurements: int, rng: np.random.Generator) -> Ints | None:
    """Search with the adaptive engine; return what it would ship."""
    exam = Exam(problem)
    engine = Engine(LatencyModel(exam.prior()), exam.divergence, exam.accuracy, problem.budget, exam.floating,
                    int(rng.integers(1 << 31)))
    times, _, _ = problem.measure_profiled(exam.config(exam.int8))
    engine.tell_profile(exam.int8, times, TIMER_S)
    engine.blocked.add(key_of(exam.int8))

    def measure(picks: Ints) -> None:
        latency, _, _ = problem.measure(exam.config(picks))
        repeat = problem.n_meas < measurements and engine.surprising(picks, latency)
        if repeat:
            latency = min(latency, problem.measure(exam.config(picks))[0])
        engine.tell(picks, latency, None, confirmed=repeat)

    while problem.n_meas < measurements - REPEATS:
        picks = engine.propose()
        if picks is None:
            break
        measure(picks)
    while problem.n_meas < measurements:
        judge = engine.judge()
        hopeful, sure = judge.incumbent(0.4), judge.incumbent(CONFIDENCE)
        repeat = hopeful is not None and (sure is None or not np.array_equal(hopeful, sure))
        next_one = hopeful if repeat else engine.propose()
        if next_one is None:
            break
        measure(next_one)
    choice = engine.judge().incumbent(CONFIDENCE)
    return None if choice is None else exam.config(choice)
