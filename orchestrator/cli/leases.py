"""`orchestrator devices reserve`, `release` and `history`: who has which board."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.devices import Name
from orchestrator.cli.options import (
    Debug,
    InventoryFile,
    Output,
    Priority,
    StoreFolder,
    Wait,
    local_time,
    print_document,
    print_hanging,
    read_inventory,
    read_waiting,
    store_option,
    store_place,
    verb,
    whole,
)
from orchestrator.cli.outcome import Format

Device = Annotated[str, typer.Argument(metavar="NAME", help="A board's name, or a kind: one of its boards.",
                                       show_default=False)]



def reserve(
    name: Device,
    for_: Annotated[str, typer.Option("--for", help="How long, e.g. 90m.")] = "1h",
    purpose: Annotated[str, typer.Option(help="What for; others read it.", show_default=False)] = "",
    wait: Wait = None, priority: Priority = 0,
    inventory: InventoryFile = None, store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Keep a board for yourself: only your own searches use it meanwhile."""
    with verb(debug):
        import threading

        from orchestrator.errors import UsageError
        from orchestrator.reservations import reserve_device
        from orchestrator.store.store import Store
        from orchestrator.units import parse_seconds

        try:
            seconds = parse_seconds(for_)
        except UsageError as error:
            raise UsageError(f"--for: {error}") from error
        waiting, boards = read_waiting(wait, priority), read_inventory(inventory)
        boards.matching(name)
        with Store.open(store_place(store)) as found:
            document = reserve_device(found, boards, name, seconds, purpose, waiting,
                                      lambda text: typer.echo(text, err=True), threading.Event())
        kept, place = document["device"], store_option(store)
        print_document(document, format_, lambda: typer.echo(
            f"{kept} is reserved for {document['owner']} until {local_time(document['until'])}; "
            f"'orchestrator devices release {kept}{place}' ends it earlier"))



def release(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also where it is another's.")] = False,
    inventory: InventoryFile = None, store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """End the reservation of a board."""
    with verb(debug):
        from orchestrator.devices import named
        from orchestrator.reservations import release_device
        from orchestrator.store.store import Store

        entry = named(read_inventory(inventory), name)
        with Store.open(store_place(store)) as found:
            document = release_device(found, entry, force)
        print_document(document, format_, lambda: typer.echo(f"{name} is no longer reserved"))



def history(
    name: Name,
    limit: Annotated[int, typer.Option(parser=whole, metavar="<int>", help="The last so many events.")] = 20,
    inventory: InventoryFile = None, store: StoreFolder = None, format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Say what happened to a board: who had it, when, and what for."""
    with verb(debug):
        from orchestrator.devices import named
        from orchestrator.errors import UsageError
        from orchestrator.reservations import device_history
        from orchestrator.store.store import Store

        if limit < 1:
            raise UsageError(f"--limit: expected at least 1, got {limit}")
        entry = named(read_inventory(inventory), name)
        with Store.open(store_place(store)) as found:
            document = device_history(found, entry, limit)

        def as_text() -> None:
            for event in document["events"]:
                who = f" by {event['who']}" if event["who"] else ""
                why = f": {event['detail']}" if event["detail"] else ""
                print_hanging(f"{local_time(event['happened'])}  ", f"{event['what']}{who}{why}")
            if not document["events"]:
                typer.echo(f"nothing is known of {name} yet")

        print_document(document, format_, as_text)
