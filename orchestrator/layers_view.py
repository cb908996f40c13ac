"""Where a candidate's time goes, layer by layer, beside the uniform recipe that one compares with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from rich.console import Console

from orchestrator.errors import UsageError
from orchestrator.schemas.strict import SCHEMA
from orchestrator.schemas.studies import LayerTime, StudyLayers
from orchestrator.store.records import TrialHistory
from orchestrator.store.store import Store
from orchestrator.study_view import Point, StudyView
from orchestrator.tables import Name, figures_table
from orchestrator.units import show_seconds
from profilers.layer_times import BETWEEN, layer_times

REFERENCES = ("int8", "float32")
"""Uniform recipes to compare with, the first that has times of its own."""


def layers_document(store: Store, view: StudyView, candidate: str | None) -> StudyLayers:
    """Return the times of a candidate's layers.

    Args:
        store: an open store.
        view: the study.
        candidate: its name or the beginning of its id; None: the winner, or the best so far.

    Raises:
        UsageError: no such candidate, or its kernels were not timed.
    """
    point = _point(view, candidate)
    times = _times(store.history(point.trial.id))
    if not times:
        raise UsageError(f"candidate {point.name}: no kernel of it was timed; LiteRT times whole networks alone, and "
                         "studies from before kernels were timed have none: search with --compiler tvm")
    others = [(p.name, _times(store.history(p.trial.id))) for name in REFERENCES for p in view.points
              if p.name == name and p is not point]
    beside = next(((name, found) for name, found in others if found), None)
    configs = {name: config.label for name, config in point.layers.items()}
    total = sum(times.values())
    names = sorted(times, key=lambda name: name == BETWEEN)
    rows: list[LayerTime] = [
        {"layer": name or None, "config": configs.get(name), "latency_s": times[name], "share": times[name] / total,
         "beside_s": None if beside is None else beside[1].get(name)} for name in names]
    return {"schema": SCHEMA, "study": view.record.name, "candidate_id": point.trial.candidate_id,
            "name": point.trial.label, "latency_s": total, "beside": None if beside is None else beside[0],
            "layers": rows}


def print_layers(document: StudyLayers, console: Console) -> None:
    """Print one line for each layer, in the order in which they are computed."""
    beside = document["beside"]
    table = figures_table(("layer", "format"), ("time", "share", *((beside,) if beside else ())),
                          f"{document['name'] or document['candidate_id']}: {show_seconds(document['latency_s'])}")
    for row in document["layers"]:
        other = row["beside_s"]
        table.add_row(Name(row["layer"] or "(between layers)"), row["config"] or "", show_seconds(row["latency_s"]),
                      f"{row['share']:.1%}", *(("-" if other is None else show_seconds(other),) if beside else ()))
    console.print(table)


def _point(view: StudyView, candidate: str | None) -> Point:
    """Return a measured candidate. Raises UsageError."""
    if candidate is None:
        if view.winner is None:
            raise UsageError(f"study {view.record.name!r} has no winner yet; name a measured candidate: --candidate "
                             f"{_known(view)}")
        return view.winner
    found = [point for point in view.points if point.name == candidate
             or point.trial.candidate_id.startswith(candidate)]
    if len(found) != 1:
        what = "names several candidates" if found else "names no measured candidate"
        raise UsageError(f"--candidate {candidate!r} {what}; see 'orchestrator studies show {view.record.name}', e.g. "
                         f"{_known(view)}")
    return found[0]


def _known(view: StudyView) -> str:
    return ", ".join(point.name for point in view.points[:5]) or "none is measured"


def _times(history: TrialHistory) -> Mapping[str, float]:
    """Return layer -> median over the sessions in which kernels were timed, seconds."""
    sessions = [found for m in history.measurements if (found := layer_times(m.measurement))]
    names = dict.fromkeys(name for found in sessions for name in found)
    return {name: statistics.median(found.get(name, 0.0) for found in sessions) for name in names}
