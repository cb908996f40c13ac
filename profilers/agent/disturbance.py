"""What disturbs a measurement: a clock that is taken away, and other processes."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import time
from collections.abc import Callable, Iterable
from typing import Any

from profilers.agent.sensors import number, text

NOW_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "temperature limit"}
"""Of the Raspberry Pi firmware's get_throttled (Raspberry Pi documentation, vcgencmd)."""
BELOW = 0.95
"""Of its maximal frequency: a core whose clock was taken away, under the governor `performance`."""
TICKS = os.sysconf("SC_CLK_TCK")


class Throttling:
    """Tells whether the clock was taken away since it was last asked. Reads small files alone: about 0.1 ms.

    Args:
        cores: that the session is pinned to; None: all.
        root: of the file system, for tests.
        machine: architecture; on Arm a core runs at its maximum under the governor `performance`.
    """

    def __init__(self, cores: Iterable[int] | None = None, root: str = "/", machine: str | None = None) -> None:
        self._firmware = os.path.join(root, "sys/devices/platform/soc/soc:firmware/get_throttled")
        cpus = [f"cpu{core}" for core in cores] if cores is not None else ["cpu[0-9]*"]
        folders = [found for cpu in cpus for found in glob.glob(os.path.join(root, "sys/devices/system/cpu", cpu))]
        self._clocks: list[tuple[str, float]] = []
        if (machine or platform.machine()) in ("aarch64", "armv7l"):
            self._clocks = list(_clocks(folders))
        self._counters = [path for folder in folders
                          for path in glob.glob(os.path.join(folder, "thermal_throttle/*_throttle_count"))]
        self._quotas = list(_quotas(root))
        self._seen = self._counts()

    def since(self) -> list[str]:
        """Return what took the clock away since the last call; empty where nothing did."""
        raw = text(self._firmware)
        bits = int(raw, 16) if raw and all(digit in "0123456789abcdefABCDEFx" for digit in raw) else 0
        found = [name for bit, name in NOW_BITS.items() if bits >> bit & 1]
        for path, highest in self._clocks:
            current = number(text(path))
            if current is not None and current < BELOW * highest:
                found.append(f"clock at {current / 1000:.0f} of {highest / 1000:.0f} MHz")
                break
        before, self._seen = self._seen, self._counts()
        found += [name for name, count in self._seen.items() if count > before.get(name, count)]
        return found

    def _counts(self) -> dict[str, float]:
        heat = sum(number(text(path)) or 0.0 for path in self._counters)
        quota = sum(_field(text(path) or "", "nr_throttled") for path in self._quotas)
        return {"temperature limit": heat, "CPU quota": quota}


def _clocks(folders: Iterable[str]) -> Iterable[tuple[str, float]]:
    for folder in folders:
        highest = number(text(os.path.join(folder, "cpufreq/scaling_max_freq")))
        if highest and text(os.path.join(folder, "cpufreq/scaling_governor")) == "performance":
            yield os.path.join(folder, "cpufreq/scaling_cur_freq"), highest


def _quotas(root: str) -> Iterable[str]:
    """Find cpu.stat of every control group around this process that has one (versions 1 and 2)."""
    for line in (text(os.path.join(root, "proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (controllers, "cpu") if controllers else ("",):
            folder = os.path.join(root, "sys/fs/cgroup", mount)
            found = []
            rest = path
            while rest.strip("/"):
                found.append(os.path.join(folder, rest.strip("/"), "cpu.stat"))
                rest = os.path.dirname(rest)
            there = [stat for stat in found if os.path.exists(stat)]
            if there:
                yield from there
                break


def _field(stat: str, name: str) -> float:
    for line in stat.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return number(value) or 0.0
    return 0.0


class Neighbours:
    """What other processes did between its making and `so_far`."""

    def __init__(self, root: str = "/", clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._began, self._waited = clock(), _waited_s(root)
        self._before = _times(root)

    def so_far(self) -> dict[str, Any]:
        """Return how many cores others used, which used most, and how long this process waited for a core.

        `others_cores` and `waited_s` are None where the system does not say.
        """
        elapsed, waited = max(self._clock() - self._began, 1e-3), _waited_s(self._root)
        after = _times(self._root)
        used = {pid: (name, ticks - self._before.get(pid, (name, 0))[1]) for pid, (name, ticks) in after.items()
                if pid != os.getpid() and (pid in self._before or ticks)}
        total = sum(ticks for _, ticks in used.values()) / TICKS / elapsed
        pid, (name, most) = max(used.items(), key=lambda entry: entry[1][1], default=(0, ("", 0)))
        return {
            "others_cores": total if after else None,
            "hog": f"{name} (pid {pid})" if most else None,
            "waited_s": waited - self._waited if waited is not None and self._waited is not None else None,
        }


def _times(root: str) -> dict[int, tuple[str, int]]:
    """Return every process's name and CPU time in ticks."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(os.path.join(root, "proc")):
            if not name.isdigit():
                continue
            stat = text(os.path.join(root, "proc", name, "stat")) or ""
            start, end = stat.find("("), stat.rfind(")")
            fields = stat[end + 2:].split()
            if start >= 0 and len(fields) > 12:
                found[int(name)] = (stat[start + 1:end], int(fields[11]) + int(fields[12]))
    return found


def _waited_s(root: str) -> float | None:
    """Return how long this process's threads have waited for a core; None without CONFIG_SCHED_INFO."""
    total, seen = 0.0, False
    for path in glob.glob(os.path.join(root, "proc/self/task/*/schedstat")):
        fields = (text(path) or "").split()
        if len(fields) == 3:
            total, seen = total + int(fields[1]) * 1e-9, True
    return total if seen else None
