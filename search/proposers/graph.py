"""Any searcher as a proposer: candidates in, candidates out; evidence comes from the host and from boards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from search.adaptive.graph import Extra, Floats, Ints, Tables
from search.adaptive.judge import Aim, Outlook, Rivals
from search.adaptive.latency import LatencyModel, Reading
from search.adaptive.luck import Close
from search.adaptive.reach import Reach, reach
from search.baselines.task import Metrics, Searcher, Task
from search.candidate import Candidate
from search.goal import TIE, Evidence, Goal
from search.oracle import Estimate, HostOracle
from search.sites import Sites
from search.space import LayerConfig

READINGS = 3
"""Before so many nothing surprises."""


class GraphProposer:
    """Proposes what a board should measure next.

    Args:
        sites: what may be chosen, by data flow.
        prior: seconds of every option and conversion, in proportion.
        oracle: the host.
        goal: constraints and objective.
        make: makes the searcher.
        seed: of the searcher's chance.
        threads: of every candidate.
        choices: layer -> what a searcher on an ordinal scale sees, widest first; None: everything.
    """

    def __init__(self, sites: Sites, prior: Tables, oracle: HostOracle, goal: Goal,
                 make: Callable[[Task], Searcher], seed: int, threads: int,
                 choices: Mapping[str, Sequence[LayerConfig]] | None = None) -> None:
        self._sites, self._oracle, self._goal, self._threads = sites, oracle, goal, threads
        self._divergences: dict[str, float | None] = {}
        self._estimates: dict[str, Estimate | None] = {}
        self._beside: list[float] = []
        self._built: set[tuple[tuple[str, int], ...]] = {()}
        """Widths whose artifacts cost milliseconds by now."""
        self._seed, self._believed = seed, LatencyModel(prior)
        graph = sites.graph
        ladder = [tuple(range(len(site.options))) for site in graph.sites]
        for layer, index in zip(sites.layers, graph.timed, strict=True):
            kept = layer.choices if choices is None else choices[layer.name]
            ladder[index] = tuple(level * len(layer.choices) + layer.choices.index(config)
                                  for config in kept for level in range(len(sites.shares(index))))
        minimum = goal.minimum or {}
        least = {goal.objective: minimum.get(goal.objective), **minimum}
        floating = np.zeros(graph.length, np.int64)
        task = Task(prior, self._divergence, self._score, goal.latency_budget_s, floating, sites.int8, tuple(ladder),
                    seed, Metrics(self._scores, least), aim_of(goal), self._size_limit, (self._exact,), self._closeness,
                    TIE)
        self._searcher = make(task)

    def propose(self) -> Candidate | None:
        """Return a candidate that was neither proposed nor told before; None when there is none left."""
        while (picks := self._searcher.propose()) is not None:
            candidate = self._candidate(picks)
            if np.array_equal(self._picks(candidate), picks):
                return candidate
            self._searcher.tell_infeasible(picks)  # it is another one's double: see _score
        return None

    def tell(self, candidate: Candidate, evidence: Evidence | None) -> None:
        """Learn what became of a candidate; None: it is infeasible."""
        picks = self._picks(candidate)
        self._built.add(candidate.widths)
        if evidence is None:
            self._estimates[candidate.id] = None
            self._searcher.tell_infeasible(picks)
            return
        self._beside.append(evidence.size_bytes - float(self._weights.total(picks[None])[0]))
        before = self._estimates.get(candidate.id) or Estimate(None, {})
        self._estimates[candidate.id] = replace(before, size_bytes=evidence.size_bytes, metrics=evidence.metrics)
        excess = {name: value for name, value in self._goal.constraints(evidence).items() if name != "latency"}
        # A reading that was repeated may still be called a spike: what no correction explains must not bend them all.
        self._searcher.tell(picks, evidence.latency_s, float(evidence.metrics[self._goal.objective]), excess)
        self._believed.readings.append(Reading(tuple(int(option) for option in picks), evidence.latency_s))

    def surprising(self, candidate: Candidate, latency_s: float) -> bool:
        """See Proposer: whatever the searcher makes of latencies."""
        return len(self._believed.readings) >= READINGS and self._believed.surprising(
            self._picks(candidate), latency_s)

    def foresee(self) -> None:
        """See Proposer."""
        self._searcher.foresee()

    def outlook(self) -> Outlook | None:
        """Return what the last proposal was expected to bring; None where the searcher does not say."""
        return self._searcher.outlook()

    def notes(self) -> str | None:
        """See Proposer."""
        found = self._searcher.notes()
        return None if found is None else f"{self._constraints}\n{found}"

    def learn(self, notes: str) -> None:
        """See Proposer."""
        constraints, _, found = notes.partition("\n")
        self._searcher.learn(found, constraints == self._constraints)

    @cached_property
    def _constraints(self) -> str:
        """What decides which accuracies count, beside the latency."""
        return json.dumps([self._goal.objective, dict(self._goal.minimum or {}), self._goal.size_budget_bytes],
                          sort_keys=True)

    def reach(self) -> Reach | None:
        """Return what the board can reach at all; None without a latency budget, or before anything was told."""
        budget_s = self._goal.latency_budget_s
        return reach(self._believed, budget_s, self._seed) if budget_s and self._believed.readings else None

    def offers(self) -> Rivals:
        """See Contender."""
        return self._searcher.offers()

    def face(self, rivals: Rivals) -> None:
        """See Contender."""
        self._searcher.face(rivals)

    def chance_within(self, limit_s: float) -> float:
        """See Contender."""
        return reach(self._believed, limit_s, self._seed).probability if self._believed.readings else 1.0

    def _candidate(self, picks: Ints) -> Candidate:
        return self._sites.candidate(picks, self._threads)

    def _picks(self, candidate: Candidate) -> Ints:
        return self._sites.picks(candidate)

    def _divergence(self, configs: Ints) -> Floats:
        candidates = [self._candidate(picks) for picks in configs]
        missing = {c.id: c for c in candidates if c.id not in self._divergences}
        found = self._oracle.divergences(list(missing.values()))
        self._divergences.update(zip(missing, found, strict=True))
        values = [self._divergences[c.id] for c in candidates]
        return np.array([np.inf if value is None else value for value in values])

    def _estimated(self, configs: Ints) -> list[Estimate | None]:
        candidates = [self._candidate(picks) for picks in configs]
        missing = {c.id: c for c in candidates if c.id not in self._estimates}
        for ask, built in ((self._oracle.builds, True), (self._oracle.estimates, False)):
            asked = {key: c for key, c in missing.items() if (c.widths in self._built) is built}
            self._estimates.update(zip(asked, ask(list(asked.values())), strict=True))
        return [self._estimates[c.id] for c in candidates]

    def _score(self, configs: Ints) -> Floats:
        """Return what configurations are worth; NaN also for doubles.

        A choice for all layers that changes none (a calibration where nothing has integer activations) makes another
        configuration, but the same candidate.
        """
        return np.where(self._doubles(configs), np.nan, self._worths(configs, self._estimated(configs)))

    def _doubles(self, configs: Ints) -> list[bool]:
        return [not np.array_equal(self._picks(self._candidate(picks)), picks) for picks in configs]

    def _exact(self, configs: Ints) -> Floats:
        """Build candidates that are about to be measured."""
        candidates = [self._candidate(picks) for picks in configs]
        self._built |= {c.widths for c in candidates}
        for candidate in candidates:
            known = self._estimates.get(candidate.id)
            if known is not None and known.size_bytes is None:
                del self._estimates[candidate.id]  # it was only rated
        return np.where(self._doubles(configs), np.nan, self._worths(configs, self._estimated(configs)))

    def _scores(self, configs: Ints) -> Mapping[str, Floats]:
        names = dict.fromkeys([self._goal.objective, *(self._goal.minimum or {})])
        estimates = self._estimated(configs)
        return {name: np.array([np.nan if e is None else e.metrics[name] for e in estimates]) for name in names}

    def _closeness(self, configs: Ints) -> list[Close | None]:
        """Return how close candidates are to float32; what was only measured is evaluated on the host now."""
        candidates = [self._candidate(picks) for picks in configs]
        known = {c.id: self._estimates.get(c.id) for c in candidates}
        missing = {c.id: c for c in candidates if (e := known[c.id]) is not None and e.divergence is None}
        known.update(zip(missing, self._oracle.builds(list(missing.values())), strict=True))
        name = self._goal.objective
        return [None if e is None or e.divergence is None else Close(e.divergence, e.luck.get(name, 0.0))
                for e in (known[c.id] for c in candidates)]

    def _worths(self, configs: Ints, estimates: Sequence[Estimate | None]) -> Floats:
        return np.array([np.nan if e is None else self._worth(e, picks)
                         for picks, e in zip(configs, estimates, strict=True)])

    def _worth(self, estimate: Estimate, picks: Ints) -> float:
        """Return the objective, NaN where another constraint than latency is broken."""
        size = estimate.size_bytes
        if size is None:
            size = round(float(self._weights.total(picks[None])[0]) + self._rest)
        if self._goal.size_budget_bytes is not None and size > self._goal.size_budget_bytes:
            return float("nan")
        minimum: Mapping[str, float] = self._goal.minimum or {}
        if any(not estimate.metrics[metric] >= least for metric, least in minimum.items()):
            return float("nan")
        return float(estimate.metrics[self._goal.objective])

    def _size_limit(self) -> tuple[Extra, ...]:
        """Return the size as a resource: weights times bits, plus what artifacts hold beside (the median so far)."""
        limit = self._goal.size_budget_bytes
        if limit is None:
            return ()
        return (Extra(self._weights, max(limit - self._rest, 1.0)),)

    @property
    def _rest(self) -> float:
        """What artifacts hold beside weights, in bytes: the median so far."""
        return float(np.median(self._beside)) if self._beside else 0.0

    @cached_property
    def _weights(self) -> Tables:
        """Weights times bits, in bytes."""
        graph = self._sites.graph
        table = np.zeros((graph.length, graph.depth, graph.width))
        for layer, index in zip(self._sites.layers, graph.timed, strict=True):
            site, made = graph.sites[index], self._sites.shares(index)
            for entering, read in enumerate(self._sites.shares(site.source) if site.source >= 0 else (1.0,)):
                for option in range(len(site.options)):
                    level, choice = divmod(option, len(layer.choices))
                    table[index, entering, option] = (
                        layer.weights * read * made[level] * layer.choices[choice].weight_bits / 8)
        return Tables(graph, table, np.zeros((len(graph.edges), graph.width, graph.width)))


def aim_of(goal: Goal) -> Aim:
    """Return what a searcher looks for."""
    if goal.front is not None:
        return Aim.FRONT
    return Aim.ACCURATE if goal.maximises_quality else Aim.FASTEST
