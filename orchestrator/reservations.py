"""Who has which board: reserve one, free it, and what happened to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from device_farm.inventory import BoardEntry, Inventory
from device_farm.leases import Wanted
from orchestrator.device_list import list_devices
from orchestrator.errors import UsageError
from orchestrator.leasing import Waiting, leased_name, this_owner, wait_for
from orchestrator.schemas.devices import DeviceHistory, DeviceReleased, DeviceReserved, DevicesList
from orchestrator.schemas.strict import SCHEMA
from orchestrator.store.store import Store


def reserve_device(store: Store, inventory: Inventory, device: str, seconds: float, purpose: str, waiting: Waiting,
                   notice: Callable[[str], None], stop: threading.Event) -> DeviceReserved:
    """Keep a board, or one of a kind, for this person's own searches and hands.

    Raises:
        InventoryError: no such board or kind.
        BoardBusy: the patience is over.
        KeyboardInterrupt: the user wants no more waiting.
    """
    names = {leased_name(entry): entry.name for entry in inventory.matching(device)}
    wanted = Wanted(tuple(names), this_owner(), purpose, waiting.priority)
    ticket = store.leases.ask(wanted)
    kept = wait_for(store.leases, wanted, ticket, lambda: store.leases.reserve(ticket, seconds), waiting.patience_s,
                    notice, stop)
    return {"schema": SCHEMA, "device": names[kept.board], "owner": kept.owner, "purpose": kept.purpose,
            "until": utc(kept.until)}


def release_device(store: Store, entry: BoardEntry, force: bool) -> DeviceReleased:
    """End the reservation of a board. Raises UsageError where there is none, or where it is another's."""
    board, owner = leased_name(entry), this_owner()
    kept = next((one for one in store.leases.reservations() if one.board == board), None)
    if kept is None:
        lease = next((one for one in store.leases.leases() if one.board == board), None)
        used = f"; {lease.owner} uses it for {lease.purpose}, which gives it back when it ends" if lease else ""
        raise UsageError(f"{entry.name} is not reserved{used}")
    if kept.owner != owner and not force:
        raise UsageError(f"{entry.name} is reserved by {kept.owner} until {local(kept.until)}, you are {owner}; "
                         "--force ends it all the same")
    store.leases.unreserve(board)
    return {"schema": SCHEMA, "device": entry.name, "owner": kept.owner}


def device_history(store: Store, entry: BoardEntry, limit: int) -> DeviceHistory:
    """Return what happened to a board, oldest first."""
    events = store.leases.events(leased_name(entry), limit)
    return {"schema": SCHEMA, "device": entry.name, "events": [
        {"happened": utc(event.happened), "what": event.what, "who": event.who, "detail": event.detail}
        for event in events]}


def devices_in_use(store: Store, inventory: Inventory) -> DevicesList:
    """Return the boards of the inventory and the built-in ones, and who has them."""
    document = list_devices(inventory)
    leases = {lease.board: lease for lease in store.leases.leases()}
    kept = {reservation.board: reservation for reservation in store.leases.reservations()}
    quarantined = {one.board: one for one in store.leases.quarantines()}
    requests = store.leases.requests()
    for device in document["devices"]:
        board = leased_name(inventory.find(device["name"]))
        if board in leases:
            lease = leases[board]
            device["lease"] = {"owner": lease.owner, "purpose": lease.purpose, "since": utc(lease.granted)}
        if board in kept:
            reservation = kept[board]
            device["reservation"] = {"owner": reservation.owner, "purpose": reservation.purpose,
                                     "until": utc(reservation.until)}
        if board in quarantined:
            ill = quarantined[board]
            device["quarantine"] = {"since": utc(ill.since), "reason": ill.reason, "failures": ill.failures,
                                    "waits_for_person": ill.waits_for_person}
        waiting = [request.wanted for request in requests if board in request.wanted.boards]
        if waiting:
            device["waiting"] = [{"owner": one.owner, "purpose": one.purpose, "priority": one.priority}
                                 for one in waiting]
    return document


def utc(moment: datetime) -> str:
    """Write a moment as documents have it."""
    return moment.isoformat(timespec="seconds")


def local(moment: datetime) -> str:
    """Write a moment as a person reads it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
