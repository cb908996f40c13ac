"""The processes of one agent, found by the folder that it was given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Family:
    """Process ids."""

    agents: tuple[int, ...]
    zygotes: tuple[int, ...]
    children: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        return self.agents + self.zygotes + self.children


def family(root: Path) -> Family:
    """Return the live agents with this root, their zygotes and the zygotes' children."""
    command: dict[int, list[str]] = {}
    parent: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(root) in words and stat[0] != "Z":
            command[int(entry.name)], parent[int(entry.name)] = words, int(stat[1])
    helpers = {pid for pid, words in command.items() if "--zygote" in words}
    children = {pid for pid in helpers if parent[pid] in helpers}
    return Family(tuple(sorted(set(command) - helpers)), tuple(sorted(helpers - children)), tuple(sorted(children)))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds, or fail."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S:g} s for {what}"
        time.sleep(0.01)


def wait_for_child(root: Path) -> int:
    """Wait for the child that runs an artifact and return its process id."""
    wait_for(lambda: bool(family(root).children), "the child that runs the artifact")
    return family(root).children[0]
