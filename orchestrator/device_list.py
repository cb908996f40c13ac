"""The boards of an inventory as a document; nothing here reaches a board."""

from __future__ import annotations

from device_farm.hostkeys import HostKey, parse_host_key
from device_farm.inventory import BoardEntry, Inventory
from orchestrator.schemas.devices import Device, DevicesList
from orchestrator.schemas.strict import SCHEMA

RUNTIME_CHOSEN = "not in the inventory: the newest that the board can execute"


def list_devices(inventory: Inventory) -> DevicesList:
    """Return the boards of the inventory and the built-in ones."""
    built_in = (inventory.find("local"), inventory.find("sim"))
    return {
        "schema": SCHEMA,
        "inventory": str(inventory.path) if inventory.path else None,
        "devices": [device_document(entry) for entry in (*inventory.boards, *built_in)],
    }


def pinned_key(entry: BoardEntry | None) -> HostKey | None:
    """Return the host key that the inventory pins for a board."""
    return parse_host_key(entry.host_key) if entry is not None and entry.host_key is not None else None


def device_document(entry: BoardEntry) -> Device:
    """Return a board as the documents show it."""
    hops = entry.hops() if entry.transport == "ssh" else ()
    key, wanted = pinned_key(entry), entry.runtime
    device: Device = {
        "name": entry.name,
        "kind": entry.kind,
        "transport": entry.transport,
        "address": hops[-1].address if hops else None,
        "jump": [hop.address for hop in hops[:-1]],
        "fingerprint": key.fingerprint if key else None,
        "runtime": {"name": wanted.name, "version": wanted.version} if wanted else None,
        "notes": entry.notes,
    }
    if wanted is None:
        device["runtime_absent_because"] = RUNTIME_CHOSEN if hops else f"{entry.name} is built in"
    return device
