"""A picked candidate as a table that fits 80 columns, and how sure it is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from orchestrator.pruned import called, say_for_all, say_pruned
from orchestrator.tables import SIMULATED, Name, figures_table
from orchestrator.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from orchestrator.schemas.studies import StudyPick


def confirming_command(study: str, asked: Mapping[str, Any], store: str | None) -> str:
    """Return the command that searches on with these constraints, and confirms its winner.

    Args:
        study: its name.
        asked: keys of study.yaml.
        store: as it was given.
    """
    options = [part for key, value in asked.items() for one in (value if isinstance(value, tuple) else (value,))
               for part in (f"--{key.replace('_', '-')}", str(one))]
    return shlex.join(["orchestrator", "search", "--study", study, "--resume", *options,
                       *(("--store", store) if store else ())])


def print_pick(document: StudyPick, command: str, console: Console) -> None:
    """Print what was picked beside the baselines that its constraints refer to.

    Args:
        document: what was picked.
        command: confirms it.
        console: where to print.
    """
    if document["simulated"]:
        console.print(SIMULATED)
    statistic, entry = document["budget"]["latency_stat"], document["picked"]
    table = figures_table(("candidate",), (statistic, "95 % interval", "size", f"{document['objective']} val", "test"))
    for shown in (*document["baselines"], entry):
        latency = shown["latency_s"]
        low, high = latency["ci95"]
        test = shown["accuracy"]["test"]
        table.add_row(Name(called(shown, "compilers" in document)),
                      f"{'' if latency['confirmed'] else '~'}{show_seconds(latency[statistic])}",
                      f"{show_seconds(low)} - {show_seconds(high)}", show_bytes(shown["size_bytes"]),
                      f"{shown['accuracy']['validation']:.4f}", "-" if test is None else f"{test:.4f}")
    console.print(table)
    if any(not shown["latency_s"]["confirmed"] for shown in (*document["baselines"], entry)):
        console.print("~ as read in the search")
    if "pruned" in entry:
        console.print(f"Channels kept: {escape(say_pruned(entry['pruned']))}", highlight=False)
    if "for_all" in entry:
        console.print(f"For all layers: {say_for_all(entry['for_all'])}", highlight=False)
    console.print(_verdict(document), highlight=False)
    chance = entry["latency_s"]["probability_met"]
    if chance is None and document["budget"]["latency_s"] is not None:
        console.print("How sure that is cannot be said: " + escape(entry["latency_s"]["probability_absent_because"])
                      + ". To search on and confirm it:", highlight=False)
        console.print(escape(command), soft_wrap=True, highlight=False)
    if document["recipe"] is not None:
        console.print(f"Recipe: {escape(document['recipe'])}", soft_wrap=True, highlight=False)


def _verdict(document: StudyPick) -> str:
    """Say whether every constraint holds."""
    entry, budget = document["picked"], document["budget"]
    parts = []
    if budget["latency_s"] is not None:
        latency, chance = entry["latency_s"][budget["latency_stat"]], entry["latency_s"]["probability_met"]
        sure = "" if chance is None else f" with probability {chance:.3f} (asked: {document['confidence']:g})"
        parts.append(f"{budget['latency_stat']} latency {show_seconds(latency)} of {show_seconds(budget['latency_s'])}"
                     f"{sure}")
    if budget["size_bytes"] is not None:
        parts.append(f"size {show_bytes(entry['size_bytes'])} of {show_bytes(budget['size_bytes'])}")
    parts += [f"{metric} {entry['metrics']['validation'][metric]:.4f}, at least {least:.4f}"
              for metric, least in budget["minimum"].items()]
    name = escape(entry["name"] or entry["candidate_id"])
    if document["goal_met"]:
        return f"[bold green]{name}[/]: {'; '.join(parts)}."
    return f"[bold yellow]Nothing that was measured meets this; the nearest is {name}[/]: {'; '.join(parts)}."
