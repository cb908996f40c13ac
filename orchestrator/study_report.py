"""Studies as tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from orchestrator.pruned import called
from orchestrator.report import print_report
from orchestrator.tables import SIMULATED, Name, figures_table, print_listing
from orchestrator.units import counted, show_bytes, show_seconds

if TYPE_CHECKING:  # they import all that a search needs
    from orchestrator.schemas.recipes import RecipesList
    from orchestrator.schemas.search import Entry
    from orchestrator.schemas.studies import StudiesList, StudyPareto, StudyShow
    from orchestrator.study_view import StudyView
    from search.space import SearchSpace


def print_studies(document: StudiesList, console: Console) -> None:
    """Print one line for each study."""
    rows = []
    for study in document["studies"]:
        winner = study["winner"]
        rows.append((study["name"], study["model"] or "-", study["device"] or "-", str(study["trials"]["complete"]),
                     study["status"].lower() if study["goal_met"] is None else _met(study["goal_met"]),
                     "-" if winner is None else _simulated(show_seconds(winner["latency_s"]), study["simulated"]),
                     "-" if winner is None else f"{winner['accuracy']:.4f}"))
    if rows:
        print_listing(console, ("study", "model", "device", "n", "result", "latency", "accuracy"), rows,
                      figures=("n", "latency", "accuracy"), shortened=("model", "device"))
    if any(study["simulated"] for study in document["studies"]):
        console.print("* simulated, not measured")


def print_study(document: StudyShow, view: StudyView, console: Console) -> None:
    """Print the goal, the result and every trial."""
    study, counts = document["study"], document["study"]["trials"]
    others = ", ".join(f"{number} {word}" for word, number in (
        ("infeasible", counts["infeasible"]), ("failed", counts["failed"]),
        ("running" if study["status"] == "RUNNING" else "unfinished", counts["running"])) if number)
    asked = ", ".join(f"{word} {value}" for word, value in (
        ("objective", view.config.objective), ("budget", study["budget"]),
        ("size budget", study["size_budget"]), ("max drop", study["max_drop"]),
        ("require", "; ".join(view.config.require) or None)) if value is not None)
    console.print(f"[bold]{escape(study['name'])}[/]: {study['status'].lower()}, started {study['created_at']}",
                  highlight=False)
    console.print(escape(f"{study['model']} on {study['device']}; asked for: {asked or 'nothing'}"), highlight=False)
    console.print(f"{counts['complete']} measured{', ' if others else ''}{others}; "
                  + "; ".join((f"{name}: " if len(view.record.spaces) > 1 else "") + _extent(space)
                              for name, space in view.record.spaces.items()), highlight=False)
    if document["search"] is None:
        why, _, hint = document["search_absent_because"].partition("; ")
        console.print(f"[yellow]No result: {escape(why)}[/]", highlight=False)
        if hint:  # a command, which must not be broken
            console.print(escape(hint), highlight=False, soft_wrap=True)
        if view.simulated:
            console.print(SIMULATED)
        if view.winner is not None:
            console.print(f"The best so far is {escape(view.winner.name)}.", highlight=False)
    else:
        print_report(dict(document["search"]), console)
    if view.points:
        _print_trials(document, view, console)
    for trial in document["trials"]:
        if trial["reason"] is not None:
            name = trial["name"] or trial["candidate_id"]
            console.print(f"#{trial['trial']} {escape(name)} {trial['state'].lower()}: {escape(trial['reason'])}",
                          highlight=False)


def _extent(space: SearchSpace) -> str:
    """Say how large a space is."""
    return (f"{len(space.layers)} layers, "
            + (f"{counted(len(space.groups), 'group')} of channels, " if space.groups else "")
            + f"10^{space.log10_size:.1f} candidates")


def print_pareto(document: StudyPareto, console: Console) -> None:
    """Print the front."""
    if not document["pareto"]:
        console.print("nothing was measured yet")
        return
    if document["simulated"]:
        console.print(SIMULATED)
    statistic, several = document["latency_stat"], "compilers" in document
    table = figures_table(("candidate",), (statistic, "95 % interval", "size", document["metric"]))
    for entry in document["pareto"]:
        low, high = entry["latency_s"]["ci95"]
        table.add_row(Name(called(entry, several)), _confirmed(entry, show_seconds(entry["latency_s"][statistic])),
                      f"{show_seconds(low)} - {show_seconds(high)}", show_bytes(entry["size_bytes"]),
                      f"{entry['accuracy']['validation']:.4f}")
    console.print(table)
    _note_unconfirmed(document["pareto"], console)


def print_recipes(document: RecipesList, console: Console) -> None:
    """Print one line for each recipe, and where it lies."""
    rows = [(recipe["study"], recipe["model"], recipe["device"],
             _simulated(show_seconds(recipe["latency_s"]), recipe["simulated"]),
             f"{recipe['accuracy']['validation']:.4f}", show_bytes(recipe["size_bytes"]), _met(recipe["goal_met"]))
            for recipe in document["recipes"]]
    if rows:
        print_listing(console, ("study", "model", "device", "latency", "accuracy", "size", "goal"), rows,
                      figures=("latency", "accuracy", "size"), shortened=("model", "device"))
    if any(recipe["simulated"] for recipe in document["recipes"]):
        console.print("* simulated, not measured")
    for recipe in document["recipes"]:
        place = recipe["path"] or f"no bundle: {recipe['path_absent_because']}"
        console.print(f"{escape(recipe['study'])}: {escape(place)}", soft_wrap=True, highlight=False)


def _print_trials(document: StudyShow, view: StudyView, console: Console) -> None:
    table = figures_table(("#", "candidate", "role"), (view.config.latency_stat, "size", document["objective"], "goal"),
                          "Candidates")
    entries = []
    for trial in document["trials"]:
        entry = trial["result"]
        if entry is None:
            continue
        entries.append(entry)
        table.add_row(str(trial["trial"]), Name(called(entry, len(view.record.spaces) > 1)), trial["role"],
                      _confirmed(entry, show_seconds(entry["latency_s"][view.config.latency_stat])),
                      show_bytes(entry["size_bytes"]), f"{entry['accuracy']['validation']:.4f}",
                      "-" if trial["feasible"] is None else _met(trial["feasible"]))
    console.print(table)
    _note_unconfirmed(entries, console)


def _met(met: bool) -> str:
    return "met" if met else "not met"


def _simulated(text: str, simulated: bool | None) -> str:
    return f"{text} *" if simulated else text


def _confirmed(entry: Entry, text: str) -> str:
    return text if entry["latency_s"]["confirmed"] else f"~{text}"


def _note_unconfirmed(entries: Iterable[Entry], console: Console) -> None:
    confirmed = {entry["latency_s"]["confirmed"] for entry in entries}
    if False in confirmed:
        console.print("~ as read in the search" + (
            "; the others were confirmed side by side" if True in confirmed else "; nothing is confirmed yet"))
