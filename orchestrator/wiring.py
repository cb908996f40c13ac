"""The only place that constructs: names -> implementations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from device_farm.errors import AgentMismatch, FarmError
from device_farm.facts import BoardFacts
from device_farm.inventory import BoardEntry, Inventory
from device_farm.local import LocalTransport
from device_farm.probe import probe_board
from device_farm.runtime import RUNTIMES, plan_runtime
from device_farm.setup import host_runtime, runtime_folder
from device_farm.ssh import SSHTransport
from device_farm.transport import Transport
from orchestrator.bench import BoardRunner
from profilers.agent_build import build_agent
from profilers.runner import AgentRunner, RuntimePlace
from profilers.simulation import SimulatedRunner
from recipes.compilers.compiler import Compiler
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.target import Target

COMPILERS: Mapping[str, Compiler] = {"tflite": TfliteCompiler()}


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


def _local(entry: BoardEntry, store_folder: Path, agent: Path, lock_file: str | None = None) -> AgentRunner:
    place = host_runtime_place("litert", store_folder)
    return AgentRunner(LocalTransport(), root=str(store_folder / "boards" / entry.name), runtime=place, agent=agent,
                       board=entry.name, kind=entry.kind, lock_file=lock_file)


def _sim(entry: BoardEntry, store_folder: Path, agent: Path) -> SimulatedRunner:
    return SimulatedRunner(_local(entry, store_folder, agent, lock_file=str(store_folder / "boards" / "sim.lock")))


def _ssh(entry: BoardEntry, store_folder: Path, agent: Path) -> AgentRunner:
    transport = SSHTransport(entry)
    try:
        probe = probe_board(transport, entry)
        plan = plan_runtime(probe, entry.runtime)
        if probe.python is None or plan.folder_name not in probe.python.runtimes:
            raise AgentMismatch(f"{entry.name} has no runtime {plan.folder_name} in {probe.root}; install it with "
                                f"'orchestrator devices setup {entry.name}'")
        place = RuntimePlace(plan.runtime.name, entry.python, runtime_folder(probe.root, plan))
        lock = entry.lock_file or (f"{probe.root}/lock" if entry.shares_host == "allowed" else None)
        return AgentRunner(transport, root=probe.root, runtime=place, agent=agent, board=entry.name, kind=entry.kind,
                           lock_file=lock)
    except FarmError:
        transport.close()
        raise


_TRANSPORTS: Mapping[str, Callable[[BoardEntry, Path, Path], BoardRunner]] = {
    "local": _local, "sim": _sim, "ssh": _ssh}


def transport_of(entry: BoardEntry) -> Transport:
    """Return the way to a board; it connects at first use. The simulated board is on this machine."""
    return SSHTransport(entry) if entry.transport == "ssh" else LocalTransport(entry.name)


def host_runtime_place(name: str, store_folder: Path, version: str | None = None) -> RuntimePlace:
    """Return a board's runtime as it is installed on this machine, fetching it at first use.

    Raises FarmError when it does not exist for this machine or cannot be fetched.
    """
    if name == "litert" and find_spec("ai_edge_litert") is not None:
        return RuntimePlace(name, sys.executable)
    known = next(r for r in RUNTIMES if r.name == name)
    folder = host_runtime(name, version or known.version, store_folder / "runtimes")
    return RuntimePlace(name, sys.executable, str(folder))


def same_machine(facts: BoardFacts) -> bool:
    """Tell whether a board is this machine: it has the same boot id."""
    return facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def target_of(facts: BoardFacts, runtime_name: str, runtime_version: str) -> Target:
    """Make what a compiler must know from what a board says of itself."""
    return Target(facts.machine, runtime_name, runtime_version, facts.cpu_features)


def load_inventory(path: Path | None) -> Inventory:
    """Read the inventory; without a file there are only the built-in boards. Raises InventoryError."""
    return Inventory() if path is None else Inventory.load(path)
