"""An Optuna sampler on a reduced ordinal space: one integer per layer, widest choice first."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Mapping

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from search.candidate import Candidate
from search.goal import Evidence, Goal
from search.space import LayerConfig, Scheme, SearchSpace

STARTUP = 4
ATTEMPTS = 200
NEIGHBOURS = 200
MARGIN = 0.02
LOSS = 0.002
BASELINE = "random"
"""The sampler that learns nothing: what it finds is chance."""
SCAN = 5000

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True),
    BASELINE: lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
"""Name -> factory. TPE: Bergstra et al. 2011 (NeurIPS 24), multivariate and with constraints as in
Optuna (Akiba et al. 2019); random: the baseline that every sampler must beat."""


class OrdinalProposer:
    """Wrap an Optuna sampler: ask and tell, constraints by `Trial.set_constraint`.

    Args:
        space: the whole space.
        choices: layer name -> the configurations that the sampler sees (a subset of the legal ones).
        goal: gives the score that is maximised and the constraints.
        sampler: one of `SAMPLERS`.
        seed: of the sampler and of the neighbour moves.
        threads: of every candidate.
    """

    def __init__(self, space: SearchSpace, choices: Mapping[str, tuple[LayerConfig, ...]], goal: Goal,
                 sampler: str, seed: int, threads: int) -> None:
        self._space = space
        self._choices = choices
        self._goal = goal
        self._threads = threads
        self._random = random.Random(seed)  # noqa: S311 - a search, not a secret
        self._study = optuna.create_study(direction="maximize", sampler=SAMPLERS[sampler](seed))
        self._free: dict[str, BaseDistribution] = {
            name: IntDistribution(0, len(options) - 1) for name, options in choices.items() if len(options) > 1}
        self._climbs = sampler != BASELINE
        self._turn = 0
        self._asked: dict[str, optuna.Trial] = {}
        self._known: set[str] = set()
        self._best: list[tuple[str, Evidence]] = []
        self._by_id: dict[str, Candidate] = {}

    def propose(self) -> Candidate | None:
        """Ask the sampler, or, every other time (but for `random`), step from the best candidate known.

        What is surely too large is skipped: sizes are additive, so they need no measurement.
        """
        self._turn += 1
        if self._climbs and self._turn % 2 == 0 and (step := self._neighbour()) is not None:
            return step
        for _ in range(ATTEMPTS):
            trial = self._study.ask(self._free)
            candidate = self._candidate({name: int(value) for name, value in trial.params.items()})
            if candidate.id not in self._known and self._fits(candidate):
                self._known.add(candidate.id)
                self._asked[candidate.id] = trial
                return candidate
            self._study.tell(trial, state=TrialState.FAIL)
        return self._neighbour() or self._any()

    def tell(self, candidate: Candidate, evidence: Evidence | None) -> None:
        """Give a trial to the study; a candidate outside the reduced space only counts as known."""
        self._known.add(candidate.id)
        self._by_id[candidate.id] = candidate
        if evidence is not None:
            self._best.append((candidate.id, evidence))
        trial = self._asked.pop(candidate.id, None)
        if trial is not None:
            if evidence is None:
                self._study.tell(trial, state=TrialState.PRUNED)
                return
            for key, value in self._goal.constraints(evidence).items():
                trial.set_constraint(key, value)
            self._study.tell(trial, self._goal.score(evidence))
            return
        params = self._params(candidate)
        if params is None:
            return
        if evidence is None:
            self._study.add_trial(optuna.create_trial(
                state=TrialState.PRUNED, params=params, distributions=self._free))
        else:
            self._study.add_trial(optuna.create_trial(
                value=self._goal.score(evidence), params=params, distributions=self._free,
                constraints=self._goal.constraints(evidence)))

    def _candidate(self, params: Mapping[str, int]) -> Candidate:
        configs = {name: options[params.get(name, 0)] for name, options in self._choices.items()}
        return Candidate.of(self._space, configs, self._threads)

    def _params(self, candidate: Candidate) -> dict[str, int] | None:
        try:
            return {name: self._choices[name].index(candidate.config_of[name]) for name in self._free}
        except ValueError:
            return None

    def _neighbour(self) -> Candidate | None:
        """Change one or two layers of the best candidate so far; None when nothing new is found."""
        best = self._goal.best(self._best)
        if best is None or not self._free:
            return None
        start = self._by_id[best]
        for attempt in range(NEIGHBOURS):
            configs = dict(start.config_of)
            moves = min(1 + attempt // (NEIGHBOURS // 4), len(self._free))
            for name in self._random.sample(sorted(self._free), moves):
                configs[name] = self._random.choice(self._choices[name])
            candidate = Candidate.of(self._space, configs, self._threads)
            if candidate.id not in self._known and self._fits(candidate):
                self._known.add(candidate.id)
                self._by_id[candidate.id] = candidate
                return candidate
        return None

    def _any(self) -> Candidate | None:
        """Return the first candidate that is not known, widest first; None when there is none left."""
        every = itertools.product(*(range(len(self._choices[name])) for name in self._free))
        for picks in itertools.islice(every, len(self._known) + SCAN):
            candidate = self._candidate(dict(zip(self._free, picks, strict=True)))
            if candidate.id not in self._known and self._fits(candidate):
                self._known.add(candidate.id)
                return candidate
        return None

    def _fits(self, candidate: Candidate) -> bool:
        """Tell whether the size budget may hold: weights x bits, plus the overhead of a typical artifact."""
        limit = self._goal.size_budget_bytes
        if limit is None or not self._best:
            return True
        overheads = [e.size_bytes - weight_bytes(self._space, self._by_id[name]) for name, e in self._best]
        return weight_bytes(self._space, candidate) + statistics.median(overheads) <= limit * (1 + MARGIN)


def weight_bytes(space: SearchSpace, candidate: Candidate) -> float:
    """Return what a candidate's weights take, without scales and other overhead."""
    return sum(layer.weights * candidate.config_of[layer.name].weight_bits / 8 for layer in space.layers)


