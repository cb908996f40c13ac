"""A person's own hands on a board: its power, and its kernel's log."""

from __future__ import annotations

from device_farm.board_entry import BoardEntry
from device_farm.errors import FarmError
from device_farm.power import Action, switch_of, switch_power
from orchestrator import wiring
from orchestrator.errors import UsageError
from orchestrator.leasing import leased_name, this_owner
from orchestrator.schemas.devices import DeviceLogs, DevicePower
from orchestrator.schemas.strict import SCHEMA
from orchestrator.store.store import Store

RUN_S = 30.0


def power_device(store: Store, entry: BoardEntry, action: Action, force: bool) -> DevicePower:
    """Switch a board's power. Raises UsageError where it is another's or has no switch, PowerFailed."""
    board = leased_name(entry)
    for lease in store.leases.leases():
        if lease.board == board and not force and action != "on":
            raise UsageError(f"{lease.owner} uses {entry.name} for {lease.purpose}; --force switches it all the same")
    for kept in store.leases.reservations():
        if kept.board == board and kept.owner != this_owner() and not force:
            raise UsageError(f"{entry.name} is reserved by {kept.owner}; --force switches it all the same")
    switch = switch_of(entry)
    if switch is None:
        raise UsageError(f"the inventory does not say how {entry.name}'s power is switched: see 'Power' in "
                         "docs/inventory.md")
    switch_power(switch, action)
    store.leases.note(board, f"power {action}", this_owner(), "by hand")
    return {"schema": SCHEMA, "device": entry.name, "action": action}


def device_logs(entry: BoardEntry, lines: int) -> DeviceLogs:
    """Return the last lines of a board's kernel log. Raises UsageError for a built-in board, FarmError."""
    if entry.transport != "ssh":
        raise UsageError(f"{entry.name} is built in: see this computer's own log")
    transport = wiring.transport_of(entry)
    try:
        for argv in (["journalctl", "-k", "--no-pager", "-n", str(lines)], ["dmesg"]):
            done = transport.run(argv, RUN_S)
            if done.returncode == 0:
                return {"schema": SCHEMA, "device": entry.name, "command": argv[0],
                        "lines": done.stdout.splitlines()[-lines:]}
        said = (done.stderr or done.stdout).strip().splitlines()
        raise FarmError(f"{entry.name}: neither journalctl -k nor dmesg may be read by {entry.user}"
                        + (f": {said[-1][:200]}" if said else "") + "; there: sudo adduser $USER adm")
    finally:
        transport.close()
