"""The adaptive engine as a proposer: candidates in, candidates out; evidence comes from the host and from boards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search.adaptive.engine import Engine, Extra
from search.adaptive.graph import Floats, Graph, Ints, Tables
from search.adaptive.judge import Aim
from search.adaptive.latency import LatencyModel
from search.adaptive.memory import key_of
from search.candidate import Candidate
from search.goal import Evidence, Goal
from search.oracle import Estimate, HostOracle
from search.space import SearchSpace

PASSES = 24
"""Artifacts that are built and run on the calibration inputs for one measurement: one or two seconds of two cores."""
EVALUATIONS = 6
"""Artifacts whose accuracy is computed after each sensitivity table."""


class AdaptiveProposer:
    """Proposes what a board should measure next.

    Args:
        space: what may be chosen.
        sites: the layers of `space` by data flow, their options in the order of the layers' choices.
        prior: seconds of every option and conversion, in proportion.
        oracle: the host.
        goal: constraints and objective.
        seed: of the engine's draws.
        threads: of every candidate.
    """

    def __init__(self, space: SearchSpace, sites: Graph, prior: Tables, oracle: HostOracle, goal: Goal, seed: int,
                 threads: int) -> None:
        self._space, self._sites, self._oracle, self._goal, self._threads = space, sites, oracle, goal, threads
        self._divergences: dict[str, float | None] = {}
        self._estimates: dict[str, Estimate | None] = {}
        self._evidence: dict[str, tuple[Candidate, Evidence]] = {}
        floating = np.zeros(sites.length, np.int64)
        self._engine = Engine(LatencyModel(prior), self._divergence, self._score, goal.latency_budget_s, floating, seed,
                              aim=Aim.ACCURATE if goal.maximises_quality else Aim.FASTEST, passes=PASSES,
                              evaluations=EVALUATIONS)

    def propose(self) -> Candidate | None:
        """Return a candidate that was neither proposed nor told before; None when there is none left."""
        self._engine.extra = self._size_limit()
        picks = self._engine.propose()
        if picks is None:
            return None
        self._engine.blocked.add(key_of(picks))
        return self._candidate(picks)

    def tell(self, candidate: Candidate, evidence: Evidence | None) -> None:
        """Learn what became of a candidate; None: it is infeasible."""
        picks = self._picks(candidate)
        if evidence is None:
            self._engine.tell_infeasible(picks)
            self._estimates[candidate.id] = None
            return
        self._evidence[candidate.id] = candidate, evidence
        estimate = Estimate(evidence.size_bytes, evidence.metrics)
        self._estimates[candidate.id] = estimate
        self._engine.tell(picks, evidence.latency_s, self._worth(estimate))

    def _candidate(self, picks: Ints) -> Candidate:
        configs = {site.name: self._space.by_name[site.name].choices[int(o)]
                   for site, o in zip(self._sites.sites, picks, strict=True)}
        return Candidate.of(self._space, configs, self._threads)

    def _picks(self, candidate: Candidate) -> Ints:
        return np.array([self._space.by_name[site.name].choices.index(candidate.config_of[site.name])
                         for site in self._sites.sites], np.int64)

    def _divergence(self, configs: Ints) -> Floats:
        candidates = [self._candidate(picks) for picks in configs]
        missing = {c.id: c for c in candidates if c.id not in self._divergences}
        found = self._oracle.divergences(list(missing.values()))
        self._divergences.update(zip(missing, found, strict=True))
        values = [self._divergences[c.id] for c in candidates]
        return np.array([np.inf if value is None else value for value in values])

    def _score(self, configs: Ints) -> Floats:
        candidates = [self._candidate(picks) for picks in configs]
        missing = {c.id: c for c in candidates if c.id not in self._estimates}
        found = self._oracle.estimates(list(missing.values()))
        self._estimates.update(zip(missing, found, strict=True))
        estimates = [self._estimates[c.id] for c in candidates]
        return np.array([np.nan if e is None else self._worth(e) for e in estimates])

    def _worth(self, estimate: Estimate) -> float:
        """Return the objective, NaN where another constraint than latency is broken."""
        if self._goal.size_budget_bytes is not None and estimate.size_bytes > self._goal.size_budget_bytes:
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
        sites, width = self._sites, self._sites.width
        table = np.zeros((sites.length, sites.depth, width))
        for index, site in enumerate(sites.sites):
            layer = self._space.by_name[site.name]
            for option, config in enumerate(layer.choices):
                table[index, :, option] = layer.weights * config.weight_bits / 8
        tables = Tables(sites, table, np.zeros((len(sites.edges), width, width)))
        known = [(c, e.size_bytes) for c, e in self._evidence.values()]
        beside = [size - float(tables.total(self._picks(c)[None])[0]) for c, size in known]
        rest = float(np.median(beside)) if beside else 0.0
        return (Extra(tables, max(limit - rest, 1.0)),)


