"""Another point of what a study has measured: chosen by other constraints, without any new measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config import StudyConfig
from orchestrator.confirm import Sessions, probability_met, rounds_of
from orchestrator.errors import UsageError
from orchestrator.goals import needed_for_goal, resolve_goal
from orchestrator.schemas.search import BudgetDocument, WinnerEntry
from orchestrator.schemas.strict import SCHEMA
from orchestrator.schemas.studies import StudyPick
from orchestrator.store.records import Purpose, TrialHistory, TrialRole
from orchestrator.store.store import Store
from orchestrator.studies import entry_of
from orchestrator.study_view import Point, StudyView
from orchestrator.units import parse_budget
from search.goal import Goal

NO_BUDGET = "no --budget was given"
ONCE = "it was read in the search only"
NOT_BESIDE = "it was not confirmed beside {}, of which the budget is a share"
NOT_ASKED = "no --output was given"


@dataclass(frozen=True, slots=True)
class Picked:
    """A measured candidate, and how sure it is."""

    point: Point
    goal: Goal
    config: StudyConfig
    """The study's, with the constraints that were asked for now."""
    met: bool
    """Every constraint holds in what is known best, and with the confidence where a probability is known."""
    probability: float | None
    """P(latency <= budget)."""
    silence: str
    """Why there is no probability."""


def pick(store: Store, view: StudyView, asked: Mapping[str, Any]) -> Picked:
    """Choose the best candidate within other constraints, else the nearest.

    Args:
        store: an open store.
        view: the study.
        asked: keys of study.yaml: budget, size_budget, max_drop, require.

    Raises:
        UsageError: nothing was asked for, or a word is wrong, or the study has not measured what it needs.
    """
    if not asked:
        raise UsageError("pick by what? give --budget, --size-budget, --max-drop or --require, e.g. --budget 0.5x")
    cleared: dict[str, Any] = {"budget": None, "size_budget": None, "max_drop": None, "require": (), "objective": None}
    config = view.config.model_copy(update={**cleared, **asked})
    baselines = {str(p.trial.label): p.evidence for p in view.points if p.trial.role is TrialRole.BASELINE}
    missing = sorted(needed_for_goal(config) - baselines.keys())
    if missing:
        raise UsageError(f"study {view.record.name!r} has not measured {', '.join(missing)}; measured are "
                         f"{', '.join(sorted(baselines)) or 'no baselines yet'}")
    goal = resolve_goal(config, view.metric, baselines)
    histories = {h.trial.candidate_id: h for h in store.histories(view.record.id)}
    by_id, left = ({p.trial.candidate_id: p for p in view.points} for _ in range(2))
    nearest: Picked | None = None
    while (best := goal.best((i, p.evidence) for i, p in left.items())) is not None:
        found = _judged(by_id, left.pop(best), goal, config, histories)
        if found.met:
            return found
        nearest = nearest or found
        if not goal.feasible(found.point.evidence):
            break
    if nearest is None:
        raise UsageError(f"study {view.record.name!r} has measured nothing yet")
    return nearest


def _judged(by_id: Mapping[str, Point], point: Point, goal: Goal, config: StudyConfig,
            histories: Mapping[str, TrialHistory]) -> Picked:
    """Say how sure a candidate is to meet its budget, from the rounds of confirmations that are stored."""
    if config.budget is None:
        return Picked(point, goal, config, goal.feasible(point.evidence), None, NO_BUDGET)
    if not point.confirmed:
        return Picked(point, goal, config, goal.feasible(point.evidence), None, ONCE)
    budget, own = parse_budget(config.budget), point.trial.candidate_id
    board = next(m.measurement.board for m in histories[own].measurements if m.purpose is Purpose.CONFIRM)
    sessions: Sessions = {own: rounds_of(histories[own], board)}
    base = None
    if budget.needs is not None:
        base = next(i for i, p in by_id.items() if p.trial.role is TrialRole.BASELINE and p.trial.label == budget.needs)
        sessions[base] = rounds_of(histories[base], board)
        if not any(ours and theirs for ours, theirs in zip(sessions[own], sessions[base], strict=False)):
            return Picked(point, goal, config, goal.feasible(point.evidence), None, NOT_BESIDE.format(budget.needs))
    chance = probability_met(sessions, own, config.latency_stat, budget.absolute, base, budget.factor)
    met = goal.feasible(point.evidence) and chance >= config.confidence
    return Picked(point, goal, config, met, chance, "")


def pick_document(view: StudyView, found: Picked, recipe: str | None) -> StudyPick:
    """Return what was picked as a JSON document.

    Args:
        view: the study.
        found: what was picked.
        recipe: the folder of its bundle, if one was asked for.
    """
    config, goal = found.config, found.goal
    entry = entry_of(view, found.point)
    chosen: WinnerEntry = {
        **entry, "latency_s": {**entry["latency_s"], "probability_met": found.probability},  # type: ignore[typeddict-item]
        "trial": found.point.trial.number, "role": found.point.trial.role.value,
        "layers": {name: layer.label for name, layer in found.point.layers.items()}}
    if found.probability is None:
        chosen["latency_s"]["probability_absent_because"] = found.silence
    budget: BudgetDocument = {
        "latency_s": goal.latency_budget_s, "latency_stat": config.latency_stat,
        "size_bytes": goal.size_budget_bytes, "max_drop": config.max_drop, "minimum": dict(goal.minimum or {}),
        "asked": {"latency": config.budget, "size": config.size_budget}}
    if goal.latency_budget_s is None:
        budget["latency_absent_because"] = NO_BUDGET
    if goal.size_budget_bytes is None:
        budget["size_absent_because"] = "no --size-budget was given"
    baselines = [entry_of(view, p) for p in view.points
                 if p.trial.role is TrialRole.BASELINE and p.trial.label in needed_for_goal(config)]
    document: StudyPick = {
        "schema": SCHEMA, "study": view.record.name, "objective": view.metric, "simulated": view.simulated,
        "budget": budget, "confidence": config.confidence, "goal_met": found.met,
        "violations": {name: value for name, value in goal.constraints(found.point.evidence).items() if value > 0},
        "baselines": baselines, "picked": chosen, "recipe": recipe}
    if len(view.record.spaces) > 1:
        document["compilers"] = [*view.record.spaces]
    if recipe is None:
        document["recipe_absent_because"] = NOT_ASKED
    return document
