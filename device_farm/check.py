"""Say whether a board is fit to measure, and what to do where it is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from device_farm.board_entry import BoardEntry
from device_farm.errors import FarmError, SetupFailed
from device_farm.probe import HELPER, Probe, probe_board
from device_farm.runtime import TFLITE, RuntimePlan, plan_runtime
from device_farm.setup import runtime_folder, verify_runtime
from device_farm.transport import Transport

Level = Literal["ok", "warning", "missing"]
RUNTIMES: Mapping[str, Sequence[str]] = {"tflite": TFLITE, "tvm": ("tvm",)}
"""Compiler -> the runtimes that execute what it makes."""

OLDEST_PYTHON = (3, 8)
LEAST_DISK_BYTES = 200_000_000
"""To install a runtime and to work."""
SPARE_DISK_BYTES = 20_000_000
"""To work, once a runtime is there."""
LEAST_MEMORY_BYTES = 200_000_000
HOT_C = 75.0
"""Raspberry Pis throttle from 80 degrees on."""
MOST_SKEW_S = 60.0
THROTTLING = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "temperature limit now",
    16: "under-voltage since boot",
    17: "frequency capped since boot",
    18: "throttled since boot",
    19: "temperature limit since boot",
}
"""Bits of the firmware's get_throttled (Raspberry Pi documentation, vcgencmd)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    """`missing`: the board cannot measure; `warning`: its figures may be poor."""
    what: str
    detail: str
    remedy: str | None = None


def check_board(
    transport: Transport,
    entry: BoardEntry,
    *,
    compilers: Sequence[str] = ("tflite",),
    clock: Callable[[], float] = time.time,
) -> tuple[Finding, ...]:
    """Look at a board without changing it; every failure is a finding.

    Args:
        transport: The way to the board.
        entry: Its inventory entry.
        compilers: Whose runtimes it must have; others are looked at where they are there.
        clock: This computer's.
    """
    try:
        probe = probe_board(transport, entry, clock=clock)
        found = [_runtime(transport, entry, probe, name, name in compilers) for name in RUNTIMES]
        runtimes = tuple(finding for finding in found if finding is not None)
    except FarmError as error:
        return (Finding("missing", "connection", str(error)),)
    return (Finding("ok", "connection", transport.address), *judge(probe), *runtimes)


def judge(probe: Probe) -> tuple[Finding, ...]:
    """Judge what a board said of itself."""
    judged = (
        _machine(probe),
        _python(probe),
        _glibc(probe),
        _disk(probe),
        _memory(probe),
        _governor(probe),
        _temperature(probe),
        _throttling(probe),
        _clock(probe),
    )
    return tuple(finding for finding in judged if finding is not None)


def _runtime(transport: Transport, entry: BoardEntry, probe: Probe, compiler: str, needed: bool) -> Finding | None:
    """Look at the runtime of a compiler's artifacts; None where there is none and none is needed."""
    try:
        plan = plan_runtime(probe, entry.runtime, RUNTIMES[compiler])
    except SetupFailed as error:
        return Finding("missing", "runtime", str(error)) if needed else None
    remedy = f"orchestrator devices setup {entry.name}" + ("" if compiler == "tflite" else f" --compiler {compiler}")
    if probe.python is None or plan.folder_name not in probe.python.runtimes:
        return Finding("missing", "runtime", f"{plan.folder_name} is not installed", remedy) if needed else None
    return _verified(transport, entry, probe, plan, remedy)


def _verified(transport: Transport, entry: BoardEntry, probe: Probe, plan: RuntimePlan, remedy: str) -> Finding:
    try:
        found = verify_runtime(transport, entry, runtime_folder(probe.root, plan), plan)
    except SetupFailed as error:
        return Finding("missing", "runtime", str(error), remedy)
    return Finding("ok", "runtime", found)


