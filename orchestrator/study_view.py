"""One study as a person looks at it: what was measured, what is best, how far the goal is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from orchestrator.config import StudyConfig
from orchestrator.errors import UsageError
from orchestrator.goals import needed_for_goal, resolve_goal
from orchestrator.objectives import parse_objectives
from orchestrator.pruned import chosen_for_all, titled
from orchestrator.store.records import (
    Purpose,
    Split,
    StudyRecord,
    TrialHistory,
    TrialRecord,
    TrialRole,
    TrialState,
    counting,
)
from orchestrator.store.store import Store
from profilers.statistics import LatencySummary, summarise
from search.candidate import Recovery
from search.goal import Evidence, Goal, pareto_front
from search.space import LayerConfig


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate that was measured."""

    trial: TrialRecord
    latency: LatencySummary
    """Of the confirmation where there was one, else of the search."""
    confirmed: bool
    evidence: Evidence
    """Its latency is the statistic that the study's goal names."""
    test: Mapping[str, float] | None
    compiler: str
    layers: Mapping[str, LayerConfig]
    widths: Mapping[str, int]
    """Group of channels -> how many are kept, of those that are narrowed."""
    recovery: Recovery
    for_all: Mapping[str, str]
    """See Candidate.for_all."""
    simulated: bool
    several: bool
    """The study has several compilers."""

    @property
    def name(self) -> str:
        """A baseline's or seed's name, else the candidate's id, with its compiler where there are several."""
        return self.trial.label or titled(self.compiler, self.trial.candidate_id, self.several)


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study with everything that its tables and pictures show."""

    record: StudyRecord
    config: StudyConfig
    trials: tuple[TrialRecord, ...]
    points: tuple[Point, ...]
    """In the order of the trials."""
    metric: str
    """The quality that is shown: the objective, unless another was asked for."""
    goal: Goal | None
    """None while a baseline that the budget needs is not measured."""
    winner: Point | None
    """The confirmed one of a finished study, else the best so far."""
    others: tuple[str, ...]
    """Metrics that might be meant as well, when the study does not say yet which is the objective."""

    @property
    def finished(self) -> bool:
        """Whether there is a result that no newer evidence voids."""
        return self.record.document is not None

    @property
    def simulated(self) -> bool:
        """Whether any latency comes from a model and not from a clock."""
        return any(point.simulated for point in self.points)

    def feasible(self, point: Point) -> bool:
        """Tell whether a point holds every constraint; nothing does while the goal is not known."""
        return self.goal is not None and self.goal.feasible(point.evidence)

    def front(self) -> tuple[Point, ...]:
        """Return the points that no other beats, fastest first."""
        by_id = {p.trial.candidate_id: p for p in self.points}
        found = [(i, p.evidence) for i, p in by_id.items()]
        ids = pareto_front(found, self.metric) if self.goal is None else self.goal.pareto(found, self.metric)
        return tuple(by_id[i] for i in ids)


def view_of(store: Store, name: str, metric: str | None = None) -> StudyView:
    """Read a study from the store.

    Args:
        store: an open store.
        name: the study's name.
        metric: the quality to look at; without it the study's objective.

    Raises:
        StudyNotFound: naming the nearest ones.
        UsageError: for a metric that was not measured, or a configuration of another version.
    """
    record = store.study(name)
    try:
        config = StudyConfig.model_validate(dict(record.config))
    except ValidationError as error:
        raise UsageError(f"study {name!r} was made by another version of orchestrator: "
                         f"{error.errors()[0]['msg']}; use that version to look at it") from error
    histories = store.histories(record.id)
    several = len(record.spaces) > 1
    points = tuple(p for p in (_point(h, config.latency_stat, several) for h in histories) if p is not None)
    known = sorted({name for point in points for name in point.evidence.metrics})
    if metric is not None and metric not in known:
        raise UsageError(f"--metric {metric!r}: study {name!r} has no such metric; "
                         f"measured are: {', '.join(known) or 'none yet'}")
    told = str(record.document["objective"]) if record.document else None
    named = parse_objectives(config.objective).metric if config.objective else None
    objective = told or named or next(iter(known), "accuracy")
    goal = _goal(config, points, objective)
    others = () if told or named or metric else tuple(other for other in known if other != objective)
    return StudyView(record, config, tuple(h.trial for h in histories), points, metric or objective, goal,
                     _winner(record, points, goal), others)


def _point(history: TrialHistory, statistic: str, several: bool) -> Point | None:
    trial = history.trial
    searched = history.readings
    if trial.state is not TrialState.COMPLETE or trial.size_bytes is None or not searched:
        return None
    confirmed = [m.measurement.comparable_ns for m in history.measurements if m.purpose is Purpose.CONFIRM]
    latency = summarise(confirmed or [counting(searched).comparable_ns], statistic)
    metrics = {split: {e.metric: e.value for e in history.evaluations if e.split is split} for split in Split}
    candidate = json.loads(trial.candidate)
    return Point(
        trial=trial, latency=latency, confirmed=bool(confirmed),
        evidence=Evidence(latency.value(statistic), trial.size_bytes, metrics[Split.VALIDATION]),
        test=metrics[Split.TEST] or None, compiler=str(candidate["compiler"]),
        layers={name: LayerConfig.from_label(label) for name, label in candidate["layers"].items()},
        widths=dict(candidate.get("widths", {})), recovery=Recovery(candidate.get("recovery", Recovery.NONE)),
        for_all=chosen_for_all(candidate),
        simulated=any(m.measurement.simulated for m in history.measurements), several=several)


def _goal(config: StudyConfig, points: Iterable[Point], objective: str) -> Goal | None:
    """Resolve shares and drops with the baselines' reported figures, as the search's report does."""
    baselines = {str(p.trial.label): p.evidence for p in points if p.trial.role is TrialRole.BASELINE}
    return resolve_goal(config, objective, baselines) if needed_for_goal(config) <= baselines.keys() else None


def _winner(record: StudyRecord, points: Iterable[Point], goal: Goal | None) -> Point | None:
    by_id = {p.trial.candidate_id: p for p in points}
    document = record.document
    if document is not None:
        winner = document["winner"]
        return by_id.get(str(winner["candidate_id"])) if isinstance(winner, dict) else None
    if goal is None:
        return None
    best = goal.best((i, p.evidence) for i, p in by_id.items())
    return None if best is None else by_id[best]