def reduced_choices(space: SearchSpace, weighted: Mapping[LayerConfig, Evidence],
                    weightless: Mapping[str, Evidence], goal: Goal) -> dict[str, tuple[LayerConfig, ...]]:
    """Keep, per layer, float32 and what the measured recipes do not rule out.

    Args:
        space: the whole space.
        weighted: configuration -> evidence of the candidate in which all layers with weights take it
            and the others stay float32. A configuration that was not measured is left out, and so is
            one that another dominates: faster by more than `MARGIN`, no worse in the objective by more
            than `LOSS`, and (where the goal limits the size) no larger.
        weightless: kind of operator without weights -> evidence of static int8 weights with that kind
            static too. A kind that makes it slower by more than `MARGIN` stays float32.
        goal: says what counts.
    """
    kept = {config for config, evidence in weighted.items()
            if not any(_dominates(other, evidence, goal) for key, other in weighted.items() if key != config)}
    base = next((e for config, e in weighted.items() if config.scheme is Scheme.STATIC and config.weight_bits == 8),
                None)
    slow = {kind for kind, evidence in weightless.items()
            if base is not None and evidence.latency_s > base.latency_s * (1 + MARGIN)}
    choices = {}
    for layer in space.layers:
        if layer.weights:
            choices[layer.name] = tuple(c for c in layer.choices if c in kept or c == layer.choices[0])
        else:
            choices[layer.name] = layer.choices[:1] if layer.kind in slow else layer.choices
    return choices


def _dominates(one: Evidence, other: Evidence, goal: Goal) -> bool:
    smaller = goal.size_budget_bytes is None or one.size_bytes <= other.size_bytes
    return (smaller and one.latency_s < other.latency_s * (1 - MARGIN)
            and one.metrics[goal.objective] >= other.metrics[goal.objective] - LOSS)
