"""The adaptive engine as an Optuna sampler: `study.optimize`, ask and tell, several processes on one storage.

    from search import AdaptiveSampler, Graph, Site, Option

    sampler = AdaptiveSampler(graph, divergence, accuracy, budget_s=0.010)
    study = optuna.create_study(sampler=sampler, direction="maximize")

    def objective(trial):
        choice = sampler.choice(trial)              # site -> name of the option, e.g. {"conv1": "int8"}
        latency_s = measure_on_the_board(choice)
        sampler.report(trial, latency_s)
        return accuracy_of(choice)

The state is in the study's trials alone: what boards measured, and what the host found out for each proposal. So a
study that is loaded again proposes what the first one would have.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.adaptive.engine import MARGIN, Engine
from search.adaptive.graph import Floats, Graph, Ints, Tables
from search.adaptive.judge import Aim, Outlook
from search.adaptive.latency import LatencyModel
from search.adaptive.memory import News
from search.adaptive.reach import Reach, reach

if TYPE_CHECKING:
    from search.adaptive.graph import Extra

log = logging.getLogger(__name__)
Choice = Mapping[str, str]
"""Site -> name of its option."""
LATENCY = "adaptive:latency_s"
BOARD = "adaptive:board"
NEWS = "adaptive:news"
HOST = "adaptive:accuracy"
CLAIM = "adaptive:claim"
ROUNDING = 1e-6
"""A divergence of 0 may be computed as less by so much."""
PATIENCE_S = 5.0
PAUSE_S = 0.01


class SpaceExhausted(Exception):
    """Nothing is left that was not proposed before."""



class AdaptiveSampler(BaseSampler):
    """Proposes what a board should measure next: solve, measure, correct, solve again (docs/search.md).

    Args:
        graph: the sites by data flow, with their options; options of one site must have different names.
        divergence: how far a choice's outputs are from the float network's, 0 or more, e.g. the mean KL divergence
            on calibration data (search.Sensitivity). Called for hundreds of choices: it should take milliseconds.
        accuracy: of a choice, computed on the host, higher is better; NaN where it cannot be built.
        budget_s: the latency that must not be exceeded; None: the least latency, or the front, is looked for.
        floating: the choice that is the float network; by default the first option of every site.
        prior: seconds of every option; it need be right in proportion only. None: all options cost the same.
        aim: `accurate`, `fastest`, or `front` for a study with the directions minimize (latency), maximize (accuracy).
        seed: of the draws.
        passes: calls of `divergence` for which there is time during one measurement, beyond the first table.
        evaluations: calls of `accuracy` after each sensitivity table.
        margin: what counts as an improvement, in the unit of `accuracy` (0.001: 0.1 points).
        extra: further additive resources with limits, e.g. the size.
    """

    def __init__(self, graph: Graph, divergence: Callable[[Choice], float], accuracy: Callable[[Choice], float], *,
                 budget_s: float | None = None, floating: Choice | None = None, prior: Tables | None = None,
                 aim: Aim = Aim.ACCURATE, seed: int = 0, passes: float = 24, evaluations: int = 6,
                 margin: float = MARGIN, extra: Sequence[Extra] = ()) -> None:
        if aim is Aim.ACCURATE and budget_s is None:
            raise ValueError("aim 'accurate' needs budget_s, the latency that must not be exceeded; or give "
                             "aim=Aim.FASTEST or Aim.FRONT")
        if budget_s is not None and not budget_s > 0:
            raise ValueError(f"budget_s: expected a positive number of seconds, got {budget_s}")
        self._graph = graph
        self._names = [[_name(option.scheme, option.level) for option in site.options] for site in graph.sites]
        for site, names in zip(graph.sites, self._names, strict=True):
            if len(set(names)) < len(names):
                raise ValueError(f"site {site.name!r}: two options have the same scheme and level: {', '.join(names)}")
        self._space: dict[str, BaseDistribution] = {
            site.name: CategoricalDistribution(names) for site, names in zip(graph.sites, self._names, strict=True)}
        self._divergence, self._accuracy = divergence, accuracy
        self._floating = np.zeros(graph.length, np.int64) if floating is None else self.picks(floating)
        self._prior = flat_prior(graph) if prior is None else prior
        self._budget_s, self._aim, self._seed, self._margin = budget_s, aim, seed, margin
        self._passes, self._evaluations, self._extra = passes, evaluations, tuple(extra)
        self._news: dict[int, News] = {}
        self._warned = False
        self._random = RandomSampler(seed)
        self.outlook: Outlook | None = None
        """What the last proposal is expected to bring; None before the first, and while nothing meets the budget."""

    def choice(self, trial: Trial) -> dict[str, str]:
        """Return what a trial is to measure: site -> option. Call it once in the objective."""
        return {name: str(trial.suggest_categorical(name, self._names[index]))
                for index, name in enumerate(self._space)}

    def report(self, trial: Trial, latency_s: float, accuracy: float | None = None, board: str = "") -> None:
        """Tell what a board measured.

        Args:
            trial: the trial that asked for it.
            latency_s: seconds; Optuna's constraint `latency` is set from it.
            accuracy: as `accuracy` computes it; None: it is taken from there.
            board: which of several boards of one kind; the budget is meant for the average one.
        """
        if not latency_s > 0:
            raise ValueError(f"latency_s: expected a positive number of seconds, got {latency_s}")
        trial.set_user_attr(LATENCY, float(latency_s))
        trial.set_user_attr(BOARD, board)
        if accuracy is not None:
            trial.set_user_attr(HOST, float(accuracy))
        if self._budget_s is not None:
            trial.set_constraint("latency", latency_s / self._budget_s - 1)

    def picks(self, choice: Choice) -> Ints:
        """Return a choice as the engine holds it: (sites,). Raises ValueError for what does not exist."""
        found = []
        for site, names in zip(self._graph.sites, self._names, strict=True):
            if choice.get(site.name) not in names:
                raise ValueError(f"site {site.name!r}: expected one of {', '.join(names)}, got "
                                 f"{choice.get(site.name)!r}")
            found.append(names.index(choice[site.name]))
        return np.array(found, np.int64)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all sites: they are chosen together."""
        return self._space

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
                        ) -> dict[str, Any]:
        """Propose a choice that no trial of the study has had. Raises SpaceExhausted when there is none left."""
        engine = self.engine(study, trial.number)
        while True:
            picks = engine.propose()
            self.outlook = engine.outlook
            self._warn_where_nothing_runs(engine)
            news = engine.news()
            self._news[trial.number] = news + self._news.get(trial.number, News())
            _write(study, trial, NEWS, self._news[trial.number].to_json())
            if picks is None:
                raise SpaceExhausted("every configuration of the space has been proposed in this study")
            if _claimed(study, trial, picks):
                return dict(self._choice(picks))
            engine.tell_infeasible(picks)  # another process chose it at the same time

    def _warn_where_nothing_runs(self, engine: Engine) -> None:
        """Say once that the host knows of nothing that runs: the search cannot be steered then."""
        configs, accuracy = engine.memory.known()
        if len(configs) and not np.isfinite(accuracy).any() and not self._warned:
            self._warned = True
            log.warning("accuracy() returned NaN for all of %d configurations: none of them is known to run, so that "
                        "what is measured next is the likeliest to be fast enough", len(configs))

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str,
                           param_distribution: BaseDistribution) -> Any:
        """Choose at random: parameters that are no sites, or a space that is exhausted."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """End `study.optimize` when every configuration has been proposed."""
        if self.engine(study).exhausted():
            with suppress(RuntimeError):  # outside of optimize there is nothing to stop
                study.stop()

    def reseed_rng(self) -> None:
        """Nothing: what is under way in other threads is never proposed again."""

    def reach(self, study: Study) -> Reach | None:
        """Return what can be reached at all; None without a budget, and before anything was reported.

        Where its probability is small after a few measurements, the budget is out of reach.
        """
        model = self.engine(study).model
        return reach(model, self._budget_s, self._seed) if self._budget_s is not None and model.readings else None

    def engine(self, study: Study, before: int | None = None) -> Engine:
        """Return the engine after a study's trials (those before a number)."""
        model = LatencyModel(self._prior)
        engine = Engine(model, self._batch_divergence, self._batch_accuracy, self._budget_s, self._floating, self._seed,
                        self._extra, self._aim, self._passes, self._evaluations, self._margin)
        for trial in _trials(study):
            if before is not None and trial.number >= before:
                continue
            if trial.number not in self._news and NEWS in trial.system_attrs:
                with suppress(ValueError):  # of another version: the host does that work again
                    self._news[trial.number] = News.from_json(trial.system_attrs[NEWS])
            if trial.number in self._news:
                engine.learn(self._news[trial.number])
            picks = self._picks_of(trial)
            if picks is not None:
                self._tell(engine, trial, picks)
        return engine

    def _picks_of(self, trial: FrozenTrial) -> Ints | None:
        """Return what a trial measures; None for one that was not proposed here and has not all sites."""
        if set(trial.params) >= set(self._space):
            return self.picks({name: str(trial.params[name]) for name in self._space})
        claim = trial.system_attrs.get(CLAIM)
        return None if claim is None else np.array(claim["picks"], np.int64)

    @staticmethod
    def _tell(engine: Engine, trial: FrozenTrial, picks: Ints) -> None:
        if trial.state is TrialState.COMPLETE and LATENCY in trial.user_attrs:
            engine.tell(picks, float(trial.user_attrs[LATENCY]), trial.user_attrs.get(HOST),
                        board=trial.user_attrs.get(BOARD, ""))
        else:
            engine.tell_infeasible(picks)  # it runs, or it failed: it is not proposed again

    def _choice(self, picks: Ints) -> Choice:
        return {name: self._names[index][int(picks[index])] for index, name in enumerate(self._space)}

    def _batch_divergence(self, configs: Ints) -> Floats:
        found = []
        for picks in configs:
            choice = self._choice(picks)
            value = float(self._divergence(choice))
            if not value >= -ROUNDING:
                raise ValueError(f"divergence: expected 0 or more (inf where nothing can be built), got {value} for "
                                 f"{dict(choice)}")
            found.append(max(value, 0.0))
        return np.array(found)

    def _batch_accuracy(self, configs: Ints) -> Floats:
        return np.array([float(self._accuracy(self._choice(picks))) for picks in configs])


