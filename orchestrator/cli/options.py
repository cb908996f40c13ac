"""What the verbs over the store have in common: their options, and how a document is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.outcome import Format, exit_codes, start_logging

if TYPE_CHECKING:
    from orchestrator.store.store import Store

StoreFolder = Annotated[str | None, typer.Option("--store", help="Folder of the store.", show_default=False)]
Output = Annotated[Format, typer.Option("--format", help="text or json.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log everything to standard error.")]


@contextmanager
def verb(debug: bool) -> Iterator[None]:
    """Log as asked, and turn every error into its exit code."""
    with exit_codes():
        start_logging(None, debug)
        yield


def store_place(store: str | None) -> Path:
    """Return the store's folder, which need not exist."""
    from orchestrator.store.places import find_store

    return find_store(store, os.environ, Path.cwd())


@contextmanager
def opened(store: str | None) -> Iterator[Store]:
    """Open the store that is there. Raises UsageError when there is none: looking must not make one."""
    from orchestrator.errors import UsageError
    from orchestrator.store.places import DATABASE_NAME
    from orchestrator.store.store import Store

    folder = store_place(store)
    if not (folder / DATABASE_NAME).is_file():
        raise UsageError(f"there is no store in {folder}: nothing was searched there yet; is --store right?")
    with Store.open(folder) as found:
        yield found


def print_document(document: Mapping[str, object], format_: Format, as_text: Callable[[], None]) -> None:
    """Print a document on standard output."""
    if format_ is Format.JSON:
        typer.echo(json.dumps(document, indent=2))
    else:
        as_text()
