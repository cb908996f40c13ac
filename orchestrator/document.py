"""The JSON document that scripts rely on; documented in docs/json.md, covered by a schema test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from orchestrator.loop import Found
from orchestrator.outcome import Outcome
from orchestrator.pruned import pruned_groups
from orchestrator.schemas.search import CORNER, NO_CORNER, NO_ENERGY, NOT_EVALUATED
from orchestrator.store.records import TrialRole

SCHEMA = 1

Document = dict[str, Any]


def search_document(outcome: Outcome, recipe: Path | None) -> Document:
    """Return the result of a search as a JSON document.

    Args:
        outcome: what the study came to.
        recipe: the folder of the winner's bundle; None where nothing could be exported.
    """
    bench, goal, loop, verdict = outcome.bench, outcome.goal, outcome.loop, outcome.verdict
    config = bench.config
    known = [f for f in loop.found.values() if f.evidence is not None]
    budget: Document = {"latency_s": outcome.budget_s(), "latency_stat": config.latency_stat,
                        "size_bytes": goal.size_budget_bytes, "max_drop": config.max_drop,
                        "minimum": dict(goal.minimum or {}), "asked": {"latency": config.budget,
                                                                       "size": config.size_budget}}
    if budget["latency_s"] is None:
        budget["latency_absent_because"] = "no --budget was given"
    if budget["size_bytes"] is None:
        budget["size_absent_because"] = "no --size-budget was given"
    outlook = outcome.ending.document(goal)
    shown = bench.first if verdict.winner is None else bench.toolchains[verdict.winner.candidate.compiler]
    return {
        "schema": SCHEMA,
        "study": config.study,
        "model": config.model,
        "objective": goal.objective,
        "objectives": outcome.objectives(),
        "goal_met": verdict.goal_met,
        "confidence": config.confidence,
        "budget": budget,
        "compiler": ",".join(config.compiler),
        "runtime": {"name": shown.runtime, "version": shown.runtime_version},
        **_compilers(outcome),
        "threads": config.threads,
        "io": config.io,
        "boards": _boards(outcome),
        "baselines": [_entry(outcome, f) for f in known if f.role is TrialRole.BASELINE],
        "baselines_absent": [{"name": name, "reason": reason} for name, reason in outcome.absent.items()],
        "seeds": [_entry(outcome, f) for f in known if f.role is TrialRole.SEED],
        "winner": _winner(outcome),
        "pareto": [_entry(outcome, f) for f in outcome.front()],
        **_hypervolume(outcome),
        "infeasible": [{"trial": f.trial.number, "candidate_id": f.candidate.id, "name": f.name,
                        "reason": f.infeasible} for f in loop.found.values() if f.infeasible is not None],
        "measurements": loop.measured,
        "stopped": {"why": outcome.ending.why.value, "message": outcome.ending.message},
        "stop_below": config.stop_below,
        "outlook": outlook,
        **({} if outlook is not None else {"outlook_absent_because": outcome.ending.silence}),
        "wall_s": round(outcome.wall_s, 3),
        "simulated": any(f.measurement is not None and f.measurement.simulated for f in known),
        "interrupted": outcome.interrupted,
        "recipe": str(recipe) if recipe is not None else None,
        **({} if recipe is not None else {"recipe_absent_because": "no candidate could be exported"}),
    }


def _compilers(outcome: Outcome) -> Document:
    """Say how the measurements were shared, where a study has several compilers."""
    if len(outcome.bench.toolchains) == 1:
        return {}
    measured = [f.candidate.compiler for f in outcome.loop.found.values() if f.measurement is not None]
    return {"compilers": [{"name": own.name, "runtime": {"name": own.runtime, "version": own.runtime_version},
                           "measurements": measured.count(own.name)} for own in outcome.bench.toolchains.values()]}


def _hypervolume(outcome: Outcome) -> Document:
    if outcome.goal.front is None:
        return {"hypervolume": None, "hypervolume_absent_because": "one best candidate was looked for, no front"}
    corner, least = outcome.corner(), outcome.goal.front.least
    if corner is None:
        return {"hypervolume": None, "hypervolume_absent_because": NO_CORNER, "shipped_least": least}
    return {"hypervolume": {"value": outcome.hypervolume(corner), "reference": {
        "latency_s": corner.latency_s, "accuracy": corner.accuracy, "of": CORNER}}, "shipped_least": least}


def _winner(outcome: Outcome) -> Document | None:
    winner = outcome.verdict.winner
    if winner is None:
        return None
    entry = _entry(outcome, winner)
    entry["latency_s"]["probability_met"] = outcome.verdict.probability
    if outcome.verdict.probability is None:
        entry["latency_s"]["probability_absent_because"] = "no --budget was given"
    entry["trial"] = winner.trial.number
    entry["role"] = str(winner.role)
    entry["layers"] = {name: config.label for name, config in winner.candidate.layers}
    return entry


def _entry(outcome: Outcome, found: Found) -> Document:
    if found.evidence is None:
        raise ValueError(f"candidate {found.candidate.id} has no evidence")
    latency, test = outcome.latency_of(found), outcome.test.get(found.candidate.id)
    objective = outcome.goal.objective
    entry: Document = {
        "name": found.name,
        "compiler": found.candidate.compiler,
        "candidate_id": found.candidate.id,
        "latency_s": {"median": latency.median, "p90": latency.p90, "p99": latency.p99, "mean": latency.mean,
                      "ci95": list(latency.ci95), "confirmed": bool(outcome.verdict.sessions.get(found.candidate.id))},
        "accuracy": {"validation": found.evidence.metrics[objective], "test": test[objective] if test else None},
        "metrics": {"validation": dict(found.evidence.metrics), "test": test},
        "size_bytes": found.evidence.size_bytes,
        "energy_j": None,
        "energy_absent_because": NO_ENERGY,
        "widened": list(found.widened),
    }
    if found.candidate.widths:
        entry["pruned"] = pruned_groups(outcome.bench.spaces[found.candidate.compiler], found.candidate.width_of)
        entry["recovery"] = found.candidate.recovery.value
    if found.candidate.for_all:
        entry["for_all"] = dict(found.candidate.for_all)
    if test is None:
        entry["test_absent_because"] = NOT_EVALUATED
    return entry


def _boards(outcome: Outcome) -> list[Document]:
    """Return the boards that measured, also for an earlier controller, and those that could have."""
    kind = outcome.bench.board.kind
    counts = Counter(f.measurement.board for f in outcome.loop.found.values() if f.measurement is not None)
    names = dict.fromkeys((*outcome.bench.crew.names, *sorted(counts)))
    return [{"name": name, "kind": kind, "measurements": counts[name]} for name in names]
