"""`orchestrator tune`: measure which tiles make the kernels of the compiler tvm fast on a kind of board."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    Debug,
    InventoryFile,
    Output,
    Priority,
    StoreFolder,
    Wait,
    print_document,
    read_inventory,
    read_waiting,
    store_place,
)
from orchestrator.cli.outcome import INTERRUPTED, Format, exit_codes, start_logging

if TYPE_CHECKING:
    from orchestrator.schemas.tune import TuneDocument

AGAIN = "the same command"


def tune(
    model: Annotated[str, typer.Option(
        help="The network: FILE.py:FACTORY, MODULE:FACTORY, a .pt2 or .onnx file, demo:NAME.")] = "demo:residual",
    data: Annotated[str, typer.Option(help="Its data, as for search: the network is run once to be imported.")]
    = "demo:fashion_mnist",
    device: Annotated[str, typer.Option(
        help="A kind of board: all its boards share the work; or one board's name, or local.")] = "local",
    schemes: Annotated[str | None, typer.Option(
        help="Formats to tune, e.g. w8a8,w4a8. [default: all]", show_default=False)] = None,
    time: Annotated[str | None, typer.Option(help="Stop after, e.g. 5m.", show_default=False)] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure what is known, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many kernels are left; measure nothing.")] = False,
    wait: Wait = None, priority: Priority = 0,
    store: StoreFolder = None, inventory: InventoryFile = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Measure the fastest tile of every kernel of a network, for --compiler tvm; later searches use it."""
    told: list[int] = []
    with exit_codes(resume=lambda: AGAIN if told else None, debug=debug), ExitStack() as held:
        start_logging(None, debug)
        from orchestrator.cli.bar import Tell, bar
        from orchestrator.errors import UsageError
        from orchestrator.store.store import Store
        from orchestrator.tune import Wanted, Watcher
        from orchestrator.tune import tune as measure
        from orchestrator.units import parse_seconds

        try:
            limit_s = None if time is None else parse_seconds(time)
        except UsageError as error:
            raise UsageError(f"--time: {error}") from error
        named = tuple(name.strip() for name in schemes.split(",")) if schemes is not None else ()
        if schemes is not None and not all(named):
            raise UsageError(f"--schemes: expected names such as w8a8,w4a8, got {schemes!r}")

        class Shown(Watcher):
            """On standard error."""

            tell: Tell | None = None

            def begin(self, kernels: int) -> None:
                self.tell = held.enter_context(bar(device, kernels, "kernels"))

            def done(self, kernels: int, title: str) -> None:
                told.append(kernels)
                if self.tell is not None:
                    self.tell(kernels, title)

            def note(self, text: str) -> None:
                typer.echo(text, err=True)

        boards = read_inventory(inventory)
        at = held.enter_context(Store.open(store_place(store)))
        wanted = Wanted(device, model, data, Path.cwd(), named, limit_s, again, dry_run, read_waiting(wait, priority))
        document = measure(at, boards, wanted, Shown())
    print_document(document, format_, lambda: _print(document))
    if document["interrupted"]:
        typer.echo(f"interrupted; what was measured is kept; continue with: {AGAIN}", err=True)
        raise typer.Exit(INTERRUPTED)


def _print(document: TuneDocument) -> None:
    from rich.console import Console

    from orchestrator.tables import Name, figures_table
    from orchestrator.units import show_seconds

    where = f"{document['kind']} ({', '.join(document['boards'])}; tvm {document['runtime']['version']})"
    left = document["planned"] - document["known"] - document["measured"] - document["infeasible"]
    if document["kernels"]:
        table = figures_table(("kernel",), ("default", "tuned", "tile"), f"{document['model']} on {where}")
        for row in document["kernels"]:
            if row["default_s"] is None or row["tuned_s"] is None:
                table.add_row(Name(row["title"]), "-", "-", "does not run")
                continue
            tile = f"{row['tile']['pixels']} x {row['tile']['vectors']}"
            table.add_row(Name(row["title"]), show_seconds(row["default_s"]),
                          show_seconds(row["tuned_s"]) if row["tuned_s"] < row["default_s"] else "=",
                          tile if row["tile"]["weights_stay"] else f"{tile} by pixels")
        Console().print(table)
    for row in document["kernels"]:
        if row["reason"]:
            typer.echo(f"{row['title']}: {row['reason']}")
    others = "".join(f", {number} {word}" for number, word in ((document["infeasible"], "do not run"), (left, "left"))
                     if number)
    typer.echo(f"{document['planned']} kernels: {document['known']} were known, {document['measured']} measured in "
               f"{document['wall_s']:.0f} s{others}")
