"""`orchestrator devices`: the boards of the inventory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    Debug,
    InventoryFile,
    Output,
    StoreFolder,
    inventory_place,
    local_time,
    print_document,
    print_hanging,
    read_inventory,
    store_place,
    verb,
    whole,
)
from orchestrator.cli.outcome import INFRASTRUCTURE, NOT_MET, Format, fail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from device_farm.inventory import BoardEntry, Inventory
    from orchestrator.devices import ShownKey
    from orchestrator.schemas.devices import Device, DeviceChecked

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The boards of the inventory, and who has them.",
    epilog="Exit codes: 0 done or fit, 1 not done or not fit, 2 usage or configuration, 3 not reached.",
)


Name = Annotated[str, typer.Argument(metavar="NAME", help="The board's name in the inventory.", show_default=False)]
Compilers = Annotated[
    str, typer.Option("--compiler", metavar="<compiler>", help="Whose artifacts it runs: tflite, tvm or tflite,tvm.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_(inventory: InventoryFile = None, store: StoreFolder = None, format_: Output = Format.TEXT,
          debug: Debug = False) -> None:
    """List the boards of the inventory and the built-in ones, and who has them."""
    with verb(debug):
        from orchestrator.device_list import list_devices
        from orchestrator.reservations import devices_in_use
        from orchestrator.store.store import Store

        boards, place = read_inventory(inventory), store_place(store)
        if place.exists:
            with Store.open(place) as found:
                document = devices_in_use(found, boards)
        else:
            document = list_devices(boards)

        def as_text() -> None:
            from rich.console import Console

            from orchestrator.tables import print_listing

            rows = [_row(device) for device in document["devices"]]
            print_listing(Console(), ("name", "kind", "address", "runtime"), rows)
            for device in document["devices"]:
                for line in _users(device):
                    print_hanging(f"{device['name']}: ", line)

        print_document(document, format_, as_text)
        if document["inventory"] is None:
            typer.echo("no inventory yet; 'orchestrator devices add NAME --host HOST' makes one", err=True)


@app.command()
def add(
    name: Name,
    host: Annotated[str | None, typer.Option(help="Name or address.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option(help="User to log in as. [default: yours]", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(parser=whole, metavar="<int>", help="Port. [default: 22]", show_default=False)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="What it is, e.g. rpi4: boards of one kind are alike. [default: NAME]", show_default=False),
    ] = None,
    identity_file: Annotated[
        Path | None, typer.Option(help="Private key. [default: the SSH agent's, ~/.ssh/id_*]", show_default=False)
    ] = None,
    jump: Annotated[
        list[str] | None,
        typer.Option(help="USER@HOST:PORT on the way; may be repeated, first to last.", show_default=False),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python on the board. [default: python3]", show_default=False)
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Change a board that is there, and read its host key anew.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Trust the host key that the board shows; do not ask.")] = False,
    inventory: InventoryFile = None,
    format_: Output = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Add a board: show its host key, pin it once you confirm it, and try the connection."""
    with verb(debug):
        from orchestrator.devices import Wanted, add_device
        from orchestrator.store.places import INVENTORY_NAME, find_inventory

        here = Path.cwd()
        path = find_inventory(inventory, os.environ, here) or here / INVENTORY_NAME
        wanted = Wanted(name, host, user, port, kind, identity_file, tuple(jump or ()), python)
        document = add_device(path, wanted, replace=replace, confirm=lambda shown: _confirm_key(shown, yes))

        def as_text() -> None:
            made = " (made)" if document["inventory_created"] else ""
            typer.echo(f"{name} is in {document['inventory']}{made}")
            if document["connected"]:
                typer.echo(f"the connection works; next: orchestrator devices setup {name}{_place(inventory)}")

        print_document(document, format_, as_text)
        if not document["connected"]:
            raise fail(
                f"{document['connection_failed_because']}\n{name} stays in the inventory; when this is mended: "
                f"orchestrator devices check {name}{_place(inventory)}",
                INFRASTRUCTURE,
            )


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The board's name in the inventory.",
                                               show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="All boards of the inventory, at once.")] = False,
    compiler: Compilers = "tflite",
    inventory: InventoryFile = None,
    store: StoreFolder = None,
    format_: Output = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Say whether a board can measure, and what to do where it cannot; one that can leaves its quarantine."""
    with verb(debug):
        from orchestrator.devices import check_devices
        from orchestrator.errors import UsageError

        boards, compilers = read_inventory(inventory), _compilers(compiler)
        if all_ == (name is not None):
            raise UsageError("give the name of a board, or --all")
        entries = boards.boards if name is None else [_named(boards, name)]
        if not entries:
            raise UsageError("there is no board in the inventory: add one with 'orchestrator devices add NAME "
                             "--host HOST'")
        found = check_devices(entries, store_place(store), compilers)
        document: Mapping[str, object] = found[0] if name is not None else {"schema": 1, "devices": found}

        def as_text() -> None:
            for one in found:
                _print_check(one, whole=name is not None)

        print_document(document, format_, as_text)
        if not all(one["fit"] for one in found):
            raise typer.Exit(NOT_MET if all(one["reachable"] for one in found) else INFRASTRUCTURE)


def _named(boards: Inventory, name: str) -> BoardEntry:
    from orchestrator.devices import named

    return named(boards, name)


def _print_check(document: DeviceChecked, whole: bool) -> None:
    """Print what was found on a board; of several boards only what is not well."""
    name = document["device"]
    if not whole:
        typer.echo(f"{name} is {'fit to measure' if document['fit'] else 'not fit to measure'}")
    for finding in document["findings"]:
        if whole or finding["level"] != "ok":
            print_hanging(f"{'' if whole else '  '}{finding['level']:<8} {finding['what']:<13} ", finding["detail"])
            if finding["remedy"]:
                typer.echo(f"{'':<{8 if whole else 10}} {'':<13} -> {finding['remedy']}")
    if document.get("returned"):
        typer.echo(f"{name} leaves its quarantine")
    if whole:
        typer.echo(f"{name} is {'fit to measure' if document['fit'] else 'not fit to measure'}")


@app.command()
def setup(
    name: Name,
    compiler: Compilers = "tflite",
    inventory: InventoryFile = None,
    store: StoreFolder = None,
    format_: Output = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Install the runtime on a board, unless it is there; the board needs no internet."""
    with verb(debug):
        from orchestrator.devices import setup_device
        from orchestrator.wiring import compiler_option

        compilers = _compilers(compiler)
        document = setup_device(
            read_inventory(inventory), name, store_place(store).folder,
            lambda step: typer.echo(f"{name}: {step}", err=True), compilers,
        )
        option = compiler_option(compilers)
        done = f"{name} is set up; next: orchestrator search --device {name}{option}{_place(inventory)}"
        print_document(document, format_, lambda: typer.echo(done))