def flat_prior(graph: Graph) -> Tables:
    """Return a prior that knows nothing: every site that costs time costs a millisecond, whatever its option."""
    sites = np.zeros((graph.length, graph.depth, graph.width))
    sites[graph.timed] = 1e-3
    return Tables(graph, sites, np.zeros((len(graph.edges), graph.width, graph.width)))


def _claimed(study: Study, trial: FrozenTrial, picks: Ints) -> bool:
    """Claim a configuration for a trial; tell whether no other process has.

    A claim is written, then the others are read. Of two that see each other the earlier trial keeps it; the earlier
    trial waits for a later one that has not yet decided, for that may have read before the claim was written.
    """
    _write(study, trial, CLAIM, {"picks": picks.tolist(), "kept": False})
    for _ in range(round(PATIENCE_S / PAUSE_S)):
        rivals = [other for other in _trials(study) if other.number != trial.number
                  and other.system_attrs.get(CLAIM, {}).get("picks") == picks.tolist()]
        if any(other.number < trial.number or other.system_attrs[CLAIM]["kept"] for other in rivals):
            return False
        if not rivals:
            _write(study, trial, CLAIM, {"picks": picks.tolist(), "kept": True})
            return True
        time.sleep(PAUSE_S)
    return False


def _trials(study: Study) -> list[FrozenTrial]:
    """Return all trials by number as they are now: within a trial, Study.get_trials answers from a copy."""
    found = study._storage.get_all_trials(study._study_id, deepcopy=False)  # noqa: SLF001
    return sorted(found, key=lambda trial: trial.number)


def _write(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Keep something with a trial, as Optuna's own samplers do."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)  # noqa: SLF001


def _name(scheme: str, level: int) -> str:
    return scheme if level == 0 else f"{scheme}@{level}"
