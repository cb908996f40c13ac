"""`orchestrator recipes`: what the studies found, for production."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    Debug,
    Output,
    StoreFolder,
    is_store,
    opened,
    print_document,
    quiet_libraries,
    store_place,
    verb,
)
from orchestrator.cli.outcome import NOT_MET, Format, fail

if TYPE_CHECKING:
    from orchestrator.schemas.recipes import RecipesList

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, export and verify recipes: the winners of the studies.",
    epilog="Exit codes: 0 done, 1 verification failed, 2 usage or configuration, 3 infrastructure.")


@app.command("list")
def list_(store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False) -> None:
    """List the studies that have a winner, and where its recipe lies."""
    with verb(debug):
        from orchestrator.schemas.strict import SCHEMA

        place = store_place(store)
        document: RecipesList = {"schema": SCHEMA, "store": str(place), "recipes": []}
        if is_store(place):
            from orchestrator.exports import recipes_document

            with opened(store) as found:
                document = recipes_document(found)
            if not document["recipes"]:
                typer.echo("no study has a winner yet; see 'orchestrator studies list'", err=True)

        def as_text() -> None:
            from rich.console import Console

            from orchestrator.study_report import print_recipes

            print_recipes(document, Console())

        print_document(document, format_, as_text)


@app.command()
def export(
    study: Annotated[str, typer.Option(help="Name of the study.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a recipe that is there.")] = False,
    store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Copy a study's recipe: the artifact, everything that decides its bytes, and how to use it."""
    with verb(debug), opened(store) as found:
        from orchestrator.exports import export_recipe
        from orchestrator.units import show_bytes

        document = export_recipe(found, study, output, overwrite)

        def as_text() -> None:
            typer.echo(f"{document['output']}: {document['files']} files, {show_bytes(document['size_bytes'])}; "
                       "its README.md says how to use it")

        print_document(document, format_, as_text)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a recipe.", show_default=False)],
    format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Compare a recipe's files with their digests, and build its model again."""
    with verb(debug):
        from orchestrator.exports import verify_recipe

        with nullcontext() if debug else quiet_libraries():
            document = verify_recipe(folder)
        wrong = [check["name"] for check in document["checks"] if not check["ok"]]

        def as_text() -> None:
            for check in document["checks"]:
                typer.echo(f"{'ok    ' if check['ok'] else 'FAILED'}  {check['name']}: {check['detail']}")

        print_document(document, format_, as_text)
        if wrong:
            raise fail(f"{folder} is not what it says: {', '.join(wrong)}", NOT_MET)
