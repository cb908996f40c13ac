"""Optuna's samplers on the reduced ordinal scale, with constraints (Akiba et al. 2019, KDD, Optuna)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from search.adaptive.graph import Ints
from search.adaptive.memory import key_of
from search.baselines.ledger import Ledger, Result
from search.baselines.ordinal import Scale

ATTEMPTS = 200
GP_ATTEMPTS = 2
"""A Gaussian process whose best is known already says the same again, after a second's work."""
STARTUP = 4
"""Trials by chance before TPE and GP learn; the recipes that were measured before count too."""
POPULATION = 8
"""Of NSGA-II; Optuna's own 50 would be one generation of chance."""


class Sampled:
    """Asks an Optuna sampler and tells it.

    Args:
        ledger: what is known.
        scale: its variables are the sampler's parameters.
        sampler: of Optuna.
        pareto: maximise the accuracy and minimise the latency; else only what the goal asks for.
        attempts: how often it is asked for something fresh.
    """

    def __init__(self, ledger: Ledger, scale: Scale, sampler: BaseSampler, pareto: bool = False,
                 attempts: int = ATTEMPTS) -> None:
        self._ledger, self._scale, self._pareto, self._attempts = ledger, scale, pareto, attempts
        self._study = optuna.create_study(directions=["maximize", "minimize"] if pareto else ["maximize"],
                                          sampler=sampler)
        self._parameters: dict[str, BaseDistribution] = {
            variable.name: IntDistribution(0, variable.count - 1) for variable in scale.variables}
        self._asked: dict[bytes, optuna.Trial] = {}

    def propose(self) -> Ints | None:
        """Ask the sampler until it says something fresh."""
        for _ in range(self._attempts):
            trial = self._study.ask(self._parameters)
            config = self._scale.decode([int(trial.params[name]) for name in self._parameters])
            if self._ledger.fresh(config[None])[0]:
                self._asked[key_of(config)] = trial
                return config
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def learn(self, config: Ints, result: Result | None) -> None:
        """Give a trial to the study; a configuration that is not on the scale, or told again, teaches it nothing."""
        trial = self._asked.pop(key_of(config), None)
        if result is None or not math.isfinite(result.accuracy):
            self._lost(config, trial)
            return
        constraints = self._ledger.constraints(result)
        if trial is not None:
            for name, value in constraints.items():
                trial.set_constraint(name, value)
            self._study.tell(trial, self._values(result))
        elif (params := self._params(config)) is not None and len(result.latencies_s) == 1:
            self._study.add_trial(optuna.create_trial(values=self._values(result), params=params,
                                                      distributions=self._parameters, constraints=constraints))

    def _lost(self, config: Ints, trial: optuna.Trial | None) -> None:
        """Tell that a configuration has no values; several objectives know no pruned trials."""
        state = TrialState.FAIL if self._pareto else TrialState.PRUNED
        if trial is not None:
            self._study.tell(trial, state=state)
        elif (params := self._params(config)) is not None:
            self._study.add_trial(optuna.create_trial(state=state, params=params, distributions=self._parameters))

    def _params(self, config: Ints) -> dict[str, int] | None:
        values = self._scale.encode(config)
        return None if values is None else dict(zip(self._parameters, values, strict=True))

    def _values(self, result: Result) -> Sequence[float]:
        return [result.accuracy, result.latency_s] if self._pareto else [self._ledger.worth(result)]


class Climbing:
    """Takes turns between a strategy and a step of one or more sites from the best configuration so far."""

    def __init__(self, ledger: Ledger, scale: Scale, inner: Sampled) -> None:
        self._ledger, self._scale, self._inner, self._turn = ledger, scale, inner, 0

    def propose(self) -> Ints | None:
        """See Strategy."""
        self._turn += 1
        step = self._scale.step(self._ledger) if self._turn % 2 == 0 else None
        return self._inner.propose() if step is None else step

    def learn(self, config: Ints, result: Result | None) -> None:
        """See Strategy."""
        self._inner.learn(config, result)


def tpe(ledger: Ledger, scale: Scale, seed: int) -> Climbing:
    """Return the tree-structured Parzen estimator, multivariate (Bergstra et al. 2011, NeurIPS 24, section 4)."""
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)
    return Climbing(ledger, scale, Sampled(ledger, scale, sampler))


def nsga2(ledger: Ledger, scale: Scale, seed: int) -> Sampled:
    """Return NSGA-II over accuracy and latency (Deb et al. 2002, IEEE Transactions on Evolutionary Computation 6)."""
    return Sampled(ledger, scale, optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed), pareto=True)


def gp(ledger: Ledger, scale: Scale, seed: int) -> Sampled:
    """Return a Gaussian process with log expected improvement (Ament et al. 2023, NeurIPS 36), as Optuna has it."""
    sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
    return Sampled(ledger, scale, sampler, attempts=GP_ATTEMPTS)