def _machine(probe: Probe) -> Finding:
    if probe.machine in ("aarch64", "x86_64", "armv7l"):
        return Finding("ok", "architecture", probe.machine)
    return Finding("missing", "architecture", f"{probe.machine or 'unknown'}: no runtime has wheels for it")


def _python(probe: Probe) -> Finding:
    if probe.python is None:
        remedy = "sudo apt-get install python3, or set 'python' in the inventory"
        return Finding("missing", "python", "none answered", remedy)
    version = ".".join(str(part) for part in probe.python.version)
    if probe.python.version < OLDEST_PYTHON:
        return Finding("missing", "python", f"{version}: 3.8 or newer is needed", "install a newer system")
    return Finding("ok", "python", version)


def _glibc(probe: Probe) -> Finding:
    if probe.glibc is None:
        return Finding("missing", "glibc", "none found: the runtimes' wheels need it")
    return Finding("ok", "glibc", f"{probe.glibc[0]}.{probe.glibc[1]}")


def _disk(probe: Probe) -> Finding:
    if probe.unwritable is not None:
        remedy = f"sudo chown $USER {probe.unwritable}, or set 'root' in the inventory"
        return Finding("missing", "disk", f"{probe.unwritable} is not writable", remedy)
    if probe.disk_free_bytes is None:
        return Finding("warning", "disk", f"free space of {probe.root} unknown", "run 'df -Pk' there")
    free = f"{probe.disk_free_bytes / 1e6:.0f} MB free for {probe.root}"
    needed = SPARE_DISK_BYTES if probe.python and probe.python.runtimes else LEAST_DISK_BYTES
    if probe.disk_free_bytes < needed:
        remedy = "remove files there, e.g. sudo apt-get clean"
        return Finding("missing", "disk", f"{free}; {needed / 1e6:.0f} MB are needed", remedy)
    return Finding("ok", "disk", free)


def _memory(probe: Probe) -> Finding | None:
    if probe.memory_available_bytes is None:
        return None
    free = f"{probe.memory_available_bytes / 1e6:.0f} MB available"
    if probe.memory_available_bytes < LEAST_MEMORY_BYTES:
        return Finding("warning", "memory", free, "end other programs there, e.g. the desktop")
    return Finding("ok", "memory", free)


def _governor(probe: Probe) -> Finding | None:
    if not probe.governors:
        return None
    names = ", ".join(probe.governors)
    if probe.governors == ("performance",):
        return Finding("ok", "governor", names)
    if probe.helper:
        return Finding("ok", "governor", f"{names}; the helper sets performance while it measures")
    remedy = (f"there, once: sudo install -o root -g root -m 755 {probe.root}/helper {HELPER}, and allow it "
              "(docs/inventory.md, 'Measuring undisturbed'); or now: echo performance | sudo tee "
              "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
    return Finding("warning", "governor", f"{names}: the clock changes while it measures", remedy)


def _temperature(probe: Probe) -> Finding | None:
    if probe.temperature_c is None:
        return None
    text = f"{probe.temperature_c:.0f} degrees C"
    if probe.temperature_c >= HOT_C:
        return Finding("warning", "temperature", f"{text}: near the limit", "let it cool; give it a heat sink or a fan")
    return Finding("ok", "temperature", text)


def _throttling(probe: Probe) -> Finding | None:
    if probe.throttled is None:
        return None
    said = [text for bit, text in THROTTLING.items() if probe.throttled >> bit & 1]
    if not said:
        return Finding("ok", "throttling", "none since boot")
    remedy = "use the board's own power supply, cool it, then reboot to clear 'since boot'"
    return Finding("warning", "throttling", f"{', '.join(said)} ({probe.throttled:#x})", remedy)


def _clock(probe: Probe) -> Finding | None:
    if probe.clock_skew_s is None:
        return None
    skew = f"{probe.clock_skew_s:+.0f} s against this computer"
    if abs(probe.clock_skew_s) > MOST_SKEW_S:
        return Finding("warning", "clock", skew, "sudo timedatectl set-ntp true")
    return Finding("ok", "clock", skew)
