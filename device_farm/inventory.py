"""The boards a user has: one YAML file, read strictly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from device_farm.board_entry import (
    BUILT_IN,
    KEYS_MISSING,
    SCHEMA_VERSION,
    SSH_KEYS,
    BoardEntry,
    Hop,
    InventoryFile,
    RuntimeSpec,
)
from device_farm.inventory_file import (
    Document,
    InventoryError,
    drop_block,
    locked,
    parse_document,
    put_block,
    read_document,
    write_atomically,
)
from device_farm.inventory_problems import problem_in_file, problem_in_words

__all__ = [
    "BoardEntry",
    "Hop",
    "Inventory",
    "InventoryError",
    "RuntimeSpec",
    "add_board",
    "check_fields",
    "inventory_schema",
    "remove_board",
]

_LOCAL = BoardEntry(name="local", kind="local", notes="this computer")
_SIM = BoardEntry(name="sim", kind="sim", shares_host="allowed", notes="a simulated board")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The boards of one file, in its order, and the two built-in ones. Without arguments: only those."""

    boards: tuple[BoardEntry, ...] = ()
    path: Path | None = None

    @classmethod
    def load(cls, path: Path) -> Inventory:
        """Read an inventory. Raises InventoryError that names every problem by file, line and key."""
        return cls(_validate(read_document(path), path), path)

    def matching(self, device: str) -> tuple[BoardEntry, ...]:
        """Return the board of that name, or else all boards of that kind. Raises InventoryError for none."""
        known = (*self.boards, _LOCAL, _SIM)
        found = tuple(board for board in known if board.name == device)
        found = found or tuple(board for board in known if board.kind == device)
        if found:
            return found
        names = [board.name for board in known]
        kinds = list(dict.fromkeys(board.kind for board in known))
        nearest = get_close_matches(device, [*names, *kinds], n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        if self.path is None:
            raise InventoryError(
                f"no board and no kind {device!r}{hint} There is no inventory, so only local and sim: add a board "
                "with 'orchestrator devices add NAME --host HOST'"
            )
        raise InventoryError(
            f"{self.path}: no board and no kind {device!r}{hint} Boards: {', '.join(names)}. "
            f"Kinds: {', '.join(kinds)}. Add one with 'orchestrator devices add'"
        )

    def find(self, device: str) -> BoardEntry:
        """Return the board of that name, or else the first of that kind. Raises InventoryError."""
        return self.matching(device)[0]


def check_fields(fields: Mapping[str, object]) -> None:
    """Check what is known of a board before its host key is. Raises InventoryError that names each key."""
    try:
        BoardEntry.model_validate(fields)
    except ValidationError as error:
        details = [detail for detail in error.errors(include_url=False) if detail["type"] != KEYS_MISSING]
        if any(detail["loc"] == ("name",) for detail in details) and fields.get("kind") == fields.get("name"):
            details = [detail for detail in details if detail["loc"] != ("kind",)]  # it was taken from the name
        if details:
            raise InventoryError("\n".join(problem_in_words(detail) for detail in details)) from error


def add_board(path: Path, entry: BoardEntry, *, replace: bool = False) -> None:
    """Add a board to a file (made if need be), leaving the rest of it as it is. Raises InventoryError."""
    if entry.transport != "ssh":
        raise InventoryError(f"{path}: {entry.name!r} is built in: choose another name")
    with _changing(path):
        boards = {board.name: board for board in Inventory.load(path).boards} if path.exists() else {}
        if entry.name in boards and not replace:
            raise InventoryError(f"{path}: there is a board {entry.name!r} already; --replace overwrites it")
        _refuse_twin(entry, boards.values(), str(path))
        text = path.read_text("utf-8") if path.exists() else f"schema: {SCHEMA_VERSION}\nboards:\n"
        row = entry.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        boards[entry.name] = entry
        _write(path, put_block(text, entry.name, row, path), tuple(boards.values()))


def remove_board(path: Path, name: str) -> None:
    """Remove a board from a file, leaving the rest of it as it is. Raises InventoryError."""
    with _changing(path):
        boards = Inventory.load(path).boards
        names = [board.name for board in boards]
        if name not in names:
            nearest = get_close_matches(name, names, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
            raise InventoryError(f"{path}: no board {name!r}{hint} Boards: {', '.join(names) or 'none'}")
        rest = tuple(board for board in boards if board.name != name)
        _write(path, drop_block(path.read_text("utf-8"), name, path), rest)


def inventory_schema() -> dict[str, Any]:
    """Return the JSON schema of the file, for editors."""
    schema = InventoryFile.model_json_schema(by_alias=True)
    board = schema["$defs"]["BoardEntry"]
    board["required"] = ["kind", *SSH_KEYS]
    for key in SSH_KEYS:
        # A board needs them; only the built-in ones, which no file holds, do without.
        prop = board["properties"][key]
        board["properties"][key] = {**prop.pop("anyOf")[0], **{k: v for k, v in prop.items() if k != "default"}}
    board["properties"]["env"]["additionalProperties"] = False
    boards = schema["properties"]["boards"]
    boards |= {"type": ["object", "null"], "additionalProperties": False}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "inventory.yaml"}


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Keep other writers out, and say so when the file cannot be written. Raises InventoryError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            yield
    except OSError as error:
        raise InventoryError(
            f"{path}: cannot be written ({error.strerror}); see its folder and permissions, or choose another with "
            "--inventory"
        ) from error


def _write(path: Path, text: str, expected: tuple[BoardEntry, ...]) -> None:
    unusual = f"{path}: its layout is too unusual to change safely: edit it by hand"
    try:
        found = _validate(parse_document(text, path), path)
    except InventoryError as error:
        raise InventoryError(unusual) from error
    if found != expected:
        raise InventoryError(unusual)
    write_atomically(path, text)


def _validate(document: Document, path: Path) -> tuple[BoardEntry, ...]:
    if not isinstance(document.data, dict):
        raise InventoryError(f"{path}: expected 'schema: {SCHEMA_VERSION}' and 'boards:'")
    taken = [name for name in BUILT_IN if name in (document.data.get("boards") or ())]
    if taken:
        line = document.lines.get(("boards", taken[0]), 1)
        raise InventoryError(
            f"{path}:{line}: boards.{taken[0]}: this name is built in and always there: choose another"
        )
    try:
        boards = tuple(InventoryFile.model_validate(document.data).boards.values())
    except ValidationError as error:
        problems = [problem_in_file(detail, document, path) for detail in error.errors(include_url=False)]
        raise InventoryError("\n".join(problems)) from error
    for place, board in enumerate(boards):
        line = document.lines.get(("boards", board.name), 1)
        _refuse_twin(board, boards[:place], f"{path}:{line}: boards.{board.name}")
    return boards


def _refuse_twin(board: BoardEntry, others: Iterable[BoardEntry], where: str) -> None:
    """Refuse a second name for one board: leases would not keep the two apart. Raises InventoryError."""
    way = [f"{hop.host}:{hop.port}" for hop in board.hops()]
    for other in others:
        if other.name != board.name and [f"{hop.host}:{hop.port}" for hop in other.hops()] == way:
            raise InventoryError(f"{where}: its address {way[-1]} is that of {other.name!r}: a board has one name; "
                                 "remove one of the two")
