"""What the verbs over the store have in common: their options, and how a document is printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.outcome import NOT_MET, Format, exit_codes, start_logging

if TYPE_CHECKING:
    from device_farm.inventory import Inventory
    from orchestrator.leasing import Waiting
    from orchestrator.store.places import StorePlace
    from orchestrator.store.store import Store

_PASSWORD = re.compile(r"(?<=://)(?P<user>[^:/@]*):[^@/]*@")
_USER = r"\g<user>@"
UNLIMITED = 1_000_000
"""Columns of a pipe: what reads it wants one line."""


def whole(text: str) -> int:
    """Read a whole number. Raises BadParameter."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}") from None


def number(text: str) -> float:
    """Read a number. Raises BadParameter."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"expected a number such as 0.5, got {text!r}") from None


def output_format(text: str) -> Format:
    """Read a format. Raises BadParameter."""
    try:
        return Format(text)
    except ValueError:
        raise typer.BadParameter(f"expected text or json, got {text!r}") from None


StoreFolder = Annotated[str | None, typer.Option(
    "--store", help="Folder of the store, or postgresql://USER@HOST/DATABASE.", show_default=False)]
InventoryFile = Annotated[
    str | None,
    typer.Option("--inventory", help="The inventory. [default: the nearest inventory.yaml]", show_default=False)]
Output = Annotated[Format, typer.Option("--format", parser=output_format, metavar="<format>", help="text or json.")]
Wait = Annotated[str | None, typer.Option(
    "--wait", help="How long to wait for a board that is another's, e.g. 2h; 0s: not at all. [default: 1h]",
    show_default=False)]
Priority = Annotated[int, typer.Option(
    "--priority", parser=whole, metavar="<int>", help="Who waits with a greater one comes first.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log everything to standard error.")]


def read_waiting(wait: str | None, priority: int) -> Waiting:
    """Read --wait and --priority. Raises UsageError."""
    from orchestrator.errors import UsageError
    from orchestrator.leasing import Waiting
    from orchestrator.units import parse_seconds

    if wait is None:
        return Waiting(priority=priority)
    try:
        return Waiting(0.0 if wait.strip() in ("0", "0s") else parse_seconds(wait), priority)
    except UsageError as error:
        raise UsageError(f"--wait: {error}") from error


@contextmanager
def verb(debug: bool) -> Iterator[None]:
    """Log as asked, and turn every error into its exit code."""
    with exit_codes(debug=debug):
        start_logging(None, debug)
        yield


def inventory_place(inventory: str | None) -> Path | None:
    """Return the inventory's file, None where there is none. Raises UsageError for one that is named and not there."""
    from orchestrator.errors import UsageError
    from orchestrator.store.places import INVENTORY_NAME, INVENTORY_VARIABLE, find_inventory

    path = find_inventory(inventory, os.environ, Path.cwd())
    source = "--inventory" if inventory else INVENTORY_VARIABLE
    if path is not None and path.is_dir():
        raise UsageError(f"{source} {path}: expected a file, this is a folder; is it {path / INVENTORY_NAME}?")
    if path is not None and not path.exists():
        raise UsageError(f"{source} {path}: no such file; correct it, or make it with 'orchestrator devices add NAME "
                         f"--host HOST --inventory {path}'")
    return path


def read_inventory(inventory: str | None) -> Inventory:
    """Read the inventory that is meant. Raises UsageError, InventoryError."""
    from device_farm.inventory import Inventory

    path = inventory_place(inventory)
    return Inventory() if path is None else Inventory.load(path)


def local_time(moment: str) -> str:
    """Write a document's time as a person reads it."""
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"


def store_place(store: str | None) -> StorePlace:
    """Return where the store is, which need not exist."""
    from orchestrator.store.places import find_store

    return find_store(store, os.environ, Path.cwd())


def is_store(place: StorePlace) -> bool:
    """Tell whether there is a store; say so on standard error when not."""
    if not place.exists:
        typer.echo(f"there is no store in {place} yet: 'orchestrator search' makes it", err=True)
    return place.exists


@contextmanager
def opened(store: str | None) -> Iterator[Store]:
    """Open the store that is there. Raises UsageError when there is none: looking must not make one."""
    from orchestrator.errors import UsageError
    from orchestrator.store.store import Store

    place = store_place(store)
    if not place.exists:
        raise UsageError(f"there is no store in {place}: nothing was searched there yet; is --store right?")
    with Store.open(place) as found:
        yield found


def store_option(store: str | None) -> str:
    """Return `--store` as it was given, for a command that is shown; a password is not shown."""
    return f" --store {shlex.quote(_PASSWORD.sub(_USER, store))}" if store else ""


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


def print_hanging(first: str, text: str) -> None:
    """Print a text; where a terminal is narrower, its further lines stand below the first one."""
    width = shutil.get_terminal_size(fallback=(UNLIMITED, 24)).columns
    indent = " " * len(first)
    lines = [line for part in text.splitlines() for line in textwrap.wrap(
        part, max(width - len(first), len(first)), break_long_words=False, break_on_hyphens=False)]
    typer.echo(first + f"\n{indent}".join(lines))


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what native libraries write to standard error, past Python, from the user's terminal."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _close_output() -> None:
    """Let Python's own flush at exit go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
