"""Switching a board's power: a command of the user's, one of labgrid's drivers, or a plug-in."""

from __future__ import annotations

import importlib
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal, Protocol

from device_farm.board_entry import BoardEntry, PowerSpec
from device_farm.errors import PowerFailed

OFF_S = 3.0
"""Between off and on: what a board's capacitors need."""
COMMAND_S = 60.0
GROUP = "hil_orchestrator.power"
"""Entry points: a name for `power.plugin` -> a function that takes the board's name and the plug-in's options and
returns a PowerSwitch."""
Action = Literal["on", "off", "cycle"]


class PowerSwitch(Protocol):
    """What switches one board. Every method raises PowerFailed."""

    def on(self) -> None:
        """Give it power."""

    def off(self) -> None:
        """Take it away."""


class CommandSwitch:
    """Commands of the user's, run on this computer without a shell."""

    def __init__(self, board: str, on: Sequence[str], off: Sequence[str]) -> None:
        self._board, self._on, self._off = board, on, off

    def on(self) -> None:
        """Run the command for on. Raises PowerFailed."""
        self._run(self._on)

    def off(self) -> None:
        """Run the command for off. Raises PowerFailed."""
        self._run(self._off)

    def _run(self, argv: Sequence[str]) -> None:
        what = f"{self._board}: power: {' '.join(argv)}"
        try:
            done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                                  timeout=COMMAND_S)
        except subprocess.TimeoutExpired as error:
            raise PowerFailed(f"{what}: did not end within {COMMAND_S:.0f} s") from error
        except OSError as error:
            raise PowerFailed(f"{what}: {error.strerror}; correct 'power' in the inventory") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise PowerFailed(f"{what}: ended with {done.returncode}" + (f": {said[-1][:200]}" if said else ""))


class LabgridSwitch:
    """A port of a power distribution unit that labgrid knows (labgrid.readthedocs.io, NetworkPowerPort)."""

    def __init__(self, board: str, model: str, host: str, port: int | None, index: str) -> None:
        self._where = f"{board}: power: labgrid {model} at {host}"
        self._host, self._port, self._index = host, port, index
        name = f"labgrid.driver.power.{model}"
        if find_spec("labgrid") is None:
            raise PowerFailed(f"{self._where}: labgrid is not installed: pip install 'hil-orchestrator[power]'")
        if find_spec(name) is None:
            raise PowerFailed(f"{self._where}: labgrid has no such model; see 'power.labgrid' in docs/inventory.md")
        self._backend: Any = importlib.import_module(name)

    def on(self) -> None:
        """Switch the port on. Raises PowerFailed."""
        self._set(True)

    def off(self) -> None:
        """Switch the port off. Raises PowerFailed."""
        self._set(False)

    def _set(self, value: bool) -> None:
        try:
            self._backend.power_set(self._host, self._port, self._index, value)
        except Exception as error:
            raise PowerFailed(f"{self._where}, {self._index}: {type(error).__name__}: {error}") from error


def switch_of(entry: BoardEntry) -> PowerSwitch | None:
    """Return what switches a board; None where the inventory says nothing. Raises PowerFailed."""
    spec = entry.power
    if spec is None:
        return None
    if spec.labgrid is not None:
        return LabgridSwitch(entry.name, spec.labgrid, spec.host or "", spec.port, spec.index or "")
    if spec.plugin is not None:
        return _plugin(entry.name, spec)
    return CommandSwitch(entry.name, spec.on_command, spec.off_command)


def switch_power(switch: PowerSwitch, action: Action, sleep: Callable[[float], None] = time.sleep) -> None:
    """Switch on, off, or off and on again. Raises PowerFailed."""
    if action in ("off", "cycle"):
        switch.off()
    if action == "cycle":
        sleep(OFF_S)
    if action in ("on", "cycle"):
        switch.on()


def _plugin(board: str, spec: PowerSpec) -> PowerSwitch:
    known = {point.name: point for point in entry_points(group=GROUP)}
    if spec.plugin not in known:
        names = ", ".join(sorted(known)) or "none"
        raise PowerFailed(f"{board}: power: no plug-in {spec.plugin!r} is installed; there are: {names}")
    try:
        made: PowerSwitch = known[spec.plugin].load()(board, dict(spec.options))
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise PowerFailed(f"{board}: power: the plug-in {spec.plugin!r} fails: {what}") from error
    return made
