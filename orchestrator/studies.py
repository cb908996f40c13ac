"""What is in the store, as documents: studies, one study, its Pareto front; and deleting one."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from orchestrator.pruned import chosen_for_all, pruned_groups
from orchestrator.schemas.search import NO_ENERGY, NOT_EVALUATED, Entry, SearchDocument
from orchestrator.schemas.strict import SCHEMA
from orchestrator.schemas.studies import (
    Result,
    StudiesList,
    StudyPareto,
    StudyRemoved,
    StudyShow,
    StudySummary,
    TrialDocument,
)
from orchestrator.store.records import StudyRecord, StudyStatus, TrialRecord, TrialState
from orchestrator.store.rows import space_to_json
from orchestrator.store.store import Store
from orchestrator.study_view import Point, StudyView


def studies_document(store: Store) -> StudiesList:
    """Return all studies of a store, oldest first."""
    return {"schema": SCHEMA, "store": str(store.place),
            "studies": [summary(store, record, store.trials(record.id)) for record in store.studies()]}


def show_document(store: Store, view: StudyView) -> StudyShow:
    """Return everything about one study."""
    record = view.record
    by_trial = {point.trial.id: point for point in view.points}
    spaces: list[JsonValue] = [{**space_to_json(space), "log10_size": space.log10_size}
                               for space in record.spaces.values()]
    document: StudyShow = {
        "schema": SCHEMA,
        "study": summary(store, record, view.trials),
        "config": dict(record.config),
        "model_digest": record.model_digest,
        "tool_versions": dict(record.tool_versions),
        "search_space": cast(dict[str, JsonValue], spaces[0] if len(spaces) == 1 else {"spaces": spaces}),
        "objective": view.metric,
        "trials": [_trial(view, trial, by_trial.get(trial.id)) for trial in view.trials],
        "search": final_document(record),
    }
    if document["search"] is None:
        document["search_absent_because"] = why_no_result(record)
    return document


def pareto_document(view: StudyView) -> StudyPareto:
    """Return the candidates that no other beats, from everything that was measured so far."""
    document: StudyPareto = {
        "schema": SCHEMA, "study": view.record.name, "metric": view.metric, "latency_stat": view.config.latency_stat,
        "simulated": view.simulated, "pareto": [entry_of(view, point) for point in view.front()]}
    if len(view.record.spaces) > 1:
        document["compilers"] = [*view.record.spaces]
    return document


def remove_study(store: Store, name: str) -> StudyRemoved:
    """Delete a study with its artifacts, journal, log and recipe.

    Raises StudyNotFound; StudyInUse when another live controller works on it.
    """
    removed = store.delete_study(name)
    freed = _remove_file(store.folder / "logs" / f"{name}.log") if _is_plain(name) else Freed(0, 0)
    folder = bundle_folder(store, name)
    if folder is not None:
        sizes = [file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()]
        shutil.rmtree(folder)
        freed = Freed(freed.files + len(sizes), freed.size_bytes + sum(sizes))
    return {"schema": SCHEMA, "study": name, "trials": removed.trials, "files": removed.files + freed.files,
            "bytes_freed": removed.bytes_freed + freed.size_bytes}


def summary(store: Store, record: StudyRecord, trials: tuple[TrialRecord, ...]) -> StudySummary:
    """Return a study in short."""
    counts = Counter(trial.state for trial in trials)
    document, folder = final_document(record), bundle_folder(store, record.name)
    found: StudySummary = {
        "name": record.name,
        "status": record.status.value,
        "created_at": record.created_at.isoformat(timespec="seconds"),
        "model": _text(record.config, "model"),
        "device": _text(record.config, "device"),
        "budget": _text(record.config, "budget"),
        "size_budget": _text(record.config, "size_budget"),
        "max_drop": _number(record.config, "max_drop"),
        "trials": {"complete": counts[TrialState.COMPLETE], "infeasible": counts[TrialState.INFEASIBLE],
                   "failed": counts[TrialState.FAILED], "running": counts[TrialState.RUNNING]},
        "goal_met": None,
        "winner": None,
        "simulated": None,
        "recipe": None if folder is None or document is None else str(folder),
    }
    if document is None:
        found["result_absent_because"] = why_no_result(record)
    else:
        found["goal_met"], found["simulated"] = document["goal_met"], document["simulated"]
        found["winner"] = _result(document)
    return found


def final_document(record: StudyRecord) -> SearchDocument | None:
    """Return what the search printed at its end; None where nothing was reported, or new evidence came since."""
    return None if record.document is None else cast(SearchDocument, record.document)


def why_no_result(record: StudyRecord) -> str:
    """Say why a study has no final document."""
    if record.status is StudyStatus.RUNNING:
        return "it is running"
    how = {StudyStatus.INTERRUPTED: "it was interrupted", StudyStatus.FAILED: "its board was lost, or it failed",
           StudyStatus.FINISHED: "nothing was reported"}[record.status]
    return f"{how}; continue it with: orchestrator search --study {record.name} --resume"


def entry_of(view: StudyView, point: Point) -> Entry:
    """Return a measured candidate as the documents of `search` show it."""
    metric = view.metric
    latency, trial = point.latency, point.trial
    entry: Entry = {
        "name": trial.label,
        "compiler": point.compiler,
        "candidate_id": trial.candidate_id,
        "latency_s": {"median": latency.median, "p90": latency.p90, "p99": latency.p99, "mean": latency.mean,
                      "ci95": latency.ci95, "confirmed": point.confirmed},
        "accuracy": {"validation": point.evidence.metrics[metric],
                     "test": None if point.test is None else point.test[metric]},
        "metrics": {"validation": dict(point.evidence.metrics),
                    "test": None if point.test is None else dict(point.test)},
        "size_bytes": point.evidence.size_bytes,
        "energy_j": None,
        "energy_absent_because": NO_ENERGY,
        "widened": list(trial.widened),
    }
    if point.widths:
        entry["pruned"] = pruned_groups(view.record.spaces[point.compiler], point.widths)
        entry["recovery"] = point.recovery.value
    if point.for_all:
        entry["for_all"] = dict(point.for_all)
    if point.test is None:
        entry["test_absent_because"] = NOT_EVALUATED
    return entry


def bundle_folder(store: Store, study: str) -> Path | None:
    """Return the folder of a study's bundle, or None when there is none."""
    folder = store.folder / "recipes" / study
    return folder if _is_plain(study) and folder.is_dir() else None


