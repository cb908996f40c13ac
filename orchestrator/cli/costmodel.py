"""`orchestrator costmodel`: measure layers, learn what they cost, say how well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.bar import bar
from orchestrator.cli.options import (
    Debug,
    InventoryFile,
    Output,
    Priority,
    StoreFolder,
    Wait,
    opened,
    print_document,
    read_inventory,
    read_waiting,
    store_place,
    verb,
    whole,
)
from orchestrator.cli.outcome import INTERRUPTED, Format, exit_codes, start_logging

if TYPE_CHECKING:
    from orchestrator.schemas.costmodel import CostmodelCollected, CostmodelEvaluated

AGAIN = "the same command"

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Measure single layers on a board and learn what layers cost: a new study's prior.",
    epilog="Exit codes: 0 done, 2 usage or configuration, 3 infrastructure, 130 interrupted.")

Kind = Annotated[str | None, typer.Option(
    help="Rows of this kind of board only. [default: all that were measured]", show_default=False)]


@app.command()
def collect(
    device: Annotated[str, typer.Option(help="A board's name or kind, or local, sim.")] = "local",
    measurements: Annotated[int | None, typer.Option(
        parser=whole, metavar="<int>", show_default=False,
        help="The first so many points of the sweep. [default: 2000, or as many as --time allows]")] = None,
    time: Annotated[str | None, typer.Option(help="Stop after, e.g. 5m.", show_default=False)] = None,
    shapes: Annotated[Path | None, typer.Option(
        help="A float .tflite model, e.g. a recipe's: measure its layers instead of drawn ones.",
        show_default=False)] = None,
    threads: Annotated[int, typer.Option(parser=whole, metavar="<int>", help="Threads on the board.")] = 1,
    seed: Annotated[int, typer.Option(parser=whole, metavar="<int>", help="Which sweep.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many points are left; measure nothing.")] = False,
    wait: Wait = None, priority: Priority = 0,
    store: StoreFolder = None, inventory: InventoryFile = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Measure single layers of many shapes in every format; what the store holds of the board is not repeated."""
    told: list[int] = []
    with exit_codes(resume=lambda: AGAIN if told else None, debug=debug):
        start_logging(None, debug)
        from orchestrator.costmodel_collect import DEFAULT_POINTS, Wanted
        from orchestrator.costmodel_collect import collect as collect_layers
        from orchestrator.errors import UsageError
        from orchestrator.store.store import Store
        from orchestrator.units import parse_seconds

        for name, value in (("--measurements", measurements), ("--threads", threads)):
            if value is not None and value < 1:
                raise UsageError(f"{name}: expected at least 1, got {value}")
        if seed < 0:
            raise UsageError(f"--seed: expected at least 0, got {seed}")
        try:
            limit_s = None if time is None else parse_seconds(time)
        except UsageError as error:
            raise UsageError(f"--time: {error}") from error
        if measurements is None and shapes is None and (limit_s is None or dry_run):
            measurements = DEFAULT_POINTS
        boards = read_inventory(inventory)
        boards.find(device)
        wanted = Wanted(device, measurements, limit_s, seed, threads, shapes, read_waiting(wait, priority))
        with Store.open(store_place(store)) as at, bar(device, measurements, "layers") as tell:
            def progress(done: int, what: str) -> None:
                told.append(done)
                tell(done, what)

            document = collect_layers(at, boards, wanted, progress, lambda text: typer.echo(text, err=True), dry_run)
        print_document(document, format_, lambda: _print_collected(document))
        if document["interrupted"]:
            typer.echo(f"interrupted; what was measured is kept; continue with: {AGAIN}", err=True)
            raise typer.Exit(INTERRUPTED)


@app.command()
def train(kind: Kind = None, store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False) -> None:
    """Train a new version of the cost model on every measured layer, and say how far it is from held-out ones."""
    with verb(debug), opened(store) as found:
        from orchestrator.costmodel import train_costmodel

        document = train_costmodel(found, kind)

        def as_text() -> None:
            _print_evaluated(document["evaluation"])
            whose = "all kinds" if kind is None else kind
            typer.echo(f"kept as version {document['version']} of {whose} ({document['library']}, "
                       f"{document['evaluation']['rows']} layers)")

        print_document(document, format_, as_text)


@app.command()
def evaluate(kind: Kind = None, store: StoreFolder = None, format_: Output = Format.TEXT,
             debug: Debug = False) -> None:
    """Compare the roofline, the learned model and both together on layers that they were not trained with."""
    with verb(debug), opened(store) as found:
        from orchestrator.costmodel import evaluate_costmodel

        document = evaluate_costmodel(found, kind)
        print_document(document, format_, lambda: _print_evaluated(document))


def _print_collected(document: CostmodelCollected) -> None:
    board = document["board"]
    where = f"{board['name']} ({board['runtime']['name']} {board['runtime']['version']})"
    if document["dry_run"]:
        left = (document["points"] or 0) - document["known"]
        typer.echo(f"{where}: {left} of {document['points']} layers are left to measure")
        return
    if document["simulated"]:
        typer.echo("latencies are simulated (a roofline model), not measured")
    known = f", {document['known']} were known" if document["known"] else ""
    wrong = f", {document['infeasible']} do not run there" if document["infeasible"] else ""
    typer.echo(f"{where}: {document['measured']} layers measured in {document['wall_s']:.0f} s{known}{wrong}; the "
               f"store holds {document['rows']} of this board")


def _print_evaluated(document: CostmodelEvaluated) -> None:
    from rich.console import Console

    from orchestrator.tables import Name, figures_table

    console = Console()
    held_out = {"families of shapes": document["held_out_families"],
                "kinds of boards": document["held_out_board_kinds"]}
    for what, priors in held_out.items():
        if priors is None:
            continue
        table = figures_table(("prior",), ("median error", "rank corr."),
                              f"{document['rows']} layers on {', '.join(document['board_kinds'])}; held out: {what}")
        for name, found in priors.items():
            table.add_row(name, f"{found['median_relative_error']:.1%}", f"{found['rank_correlation']:.3f}")
        console.print(table)
    if document["networks"]:
        table = figures_table(("study", "prior"), ("candidates", "median error", "rank corr."),
                              "whole networks, as studies measured them")
        for network in document["networks"]:
            for name, found in network["priors"].items():
                table.add_row(Name(network["study"]), name, str(network["candidates"]),
                              f"{found['median_relative_error']:.1%}", f"{found['rank_correlation']:.3f}")
        console.print(table)
    typer.echo(f"least error: {document['chosen']}")
