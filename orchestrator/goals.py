"""From the words of a study to absolute constraints, once the baselines are measured."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.config import StudyConfig
from orchestrator.errors import UsageError
from orchestrator.objectives import parse_objectives
from orchestrator.units import Budget, parse_budget, parse_size_budget
from search.goal import Evidence, Front, Goal, Requirement, resolve_minimum

POINT = 0.01
SHIPPED_DROP = 1.0
"""Points that what a front's study ships may lose, where --max-drop does not say."""


def needed_for_goal(config: StudyConfig) -> set[str]:
    """Return the baselines without which the goal is not known."""
    latency = parse_budget(config.budget) if config.budget else None
    size = parse_size_budget(config.size_budget) if config.size_budget else None
    return {b.needs for b in (latency, size) if b is not None and b.needs is not None} | {"float32"}


def resolve_goal(config: StudyConfig, objective: str, baselines: Mapping[str, Evidence]) -> Goal:
    """Resolve relative budgets and drops with the measured baselines. Raises UsageError."""

    def limit(budget: Budget | None, pick: str) -> float | None:
        if budget is None or budget.needs is None:
            return budget.absolute if budget else None
        if budget.needs not in baselines:
            raise UsageError(f"budget {budget.text}: the baseline {budget.needs} could not be measured here")
        return budget.resolve(float(getattr(baselines[budget.needs], pick)))

    drop = None if config.max_drop is None else config.max_drop * POINT
    try:
        minimum = resolve_minimum(objective, drop, [Requirement.parse(t) for t in config.require],
                                  baselines["float32"].metrics)
    except ValueError as error:
        raise UsageError(str(error)) from error
    asked = parse_objectives(config.objective) if config.objective else None
    front = None
    if asked is not None and asked.front:
        shipped = SHIPPED_DROP * POINT if drop is None else drop
        front = Front(baselines["float32"].metrics[objective] - shipped, asked.size)
    return Goal(objective, limit(parse_budget(config.budget) if config.budget else None, "latency_s"),
                limit(parse_size_budget(config.size_budget) if config.size_budget else None, "size_bytes"), minimum,
                front)
