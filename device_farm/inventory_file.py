"""The inventory as text: read with line numbers, changed without touching the rest, written atomically."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

Key = tuple[str | int, ...]


class InventoryError(ValueError):
    """The inventory cannot be used as it is; the message names every problem and what to do."""


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file: what it holds, and where."""

    data: object
    lines: Mapping[Key, int]
    """Key path -> line, from 1."""


def parse_document(text: str, path: Path) -> Document:
    """Read YAML. Raises InventoryError with the line of a syntax error or a repeated key."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            lines = dict(_places(node, (), path)) if node else {}
            return Document(loader.construct_document(node) if node else None, lines)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise InventoryError(f"{path}{yaml_problem(error)}") from error


def read_document(path: Path) -> Document:
    """Read a YAML file. Raises InventoryError."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise InventoryError(f"{path}: no such file; 'orchestrator devices add' makes it") from error
    except IsADirectoryError as error:
        raise InventoryError(f"{path}: expected a file, this is a folder; is it {path / 'inventory.yaml'}?") from error
    except OSError as error:
        raise InventoryError(f"{path}: cannot be read ({error.strerror}); see its owner and permissions") from error
    except UnicodeDecodeError as error:
        raise InventoryError(
            f"{path}: expected text in UTF-8, got other bytes (at byte {error.start}); is it an inventory?"
        ) from error
    return parse_document(text, path)


def yaml_problem(error: yaml.YAMLError) -> str:
    """Say in one line where a text is no YAML and why, to follow a file's name: `:3:7: not valid YAML: ...`."""
    if isinstance(error, yaml.reader.ReaderError):
        return f": not valid YAML: {error.reason} (character {error.position})"
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    where = "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"
    return f"{where}: not valid YAML: {getattr(error, 'problem', None) or 'it cannot be read'}"


def put_block(text: str, name: str, row: Mapping[str, object], path: Path) -> str:
    """Return the text with one board added at the end, or replaced in its place."""
    boards, entries = _boards(text, path)
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    mark = boards.start_mark
    if not entries and boards.end_mark.index > mark.index:  # `boards: {}` and `boards: null` become `boards:`
        lines[mark.line] = lines[mark.line][: mark.column].rstrip() + "\n"
    if name in entries:
        start, stop = entries[name]
    else:
        start = stop = max((last for _, last in entries.values()), default=boards.start_mark.line + 1)
    indent = "  "
    if entries:
        first = lines[next(iter(entries.values()))[0]]
        indent = first[: len(first) - len(first.lstrip())]
    block = yaml.safe_dump({name: dict(row)}, sort_keys=False, allow_unicode=True, width=10_000)
    lines[start:stop] = [textwrap.indent(block, indent)]
    return "".join(lines)


def drop_block(text: str, name: str, path: Path) -> str:
    """Return the text without one board."""
    _, entries = _boards(text, path)
    start, stop = entries[name]
    lines = text.splitlines(keepends=True)
    return "".join(lines[:start] + lines[stop:])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers of the file out, on this machine."""
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new text whole. Raises OSError."""
    path = path.resolve()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if path.exists():
            shutil.copymode(path, part)
        else:
            part.chmod(0o644)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _places(node: yaml.Node, at: Key, path: Path) -> Iterator[tuple[Key, int]]:
    yield at, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                where = ".".join(str(part) for part in at) or "the top of the file"
                raise InventoryError(
                    f"{path}:{line}: {key.value!r} stands twice in {where} "
                    f"(first in line {seen[key.value]}): rename or remove one"
                )
            seen[key.value] = line
            yield from _places(value, (*at, key.value), path)
            yield (*at, key.value), line
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _places(item, (*at, index), path)


def _boards(text: str, path: Path) -> tuple[yaml.Node, dict[str, tuple[int, int]]]:
    """Return the node of `boards` and for every board its first line and the line after its last, from 0."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise InventoryError(f"{path}: expected a mapping with 'schema' and 'boards'")
    boards = next(value for key, value in root.value if key.value == "boards")
    if not isinstance(boards, yaml.MappingNode) or not boards.value:
        return boards, {}
    if boards.flow_style:
        raise InventoryError(
            f"{path}:{boards.start_mark.line + 1}: boards are written in braces: "
            "put each on lines of its own, or edit the file by hand"
        )
    lines = text.splitlines()
    starts = [key.start_mark for key, _ in boards.value]
    stops = [mark.line for mark in starts[1:]] + [min(boards.end_mark.line + 1, len(lines))]
    entries = {}
    for (key, _), start, stop in zip(boards.value, starts, stops, strict=True):
        while stop > start.line + 1 and _is_between(lines[stop - 1], start.column):
            stop -= 1
        entries[key.value] = (start.line, stop)
    return boards, entries


def _is_between(line: str, column: int) -> bool:
    """Say whether a line after an entry is not part of it: blank, or nothing that is indented deeper."""
    content = line.lstrip()
    return not content or len(line) - len(content) <= column
