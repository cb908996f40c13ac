"""What is wrong with an inventory, in one line for each problem."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from device_farm.board_entry import PATTERN_WORDS, SCHEMA_VERSION, BoardEntry, Hop, PowerSpec, RuntimeSpec
from device_farm.inventory_file import Document

_PORT = "a whole number from 1 to 65535"
_KINDS = {
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "dict_type": "keys with their values",
    "model_type": "keys with their values",
    "model_attributes_type": "keys with their values",
    "tuple_type": "a list",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "greater_than_equal", "less_than_equal"), _PORT),
}
"""What was expected, by pydantic's name of the error; ports are the only numbers here."""


def problem_in_file(detail: ErrorDetails, document: Document, path: Path) -> str:
    """Say where a file is wrong, what it should hold and what to do."""
    at = tuple(part for part in detail["loc"] if part != "[key]")
    known = next((at[:end] for end in range(len(at), -1, -1) if at[:end] in document.lines), ())
    where = f"{path}:{document.lines.get(known, 1)}: {'.'.join(str(part) for part in at) or 'the file'}"
    if detail["type"] == "missing":
        return f"{where}: missing; add it" + (f": 'schema: {SCHEMA_VERSION}'" if at == ("schema",) else "")
    return f"{where}: {_words(detail)}"


def problem_in_words(detail: ErrorDetails) -> str:
    """Say which key of a board is wrong, what it should hold and what to do."""
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {_words(detail)}" if where else _words(detail)


def _words(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        at = tuple(part for part in detail["loc"] if part != "[key]")
        keys = _keys_at(at[:-1])
        nearest = get_close_matches(str(at[-1]), keys, n=2)
        hint = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else "remove it."
        return f"unknown key; {hint} Keys here: {', '.join(keys)}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    hint = "; put it in quotes" if kind == "string_type" and isinstance(detail["input"], int | float) else ""
    got = "" if isinstance(detail["input"], dict) else f", got {detail['input']!r}"
    return f"{_expected(detail)}{got}{hint}"


def _expected(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "string_pattern_mismatch":
        return f"expected {PATTERN_WORDS[detail['ctx']['pattern']]}"
    if kind == "literal_error":
        return f"expected {detail['ctx']['expected']}"
    if kind in _KINDS:
        return f"expected {_KINDS[kind]}"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _keys_at(at: tuple[int | str, ...]) -> list[str]:
    """Return the keys that may stand at a place in the file."""
    if not at:
        return ["schema", "boards"]
    model: type[BaseModel] = BoardEntry
    if "jump" in at:
        model = Hop
    elif "runtime" in at:
        model = RuntimeSpec
    elif "power" in at:
        model = PowerSpec
    return [key for key in model.model_fields if key != "name" or model is RuntimeSpec]
