"""What a person reads at the end: one table, one verdict, one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from orchestrator.ending import say_outlook
from orchestrator.pruned import called, say_for_all, say_pruned
from orchestrator.tables import SIMULATED, Name, figures_table
from orchestrator.units import counted, show_bytes, show_seconds

if TYPE_CHECKING:
    from orchestrator.document import Document


def print_report(document: Document, console: Console) -> None:
    """Print a search document as tables that fit 80 columns."""
    objective = str(document["objective"])
    if document["simulated"]:
        console.print(SIMULATED)
    rows = _rows(document)
    console.print(_table(document, objective, rows))
    widened = max((len(e["widened"]) for e in document["baselines"]), default=0)
    if widened:
        console.print(f"* up to {counted(widened, 'layer')} took the next wider legal format", highlight=False)
    wanted = "shipped_least" in document
    front = document["pareto"] if wanted else [
        e for e in document["pareto"] if e["candidate_id"] != (document["winner"] or {}).get("candidate_id")]
    if front:
        console.print(_pareto(document, objective))
    shown = [*(entry for _, entry in rows), *(document["pareto"] if front else [])]
    if any(not entry["latency_s"]["confirmed"] for entry in shown):
        console.print("~ as read in the search; the others were confirmed side by side")
    winner = document["winner"]
    if winner is not None and "pruned" in winner:
        console.print(f"Channels kept: {escape(say_pruned(winner['pruned']))}; recovery: {winner['recovery']}",
                      highlight=False)
    if winner is not None and "for_all" in winner:
        console.print(f"For all layers: {say_for_all(winner['for_all'])}", highlight=False)
    if "compilers" in document:
        shares = ", ".join(f"{own['name']} {own['measurements']}" for own in document["compilers"])
        console.print(f"Measurements: {shares}", highlight=False)
    for entry in document["baselines_absent"]:
        console.print(f"[dim]{entry['name']} is absent: {escape(str(entry['reason']))}[/]")
    console.print(_verdict(document))
    if wanted:
        console.print(escape(_front(document)), highlight=False)
    for line in _ending(document):
        console.print(escape(line), highlight=False)
    if document["recipe"] is not None:
        console.print(f"Recipe: {escape(str(document['recipe']))}", soft_wrap=True)
    elif winner is not None and "recipe_absent_because" in document:
        console.print(f"No recipe: {escape(str(document['recipe_absent_because']))}.", highlight=False)


def _rows(document: Document) -> list[tuple[RenderableType, Document]]:
    rows: list[tuple[RenderableType, Document]] = [
        (Name(str(e["name"]) + "*" * bool(e["widened"])), e) for e in document["baselines"]]
    winner = document["winner"]
    if winner is not None:
        word, colour = ("winner", "green") if document["goal_met"] else ("nearest", "yellow")
        own = f" ({winner['compiler']})" if "compilers" in document else ""
        rows.append((f"[bold {colour}]{word}{own}[/]", winner))
    return rows


def _table(document: Document, objective: str, rows: list[tuple[RenderableType, Document]]) -> Table:
    table = figures_table(("candidate",), ("latency", "95 % interval", "size", f"{objective} val", "test"),
                          f"{document['model']} on {_where(document)}")
    statistic = document["budget"]["latency_stat"]
    for name, entry in rows:
        latency = entry["latency_s"]
        low, high = latency["ci95"]
        mark = "" if latency["confirmed"] else "~"
        table.add_row(name, mark + show_seconds(latency[statistic]), _interval(low, high),
                      show_bytes(entry["size_bytes"]), f"{entry['accuracy']['validation']:.4f}",
                      "-" if entry["accuracy"]["test"] is None else f"{entry['accuracy']['test']:.4f}")
    return table


def _pareto(document: Document, objective: str) -> Table:
    table = figures_table(("candidate",), ("latency", "size", f"{objective} val"), "Pareto front")
    for entry in document["pareto"]:
        table.add_row(Name(called(entry, "compilers" in document)),
                      ("" if entry["latency_s"]["confirmed"] else "~")
                      + show_seconds(entry["latency_s"][document["budget"]["latency_stat"]]),
                      show_bytes(entry["size_bytes"]), f"{entry['accuracy']['validation']:.4f}")
    return table


def _front(document: Document) -> str:
    """Say what a front is worth, and how another of its points is taken."""
    text = (f"The winner is the fastest of the front with {document['objective']} >= {document['shipped_least']:.4f}, "
            "else its most accurate; 'orchestrator studies pick' takes another.")
    worth = document["hypervolume"]
    if worth is None:
        return f"{text} No hypervolume: {document['hypervolume_absent_because']}."
    corner = worth["reference"]
    return (f"{text} Hypervolume {worth['value']:.4f}, from {show_seconds(corner['latency_s'])} and "
            f"{corner['accuracy']:.4f}, {corner['of']}.")


def _ending(document: Document) -> list[str]:
    """Say why the search ended early, and what going on would bring; nothing of reports that do not say."""
    if "stopped" not in document:
        return []
    message = str(document["stopped"]["message"])
    lines = [] if document["stopped"]["why"] == "allowance" else [f"{message[0].upper()}{message[1:]}."]
    if document["outlook"] is not None:
        return [*lines, say_outlook(document["outlook"])]
    silence = str(document["outlook_absent_because"])
    if document["stopped"]["why"] == "unreachable":
        return lines
    return [*lines, f"What further measurements would bring is not known: {silence}."]


def _interval(low: float, high: float) -> str:
    return f"{show_seconds(low)} - {show_seconds(high)}"


def _verdict(document: Document) -> str:
    winner = document["winner"]
    if winner is None:
        return "[red]Nothing could be measured.[/]"
    parts = []
    budget = document["budget"]
    if budget["latency_s"] is not None:
        chance = winner["latency_s"]["probability_met"]
        parts.append(f"{budget['latency_stat']} latency <= {show_seconds(budget['latency_s'])} with probability "
                     f"{chance:.3f} (asked: {document['confidence']:g})")
    if budget["size_bytes"] is not None:
        parts.append(f"size {show_bytes(winner['size_bytes'])} of {show_bytes(budget['size_bytes'])}")
    for metric, least in budget["minimum"].items():
        parts.append(f"{metric} {winner['metrics']['validation'][metric]:.4f} >= {least:.4f}")
    text = "; ".join(parts) or "no constraint was given"
    which = f" (the recipe {winner['name']})" if winner["name"] else ""
    if document["goal_met"]:
        return f"[bold green]Goal met[/]{which}: {text}."
    return f"[bold yellow]Goal not met; the nearest candidate{which} is saved[/]: {text}."


def _where(document: Document) -> str:
    """Name the board, or the kind and its boards."""
    boards = document["boards"]
    if len(boards) == 1:
        return str(boards[0]["name"])
    return f"{boards[0]['kind']} ({', '.join(str(board['name']) for board in boards)})"
