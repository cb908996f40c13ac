"""What `orchestrator devices` does to boards: add, check, set up and remove them."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from device_farm.board_entry import BUILT_IN
from device_farm.check import Finding, check_board, judge
from device_farm.errors import FarmError
from device_farm.hostkeys import HostKey, parse_host_key
from device_farm.inventory import BoardEntry, Hop, Inventory, add_board, check_fields, remove_board
from device_farm.probe import probe_board
from device_farm.setup import setup_runtime
from device_farm.ssh_connect import scan_behind
from orchestrator import wiring
from orchestrator.device_list import device_document, pinned_key
from orchestrator.errors import UsageError
from orchestrator.leasing import leased_name, this_owner
from orchestrator.schemas.devices import DeviceAdded, DeviceChecked, DeviceRemoved, DeviceSetUp, FindingDocument
from orchestrator.schemas.strict import SCHEMA
from orchestrator.store.places import StorePlace
from orchestrator.store.store import Store

SCAN_S = 10.0
MOST_AT_ONCE = 16
"""Boards that are checked at a time."""
_JUMP = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\s]+)(?::(?P<port>\d+))?")


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A host key that a machine shows, and the one that was pinned before."""

    address: str
    key: HostKey
    pinned: HostKey | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user says of a board; None where nothing was said."""

    name: str
    host: str | None = None
    user: str | None = None
    port: int | None = None
    kind: str | None = None
    identity_file: Path | None = None
    jump: tuple[str, ...] = ()
    """USER@HOST:PORT each, first to last; user and port may be left out."""
    python: str | None = None


Confirm = Callable[[ShownKey], None]
"""Asks whether a key is right; raises when it is not."""


def add_device(path: Path, wanted: Wanted, *, replace: bool, confirm: Confirm) -> DeviceAdded:
    """Pin a board's host key, write the board into the inventory, and try the connection.

    Args:
        path: The inventory; made when there is none.
        wanted: The board. With `replace`, what it does not say stays as it is in the inventory.
        replace: Overwrite a board of that name.
        confirm: Called with every key before it is pinned.

    Raises:
        UsageError, InventoryError: What the user gave is wrong.
        FarmError: The board or a jump host shows no key.
    """
    if wanted.name in BUILT_IN:
        raise UsageError(f"{wanted.name!r} is built in: choose another name")
    created = not path.exists()
    boards = () if created else Inventory.load(path).boards
    before = next((entry for entry in boards if entry.name == wanted.name), None)
    if before is not None and not replace:
        raise UsageError(f"{path}: there is a board {wanted.name!r} already; --replace changes it")
    fields = _fields(wanted, before)
    jumps = [parse_jump(text, str(fields["user"])) for text in wanted.jump]
    check_fields(fields)
    if wanted.jump:
        fields["jump"] = _pin_jumps(wanted.name, jumps, fields.get("identity_file"), before, confirm)
    hops = [Hop.model_validate(hop) for hop in fields.get("jump", ())]
    key = scan_behind(wanted.name, hops, fields["host"], fields["port"], SCAN_S)
    confirm(ShownKey(f"{fields['host']}:{fields['port']}", key, pinned_key(before)))
    entry = BoardEntry.model_validate({**fields, "host_key": str(key)})
    add_board(path, entry, replace=replace)
    added: DeviceAdded = {
        "schema": SCHEMA,
        "inventory": str(path),
        "inventory_created": created,
        "device": device_document(entry),
        "connected": True,
    }
    transport = wiring.transport_of(entry)
    try:
        transport.run(["true"], SCAN_S)
    except FarmError as error:
        added["connected"] = False
        added["connection_failed_because"] = str(error)
    finally:
        transport.close()
    return added


def check_devices(entries: Sequence[BoardEntry], place: StorePlace,
                  compilers: Sequence[str] = ("tflite",)) -> list[DeviceChecked]:
    """Say whether boards can measure what compilers make, without changing them; all at once.

    A board in quarantine that is fit leaves it: a person has looked at it. Raises StoreError.
    """
    with ThreadPoolExecutor(min(len(entries), MOST_AT_ONCE), thread_name_prefix="check") as threads:
        found = list(threads.map(lambda entry: _checked(entry, place.folder, compilers), entries))
    if place.exists:
        with Store.open(place) as store:
            for entry, document in zip(entries, found, strict=True):
                if document["fit"] and store.leases.restore(leased_name(entry), this_owner()):
                    document["returned"] = True
    return found


def _checked(entry: BoardEntry, store_folder: Path, compilers: Sequence[str]) -> DeviceChecked:
    findings = _check(entry, store_folder, compilers)
    return {
        "schema": SCHEMA,
        "device": entry.name,
        "reachable": not any(f.what == "connection" and f.level == "missing" for f in findings),
        "fit": not any(finding.level == "missing" for finding in findings),
        "findings": [_finding(finding) for finding in findings],
    }


def setup_device(inventory: Inventory, name: str, store_folder: Path, progress: Callable[[str], None],
                 compilers: Sequence[str] = ("tflite",)) -> DeviceSetUp:
    """Install the runtimes of compilers' artifacts on a board; what is fetched stays in the store's folder.

    Raises:
        UsageError, InventoryError: There is no such board.
        FarmError: The board is not reached, or no runtime can be installed there.
    """
    entry = named(inventory, name)
    steps: list[str] = []

    def step(text: str) -> None:
        steps.append(text)
        progress(text)

    folders: dict[str, str | None] = {}
    transport = wiring.transport_of(entry)
    try:
        for compiler in compilers:
            runtimes = wiring.COMPILERS[compiler].runtimes
            if entry.transport == "ssh":
                folders[compiler] = setup_runtime(transport, entry, store_folder, step, runtimes)
                continue
            place = folders[compiler] = wiring.host_runtime_place(runtimes[0], store_folder).folder
            step("this program's environment has the runtime: nothing to do" if place is None else f"it is in {place}")
    finally:
        transport.close()
    done: DeviceSetUp = {"schema": SCHEMA, "device": entry.name, "folder": folders[compilers[0]], "steps": steps}
    if len(folders) > 1:
        done["folders"] = folders
    return done


def remove_device(path: Path | None, name: str) -> DeviceRemoved:
    """Take a board out of the inventory; its files on the board stay. Raises UsageError or InventoryError."""
    entry = named(wiring.load_inventory(path), name)
    if path is None or entry.transport != "ssh":
        raise UsageError(f"{name!r} is built in: it cannot be removed")
    remove_board(path, entry.name)
    return {"schema": SCHEMA, "device": entry.name, "inventory": str(path), "left_on_board": entry.root}


def named(inventory: Inventory, name: str) -> BoardEntry:
    """Return the board of that name. Raises UsageError for a kind, InventoryError for what is neither."""
    found = inventory.matching(name)
    if found[0].name != name:
        names = ", ".join(entry.name for entry in found)
        raise UsageError(f"{name!r} is a kind: give the name of a board; of this kind: {names}")
    return found[0]


def parse_jump(text: str, user: str) -> dict[str, Any]:
    """Read USER@HOST:PORT, of which user and port may be left out. Raises UsageError."""
    found = _JUMP.fullmatch(text)
    if found is None:
        raise UsageError(f"--jump: expected USER@HOST:PORT, e.g. me@gate.lab:22, got {text!r}")
    port = int(found["port"] or 22)
    if not 1 <= port <= 65535:
        raise UsageError(f"--jump {text}: expected a port from 1 to 65535, got {port}")
    return {"host": found["host"].strip("[]"), "user": found["user"] or user, "port": port}


def _fields(wanted: Wanted, before: BoardEntry | None) -> dict[str, Any]:
    """Return what is known of a board, without its host key. Raises UsageError."""
    given = {"host": wanted.host, "user": wanted.user, "port": wanted.port, "kind": wanted.kind,
             "python": wanted.python}  # fmt: skip
    fields = {key: value for key, value in given.items() if value is not None}
    if wanted.identity_file is not None:
        fields["identity_file"] = _key_file(wanted.identity_file)
    if before is not None:
        kept = before.model_dump(exclude={"host_key"})
        return {**kept, **fields}
    if wanted.host is None:
        raise UsageError(f"--host is missing: the name or address of {wanted.name!r}")
    return {"name": wanted.name, "kind": wanted.name, "user": getpass.getuser(), "port": 22, **fields}


def _key_file(path: Path) -> str:
    """Return a key file as the inventory writes it: from ~ where it can. Raises UsageError."""
    path = path.expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"--identity-file: no such file: {path}")
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _pin_jumps(
    name: str, jumps: list[dict[str, Any]], identity_file: object, before: BoardEntry | None, confirm: Confirm
) -> list[dict[str, Any]]:
    """Let every jump host show its key, through those before it. Raises FarmError."""
    known = {(hop.host, hop.port): parse_host_key(hop.host_key) for hop in (before.jump if before else ())}
    hops: list[Hop] = []
    for jump in jumps:
        key = scan_behind(name, hops, jump["host"], jump["port"], SCAN_S)
        confirm(ShownKey(f"{jump['host']}:{jump['port']}", key, known.get((jump["host"], jump["port"]))))
        hops.append(Hop.model_validate({**jump, "host_key": str(key), "identity_file": identity_file}))
    return [hop.model_dump() for hop in hops]


def _check(entry: BoardEntry, store_folder: Path, compilers: Sequence[str]) -> tuple[Finding, ...]:
    transport = wiring.transport_of(entry)
    try:
        if entry.transport == "ssh":
            return check_board(transport, entry, compilers=compilers)
        # The built-in boards run in this program's own environment, and keep their files in the store.
        here = entry.model_copy(update={"python": sys.executable, "root": str(store_folder / "boards" / entry.name)})
        return (Finding("ok", "connection", f"{entry.name}: this computer"), *judge(probe_board(transport, here)),
                *_own_tvm(entry, compilers))
    finally:
        transport.close()


def _own_tvm(entry: BoardEntry, compilers: Sequence[str]) -> tuple[Finding, ...]:
    """Say whether a board that is this computer executes TVM's artifacts, where that is asked."""
    if "tvm" not in compilers:
        return ()
    if entry.transport == "sim":
        return (Finding("missing", "runtime", "the simulated board knows LiteRT's times alone", "use a real board"),)
    if find_spec("tvm") is None:
        return (Finding("missing", "runtime", "TVM is not installed here", "pip install 'hil-orchestrator[tvm]'"),)
    return (Finding("ok", "runtime", f"tvm {version('apache-tvm')}"),)


def _finding(finding: Finding) -> FindingDocument:
    return {"what": finding.what, "level": finding.level, "detail": finding.detail, "remedy": finding.remedy}
