"""The only place that constructs: names -> implementations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from device_farm.check import judge
from device_farm.errors import AgentMismatch, FarmError, SetupFailed
from device_farm.facts import BoardFacts
from device_farm.health import refuse_unfit
from device_farm.inventory import BoardEntry, Inventory
from device_farm.local import LocalTransport
from device_farm.probe import probe_board
from device_farm.runtime import RUNTIMES, plan_runtime
from device_farm.setup import host_runtime, runtime_folder
from device_farm.ssh import SSHTransport
from device_farm.transport import Transport
from orchestrator.bench import BoardRunner, Neighbours
from orchestrator.errors import UsageError
from profilers.agent_build import build_agent
from profilers.measurement import Care
from profilers.runner import AgentRunner, RuntimePlace
from profilers.simulation import SimulatedRunner
from recipes.compilers.compiler import Compiler
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tvm.compiler import TvmCompiler
from recipes.target import Target

COMPILERS: Mapping[str, Compiler] = {"tflite": TfliteCompiler(), "tvm": TvmCompiler()}
_OWN = {"litert": ("ai_edge_litert", "tflite"), "tvm": ("tvm", "tvm")}
"""Runtime that this program's own environment may have -> its module, and the extra that brings it."""


def agent_file(store_folder: Path) -> Path:
    """Write the agent's zipapp into the store and return its path."""
    destination = store_folder / "agent" / "agent.pyz"
    build_agent(destination)
    return destination


def connector(entry: BoardEntry, store_folder: Path, agent: Path,
              compilers: Sequence[Compiler]) -> Callable[[], BoardRunner]:
    """Return a function that makes a runner for compilers' artifacts on a board; a new connection at every call.

    Raises:
        UsageError: at once, when such a board has no runtime for a compiler.
        FarmError: from the returned function, when the board is not reached or not set up.
    """
    if entry.transport == "sim" and any(compiler.name == "tvm" for compiler in compilers):
        raise UsageError("--compiler tvm: the simulated board knows LiteRT's times alone; use a real board, or "
                         "--compiler tflite")
    return lambda: _TRANSPORTS[entry.transport](entry, store_folder, agent, compilers)


def _local(entry: BoardEntry, store_folder: Path, agent: Path, compilers: Sequence[Compiler],
           lock_file: str | None = None) -> AgentRunner:
    places = [host_runtime_place(compiler.runtimes[0], store_folder) for compiler in compilers]
    return AgentRunner(LocalTransport(), root=str(store_folder / "boards" / entry.name), runtimes=places, agent=agent,
                       board=entry.name, kind=entry.kind, lock_file=lock_file,
                       care=care(entry))


def _sim(entry: BoardEntry, store_folder: Path, agent: Path, compilers: Sequence[Compiler]) -> SimulatedRunner:
    lock = str(store_folder / "boards" / "sim.lock")
    return SimulatedRunner(_local(entry, store_folder, agent, compilers, lock_file=lock))


def _ssh(entry: BoardEntry, store_folder: Path, agent: Path, compilers: Sequence[Compiler]) -> AgentRunner:
    transport = SSHTransport(entry)
    try:
        probe = probe_board(transport, entry)
        warnings = refuse_unfit(entry.name, judge(probe))
        plans = {compiler.name: plan_runtime(probe, entry.runtime, compiler.runtimes) for compiler in compilers}
        there = probe.python.runtimes if probe.python else ()
        absent = [name for name, plan in plans.items() if plan.folder_name not in there]
        if absent:
            names = ", ".join(plans[name].folder_name for name in absent)
            raise AgentMismatch(f"{entry.name} has no runtime {names} in {probe.root}; install it with 'orchestrator "
                                f"devices setup {entry.name}{compiler_option(absent)}'")
        places = [RuntimePlace(plan.runtime.name, entry.python, runtime_folder(probe.root, plan))
                  for plan in plans.values()]
        lock = entry.lock_file or (f"{probe.root}/lock" if entry.shares_host == "allowed" else None)
        return AgentRunner(transport, root=probe.root, runtimes=places, agent=agent, board=entry.name, kind=entry.kind,
                           lock_file=lock, pusher=SSHTransport(entry), warnings=warnings,
                           care=care(entry))
    except FarmError:
        transport.close()
        raise


def neighbours(entry: BoardEntry) -> Neighbours:
    """Return what is done about other processes on a board."""
    if entry.shares_host == "allowed" or entry.transport == "sim":
        return "ignored"
    return "said" if entry.transport == "local" else "repeated"


def care(entry: BoardEntry) -> Care:
    """Return where a board's sessions run, and what they wait for."""
    cores = entry.cores if entry.cores is not None else "all" if entry.shares_host == "allowed" else "fastest"
    return Care(None if cores == "all" else cores, entry.cool_below)


def compiler_option(names: Sequence[str]) -> str:
    """Return the option of commands that are meant for these compilers; `` where it is the default."""
    return "" if list(names) == ["tflite"] else f" --compiler {','.join(names)}"


_TRANSPORTS: Mapping[str, Callable[[BoardEntry, Path, Path, Sequence[Compiler]], BoardRunner]] = {
    "local": _local, "sim": _sim, "ssh": _ssh}


def transport_of(entry: BoardEntry) -> Transport:
    """Return the way to a board; it connects at first use. The simulated board is on this machine."""
    return SSHTransport(entry) if entry.transport == "ssh" else LocalTransport(entry.name)


def host_runtime_place(name: str, store_folder: Path, version: str | None = None) -> RuntimePlace:
    """Return a board's runtime as it is installed on this machine, fetching it at first use.

    Raises FarmError when it does not exist for this machine or cannot be fetched.
    """
    module, extra = _OWN.get(name, ("", ""))
    if module and find_spec(module) is not None:
        return RuntimePlace(name, sys.executable)
    if name == "tvm":
        raise SetupFailed(f"TVM is not installed here: pip install 'hil-orchestrator[{extra}]'")
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
