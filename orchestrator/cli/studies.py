"""`orchestrator studies`: what was searched, how it stands, pictures of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    Debug,
    Output,
    StoreFolder,
    is_store,
    number,
    opened,
    print_document,
    store_place,
    verb,
)
from orchestrator.cli.outcome import NOT_MET, Format, fail

if TYPE_CHECKING:
    from orchestrator.schemas.studies import StudiesList
    from orchestrator.study_view import StudyView

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, show, plot and remove studies; pick other candidates.",
    epilog="Exit codes: 0 done, 1 not done, 2 usage or configuration, 3 infrastructure.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.", show_default=False)]
Metric = Annotated[str | None, typer.Option(help="Quality to look at. [default: the objective]", show_default=False)]


@app.command("list")
def list_(store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False) -> None:
    """List all studies, oldest first."""
    with verb(debug):
        from orchestrator.schemas.strict import SCHEMA

        place = store_place(store)
        document: StudiesList = {"schema": SCHEMA, "store": str(place), "studies": []}
        if is_store(place):
            from orchestrator.studies import studies_document

            with opened(store) as found:
                document = studies_document(found)

        def as_text() -> None:
            from rich.console import Console

            from orchestrator.study_report import print_studies

            print_studies(document, Console())

        print_document(document, format_, as_text)


@app.command()
def show(name: Name, store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False) -> None:
    """Show a study: its goal, its result and every candidate."""
    with verb(debug), opened(store) as found:
        from orchestrator.studies import show_document
        from orchestrator.study_view import view_of

        view = view_of(found, name)
        document = show_document(found, view)

        def as_text() -> None:
            from rich.console import Console

            from orchestrator.study_report import print_study

            print_study(document, view, Console())

        print_document(document, format_, as_text)
        _note_objective(view)


@app.command()
def pareto(name: Name, metric: Metric = None, store: StoreFolder = None, format_: Output = Format.TEXT,
           debug: Debug = False) -> None:
    """Print the candidates that no other beats in latency and accuracy, fastest first."""
    with verb(debug), opened(store) as found:
        from orchestrator.studies import pareto_document
        from orchestrator.study_view import view_of

        view = view_of(found, name, metric)
        document = pareto_document(view)

        def as_text() -> None:
            from rich.console import Console

            from orchestrator.study_report import print_pareto

            print_pareto(document, Console())

        print_document(document, format_, as_text)
        _note_objective(view)


@app.command()
def layers(
    name: Name,
    candidate: Annotated[str | None, typer.Option(
        help="Its name, or the beginning of its id. [default: the winner]", show_default=False)] = None,
    store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Show where a candidate's time goes, layer by layer, as the board measured it (--compiler tvm)."""
    with verb(debug), opened(store) as found:
        from orchestrator.layers_view import layers_document, print_layers
        from orchestrator.study_view import view_of

        document = layers_document(found, view_of(found, name), candidate)

        def as_text() -> None:
            from rich.console import Console

            print_layers(document, Console())

        print_document(document, format_, as_text)


@app.command()
def pick(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The study's name.", show_default=False)] = None,
    study: Annotated[str | None, typer.Option(help="The same.", show_default=False)] = None,
    budget: Annotated[str | None, typer.Option(help="Latency: 10ms, 0.5x, 0.6x:int8.", show_default=False)] = None,
    size_budget: Annotated[str | None, typer.Option(help="Artifact size: 80KB, 0.8x:int8.", show_default=False)] = None,
    max_drop: Annotated[float | None, typer.Option(
        parser=number, metavar="<float>", help="Points of the objective that may be lost; alone: the fastest.",
        show_default=False)] = None,
    require: Annotated[list[str] | None, typer.Option(
        help="'METRIC >= NUMBER', relative to float32, or with 'abs'; may be repeated.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to make for its recipe.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a recipe that is there.")] = False,
    store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Pick another candidate from what a study has measured, by other constraints; nothing is measured."""
    with verb(debug):
        from orchestrator.config import constraints_of
        from orchestrator.errors import UsageError

        if (name is None) == (study is None):
            raise UsageError("which study? give its name once: orchestrator studies pick NAME --budget 0.5x")
        asked = constraints_of({"budget": budget, "size_budget": size_budget, "max_drop": max_drop,
                                "require": tuple(require or ())})
        with opened(store) as found:
            from orchestrator.pick import pick as choose
            from orchestrator.pick import pick_document
            from orchestrator.pick_report import confirming_command, print_pick
            from orchestrator.study_view import view_of

            view = view_of(found, name or study or "")
            picked = choose(found, view, asked)
            place: Path | None = None
            if output is not None:
                from orchestrator.stored_recipe import export_picked

                place = export_picked(found, view, picked, output.expanduser(), overwrite)
            document = pick_document(view, picked, None if place is None else str(place))

            def as_text() -> None:
                from rich.console import Console

                print_pick(document, confirming_command(view.record.name, asked, store), Console())

            print_document(document, format_, as_text)
            _note_objective(view)
        if not picked.met:
            raise typer.Exit(NOT_MET)


@app.command()
def plot(
    name: Name,
    output: Annotated[Path | None, typer.Option(
        help="Folder for the pictures. [default: ./NAME-plots]", show_default=False)] = None,
    metric: Metric = None, store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Draw latency against accuracy, the progress and the winner's bits: three PNG files and one HTML page."""
    with verb(debug), opened(store) as found:
        from orchestrator.plots import plot_document, write_plots
        from orchestrator.study_view import view_of

        view = view_of(found, name, metric)
        document = plot_document(view, write_plots(view, (output or Path(f"{name}-plots")).expanduser()))

        def as_text() -> None:
            for file in document["files"]:
                typer.echo(file["path"])

        print_document(document, format_, as_text)
        for kind, reason in document["absent"].items():
            typer.echo(f"no picture of {kind}: {reason}", err=True)
        _note_objective(view)
        if not document["files"]:
            raise typer.Exit(NOT_MET)


@app.command()
@app.command("rm", hidden=True)
def remove(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Delete a study with its artifacts, log and recipe, as far as no other study uses them."""
    with verb(debug), opened(store) as found:
        from orchestrator.studies import remove_study
        from orchestrator.units import show_bytes

        study = found.study(name)
        if not yes and not _agreed(f"Delete study {study.name} of {study.created_at:%Y-%m-%d %H:%M} UTC "
                                   f"({study.status.value.lower()}, {len(found.trials(study.id))} trials)?"):
            raise fail("nothing was deleted", NOT_MET)
        document = remove_study(found, name)
        print_document(document, format_, lambda: typer.echo(
            f"deleted {name}: {document['trials']} trials, {document['files']} files, "
            f"{show_bytes(document['bytes_freed'])} freed"))


def _agreed(question: str) -> bool:
    """Ask on standard error; no answer is a no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)
        return False


def _note_objective(view: StudyView) -> None:
    if view.others:
        typer.echo(f"this study has no result yet, so that its objective is not known: this is {view.metric}, "
                   f"others are {', '.join(view.others)}", err=True)