@app.command()
@app.command("rm", hidden=True)
def remove(
    name: Name, yes: Yes = False, inventory: InventoryFile = None, format_: Output = Format.TEXT, debug: Debug = False
) -> None:
    """Take a board out of the inventory; nothing on the board is touched."""
    with verb(debug):
        from orchestrator.devices import named, remove_device

        path = inventory_place(inventory)
        entry = named(read_inventory(inventory), name)
        if entry.transport == "ssh":
            _confirm(f"Remove {name} from {path}?", yes, f"remove {name}")
        document = remove_device(path, name)
        done = f"{name} is removed from {path}; its files stay on the board, in {document['left_on_board']}"
        print_document(document, format_, lambda: typer.echo(done))


def _compilers(text: str) -> tuple[str, ...]:
    """Read --compiler. Raises UsageError."""
    from orchestrator.config import parse_compilers
    from orchestrator.errors import UsageError

    try:
        return parse_compilers(text)
    except ValueError as error:
        raise UsageError(f"--compiler: {error}") from error


def _place(inventory: str | None) -> str:
    return f" --inventory {inventory}" if inventory else ""


def _confirm_key(shown: ShownKey, yes: bool) -> None:
    """Show a key; the user compares it with what the machine itself says."""
    key, pinned = shown.key, shown.pinned
    typer.echo(f"{shown.address} shows the host key {key.fingerprint} ({key.type})", err=True)
    if pinned == key:
        typer.echo("It is the one that the inventory pins already.", err=True)
        return
    if pinned is not None:
        typer.echo(f"It is NOT the one that the inventory pins: {pinned.fingerprint} ({pinned.type})", err=True)
    typer.echo("Compare it with what the machine says: for f in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $f; done",
               err=True)  # fmt: skip
    _confirm("Is it the same?", yes, "pin the key")


def _confirm(question: str, yes: bool, what: str) -> None:
    """Ask. Raises typer.Exit when the answer is no, UsageError when nobody can be asked."""
    from orchestrator.errors import UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"there is no terminal to ask at; to {what} without asking, give --yes")
    # Not typer.confirm: it writes a blank to standard output, which is for documents alone.
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise fail("nothing was changed", NOT_MET)


def _row(device: Device) -> tuple[str, str, str, str]:
    way = "".join(f"{hop} -> " for hop in device["jump"])
    runtime = device["runtime"]
    chosen = f"{runtime['name']} {runtime['version']}" if runtime else "newest" if device["address"] else "built in"
    return device["name"], device["kind"], f"{way}{device['address'] or '-'}", chosen


def _users(device: Device) -> list[str]:
    """Say who has a board and who waits for it."""
    lines = []
    if "lease" in device:
        lease = device["lease"]
        lines.append(f"leased by {lease['owner']} for {lease['purpose']} since {local_time(lease['since'])}")
    if "reservation" in device:
        kept = device["reservation"]
        why = f" ({kept['purpose']})" if kept["purpose"] else ""
        lines.append(f"reserved by {kept['owner']} until {local_time(kept['until'])}{why}")
    if "quarantine" in device:
        ill = device["quarantine"]
        why = f"; it waits for a person: orchestrator devices check {device['name']}" if ill["waits_for_person"] else ""
        lines.append(f"in quarantine since {local_time(ill['since'])}: {ill['reason']}{why}")
    for one in device.get("waiting", []):
        first = f" with priority {one['priority']}" if one["priority"] else ""
        lines.append(f"{one['owner']} waits{first}, for {one['purpose']}")
    return lines
