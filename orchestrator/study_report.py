"""Studies as tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.schemas.recipes import RecipesList
from orchestrator.schemas.search import Entry
from orchestrator.schemas.studies import StudiesList, StudyPareto, StudyShow, StudySummary
from orchestrator.study_view import StudyView
from orchestrator.units import show_bytes, show_seconds


def print_studies(document: StudiesList, console: Console) -> None:
    """Print one line for each study."""
    table = _table(("study", "model", "device"), ("status", "n", "goal", "latency", "accuracy"))
    for study in document["studies"]:
        winner = study["winner"]
        table.add_row(escape(study["name"]), escape(study["model"] or "-"), escape(study["device"] or "-"),
                      study["status"].lower(), str(study["trials"]["complete"]), _goal(study),
                      "-" if winner is None else _simulated(show_seconds(winner["latency_s"]), study["simulated"]),
                      "-" if winner is None else f"{winner['accuracy']:.4f}")
    if document["studies"]:
        console.print(table)
    if any(study["simulated"] for study in document["studies"]):
        console.print("* simulated, not measured")


def print_study(document: StudyShow, view: StudyView, console: Console) -> None:
    """Print the goal, the result and every trial."""
    study, counts = document["study"], document["study"]["trials"]
    others = ", ".join(f"{number} {word}" for word, number in (
        ("infeasible", counts["infeasible"]), ("failed", counts["failed"]), ("running", counts["running"])) if number)
    asked = ", ".join(f"{word} {value}" for word, value in (
        ("budget", study["budget"]), ("size budget", study["size_budget"]), ("max drop", study["max_drop"]),
        ("require", "; ".join(view.config.require) or None)) if value is not None)
    console.print(f"[bold]{escape(study['name'])}[/]: {study['status'].lower()}, started {study['created_at']}",
                  highlight=False)
    console.print(escape(f"{study['model']} on {study['device']}; asked for: {asked or 'nothing'}"), highlight=False)
    console.print(f"{counts['complete']} measured{', ' if others else ''}{others}; "
                  f"{len(view.record.space.layers)} layers, 10^{view.record.space.log10_size:.1f} candidates",
                  highlight=False)
    if document["search"] is None:
        console.print(f"[yellow]No result: {escape(document['search_absent_because'])}[/]", highlight=False)
        if view.winner is not None:
            console.print(f"The best so far is {escape(view.winner.name)}.", highlight=False)
    else:
        from orchestrator.report import print_report  # it imports all that a search needs

        print_report(dict(document["search"]), console)
    if view.points:
        console.print(_trials(document, view))
    for trial in document["trials"]:
        if trial["reason"] is not None:
            name = trial["name"] or trial["candidate_id"]
            console.print(f"#{trial['trial']} {escape(name)} {trial['state'].lower()}: {escape(trial['reason'])}",
                          highlight=False)


def print_pareto(document: StudyPareto, console: Console) -> None:
    """Print the front."""
    if not document["pareto"]:
        console.print("nothing was measured yet")
        return
    if document["simulated"]:
        console.print("[yellow]Latencies are simulated (a roofline model), not measured.[/]")
    statistic = document["latency_stat"]
    table = _table(("candidate",), (statistic, "95 % interval", "size", document["metric"]))
    for entry in document["pareto"]:
        low, high = entry["latency_s"]["ci95"]
        table.add_row(escape(_name(entry)), _confirmed(entry, show_seconds(entry["latency_s"][statistic])),
                      f"{show_seconds(low)} - {show_seconds(high)}", show_bytes(entry["size_bytes"]),
                      f"{entry['accuracy']['validation']:.4f}")
    _note_confirmed(table, document["pareto"])
    console.print(table)


def print_recipes(document: RecipesList, console: Console) -> None:
    """Print one line for each recipe, and where it lies."""
    table = _table(("study", "model", "device"), ("latency", "accuracy", "size", "goal"))
    for recipe in document["recipes"]:
        table.add_row(escape(recipe["study"]), escape(recipe["model"]), escape(recipe["device"]),
                      _simulated(show_seconds(recipe["latency_s"]), recipe["simulated"]),
                      f"{recipe['accuracy']['validation']:.4f}", show_bytes(recipe["size_bytes"]),
                      "met" if recipe["goal_met"] else "not met")
    if document["recipes"]:
        console.print(table)
    if any(recipe["simulated"] for recipe in document["recipes"]):
        console.print("* simulated, not measured")
    for recipe in document["recipes"]:
        place = recipe["path"] or f"no bundle: {recipe['path_absent_because']}"
        console.print(f"{escape(recipe['study'])}: {escape(place)}", soft_wrap=True, highlight=False)


def _trials(document: StudyShow, view: StudyView) -> Table:
    table = _table(("#", "candidate", "role"), (view.config.latency_stat, "size", document["objective"], "goal"))
    table.title, table.title_justify = "Candidates", "left"
    entries = []
    for trial in document["trials"]:
        entry = trial["result"]
        if entry is None:
            continue
        entries.append(entry)
        met = "-" if trial["feasible"] is None else "met" if trial["feasible"] else "not met"
        table.add_row(str(trial["trial"]), escape(_name(entry)), trial["role"],
                      _confirmed(entry, show_seconds(entry["latency_s"][view.config.latency_stat])),
                      show_bytes(entry["size_bytes"]), f"{entry['accuracy']['validation']:.4f}", met)
    _note_confirmed(table, entries)
    return table


def _table(texts: Iterable[str], figures: Iterable[str]) -> Table:
    """Make a table: long texts fold, figures stand on one line at the right."""
    table = Table(show_edge=False, pad_edge=False)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(escape(name), justify="right", no_wrap=True)
    return table


def _name(entry: Entry) -> str:
    return entry["name"] or entry["candidate_id"]


def _goal(study: StudySummary) -> str:
    return "-" if study["goal_met"] is None else "met" if study["goal_met"] else "not met"


def _simulated(text: str, simulated: bool | None) -> str:
    return f"{text} *" if simulated else text


def _confirmed(entry: Entry, text: str) -> str:
    return text if entry["latency_s"]["confirmed"] else f"~{text}"


def _note_confirmed(table: Table, entries: Iterable[Entry]) -> None:
    if any(not entry["latency_s"]["confirmed"] for entry in entries):
        table.caption = "~ measured once, in the search; the others were confirmed side by side"
        table.caption_justify = "left"
