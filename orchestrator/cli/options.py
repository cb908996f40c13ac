"""What the verbs over the store have in common: their options, and how a document is printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.outcome import NOT_MET, Format, exit_codes, start_logging

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


def is_store(folder: Path) -> bool:
    """Tell whether there is a store; say so on standard error when not."""
    from orchestrator.store.places import DATABASE_NAME

    found = (folder / DATABASE_NAME).is_file()
    if not found:
        typer.echo(f"there is no store in {folder} yet: 'orchestrator search' makes it", err=True)
    return found


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
    """Print a document on standard output. Raises UsageError when it takes no more, e.g. a full disk."""
    from orchestrator.errors import UsageError

    try:
        if format_ is Format.JSON:
            typer.echo(json.dumps(document, indent=2))
        else:
            as_text()
        sys.stdout.flush()
    except BrokenPipeError as error:  # the reader has seen enough, e.g. `| head`
        _close_output()
        raise typer.Exit(NOT_MET) from error
    except OSError as error:
        _close_output()
        raise UsageError(f"the result cannot be written to standard output: {error.strerror}") from error


def _close_output() -> None:
    """Let Python's own flush at exit go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
