"""Temperature, frequency, governor, throttling and load, where the system shows them."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess

CPU_ZONE = re.compile(r"cpu|soc|pkg|k10temp", re.IGNORECASE)
"""Thermal zones that tell of the processor (Raspberry Pi: cpu-thermal; x86: x86_pkg_temp)."""


def read(root: str = "/") -> dict[str, object]:
    """Return the fields of `Sensors`; None where there is no such sensor."""
    return {"temperature_c": temperature_c(root), "frequency_hz": frequency_hz(root),
            "governor": governor(root), "throttled": throttled(root), "load_1m": os.getloadavg()[0]}


def temperature_c(root: str = "/") -> float | None:
    """Return the hottest zone of the processor, or of the board when no zone names the processor."""
    everywhere: list[float] = []
    processor: list[float] = []
    for zone in glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*")):
        millidegrees = number(text(os.path.join(zone, "temp")))
        if millidegrees is None:
            continue
        everywhere.append(millidegrees / 1000)
        if CPU_ZONE.search(text(os.path.join(zone, "type")) or ""):
            processor.append(millidegrees / 1000)
    return max(processor or everywhere, default=None)


def frequency_hz(root: str = "/") -> float | None:
    """Return the frequency of the fastest core now."""
    kilohertz = [number(text(path)) for path in glob.glob(_cpufreq(root, "scaling_cur_freq"))]
    return max((1000 * value for value in kilohertz if value is not None), default=None)


def governor(root: str = "/") -> str | None:
    """Return the frequency governors of all cores, e.g. `performance`."""
    names = {text(path) for path in glob.glob(_cpufreq(root, "scaling_governor"))}
    return ",".join(sorted(name for name in names if name)) or None


def throttled(root: str = "/") -> str | None:
    """Return the Raspberry Pi's throttling bits, e.g. `0x50000`: 0-3 now, 16-19 since it booted."""
    raw = text(os.path.join(root, "sys/devices/platform/soc/soc:firmware/get_throttled"))
    if raw:
        return parse_throttled(raw)
    command = shutil.which("vcgencmd") if root == "/" else None
    if command is None:
        return None
    try:
        done = subprocess.run(
            [command, "get_throttled"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=2,
            check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_throttled(done.stdout.decode(errors="replace"))


def parse_throttled(raw: str) -> str | None:
    """Read `throttled=0x50000` (vcgencmd) or `50000` (sysfs)."""
    found = re.match(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]+)$", raw.strip())
    return "0x" + found.group(1).lower() if found else None


def number(raw: str | None) -> float | None:
    """Read an integer as sysfs prints it."""
    try:
        return float(int(raw)) if raw else None
    except ValueError:
        return None


def text(path: str) -> str | None:
    """Return a small file's text without blanks and NULs at its ends; None when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace").strip("\0 \n\t")
    except OSError:
        return None


def _cpufreq(root: str, name: str) -> str:
    return os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq", name)
