"""`orchestrator devices power`, `ssh` and `logs`: a person's own hands on a board."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from orchestrator.cli.devices import Name
from orchestrator.cli.options import (
    Debug,
    InventoryFile,
    Output,
    StoreFolder,
    print_document,
    read_inventory,
    store_place,
    verb,
    whole,
)
from orchestrator.cli.outcome import Format


class Switching(StrEnum):
    """What is done with the power."""

    ON = "on"
    OFF = "off"
    CYCLE = "cycle"


def power(
    name: Name,
    action: Annotated[Switching, typer.Argument(metavar="on|off|cycle", help="cycle: off, three seconds, on.",
                                                show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Also while another uses it.")] = False,
    inventory: InventoryFile = None, store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Switch a board's power, as `power` in the inventory says."""
    with verb(debug):
        from orchestrator.board_access import power_device
        from orchestrator.devices import named
        from orchestrator.store.store import Store

        entry = named(read_inventory(inventory), name)
        with Store.open(store_place(store)) as found:
            document = power_device(found, entry, action.value, force)
        print_document(document, format_, lambda: typer.echo(f"{name}: power {action.value}: done"))


def ssh(
    name: Name,
    command: Annotated[list[str] | None, typer.Argument(help="Default: a shell.", show_default=False)] = None,
    inventory: InventoryFile = None, debug: Debug = False,
) -> None:
    """Log in to a board with OpenSSH, by the inventory's way and its pinned keys."""
    with verb(debug):
        from device_farm.openssh import run_ssh
        from orchestrator.devices import named
        from orchestrator.errors import UsageError

        entry = named(read_inventory(inventory), name)
        if entry.transport != "ssh":
            raise UsageError(f"{name} is built in: it is this computer")
        raise typer.Exit(run_ssh(entry, command or []))


def logs(
    name: Name,
    lines: Annotated[int, typer.Option(parser=whole, metavar="<int>", help="The last so many.")] = 50,
    inventory: InventoryFile = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Show the end of a board's kernel log: under-voltage, throttling, out of memory, a dying SD card."""
    with verb(debug):
        from orchestrator.board_access import device_logs
        from orchestrator.devices import named
        from orchestrator.errors import UsageError

        if lines < 1:
            raise UsageError(f"--lines: expected at least 1, got {lines}")
        document = device_logs(named(read_inventory(inventory), name), lines)
        print_document(document, format_, lambda: typer.echo("\n".join(document["lines"])))
