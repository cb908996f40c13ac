"""The only place that constructs: names -> implementations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from device_farm.errors import AgentMismatch
from device_farm.facts import BoardFacts
from device_farm.inventory import BoardEntry, Inventory
from device_farm.local import LocalTransport
from device_farm.transport import Transport
from orchestrator.bench import BoardRunner
from profilers.agent_build import build_agent
from profilers.runner import AgentRunner, RuntimePlace
from recipes.target import Target


@dataclass(frozen=True, slots=True)
class BoardPlace:
    """Where a board's runtime and files are."""

    transport: Transport
    root: str
    python: str
    runtime_name: str
    runtime_dir: str | None
    lock_file: str | None = None


def agent_file(store_folder: Path) -> Path:
    """Write the agent's zipapp into the store and return its path."""
    destination = store_folder / "agent" / "agent.pyz"
    build_agent(destination)
    return destination


def connector(entry: BoardEntry, store_folder: Path, agent: Path) -> Callable[[], BoardRunner]:
    """Return a function that makes a runner for a board; a new connection at every call.

    Raises:
        FarmError: from the returned function, when the board is not reached or not set up.
    """
    return lambda: _TRANSPORTS[entry.transport](entry, store_folder, agent)


def _local(entry: BoardEntry, store_folder: Path, agent: Path) -> AgentRunner:
    place = host_runtime_place("litert", store_folder)
    return AgentRunner(LocalTransport(), root=str(store_folder / "boards" / entry.name), runtime=place, agent=agent,
                       board=entry.name, kind=entry.kind)


_TRANSPORTS: Mapping[str, Callable[[BoardEntry, Path, Path], BoardRunner]] = {"local": _local}


def host_runtime_place(name: str, store_folder: Path) -> RuntimePlace:
    """Return a board's runtime as it is installed on this machine.

    Raises AgentMismatch with the command that installs it.
    """
    if name == "litert" and find_spec("ai_edge_litert") is not None:
        return RuntimePlace(name, sys.executable)
    raise AgentMismatch(f"the runtime {name} is not installed on this machine; "
                        "install it with: pip install 'hil-orchestrator[tflite]'")


def target_of(facts: BoardFacts, runtime_name: str, runtime_version: str) -> Target:
    """Make what a compiler must know from what a board says of itself."""
    return Target(facts.machine, runtime_name, runtime_version, facts.cpu_features)


def load_inventory(path: Path | None) -> Inventory:
    """Read the inventory; without a file there are only the built-in boards. Raises InventoryError."""
    return Inventory() if path is None else Inventory.load(path)