@dataclass(frozen=True, slots=True)
class Freed:
    """What was deleted."""

    files: int
    size_bytes: int


def _trial(view: StudyView, trial: TrialRecord, point: Point | None) -> TrialDocument:
    candidate = json.loads(trial.candidate)
    found: TrialDocument = {
        "trial": trial.number,
        "name": trial.label,
        "candidate_id": trial.candidate_id,
        "compiler": str(candidate["compiler"]),
        "role": trial.role.value,
        "state": trial.state.value,
        "reason": trial.reason,
        "result": None if point is None else entry_of(view, point),
        "feasible": None if point is None or view.goal is None else view.feasible(point),
        "layers": dict(candidate["layers"]),
    }
    if "widths" in candidate:
        found["widths"] = dict(candidate["widths"])
    if for_all := chosen_for_all(candidate):
        found["for_all"] = for_all
    return found


def _result(document: SearchDocument) -> Result | None:
    winner = document["winner"]
    if winner is None:
        return None
    return {"name": winner["name"], "candidate_id": winner["candidate_id"],
            "latency_s": winner["latency_s"][document["budget"]["latency_stat"]],
            "accuracy": winner["accuracy"]["validation"], "size_bytes": winner["size_bytes"]}


def _is_plain(name: str) -> bool:
    """Tell whether a name is a file's name and nothing else: what is deleted stays within the store."""
    return name not in ("", ".", "..") and Path(name).name == name


def _remove_file(file: Path) -> Freed:
    try:
        size = file.lstat().st_size
        file.unlink()
    except FileNotFoundError:
        return Freed(0, 0)
    return Freed(1, size)


def _text(config: Mapping[str, JsonValue], key: str) -> str | None:
    value = config.get(key)
    return value if isinstance(value, str) else None


def _number(config: Mapping[str, JsonValue], key: str) -> float | None:
    value = config.get(key)
    return float(value) if isinstance(value, int | float) else None
