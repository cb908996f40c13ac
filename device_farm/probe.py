"""What a board is like before anything is installed on it: one command, read by pure functions."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from device_farm.board_entry import BoardEntry
from device_farm.errors import FarmError
from device_farm.transport import Transport

PROBE_S = 30.0
HELPER = "/usr/local/sbin/hil-orchestrator-helper"
"""Sets the governor while a measurement runs; see helper.sh."""

_PYTHON = """\
import json, os, platform, struct, sys
folder = os.path.join(sys.argv[1], "runtimes")
names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
print(json.dumps({"version": list(sys.version_info[:3]), "bits": 8 * struct.calcsize("P"),
                  "implementation": platform.python_implementation(),
                  "runtimes": [name for name in names if ".part" not in name]}))
"""

# Every section is answered as far as the board can; POSIX sh, so that busybox will do.
_SHELL = """\
section() { printf '\\n==%s\\n' "$1"; }
root=$1
case $root in "~"*) root=$HOME${root#"~"};; esac
folder=$root
while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
section root; printf '%s\\n' "$root"
section machine; uname -m
section glibc; getconf GNU_LIBC_VERSION || ldd --version 2>&1 | head -n 1
section clock; date +%s
section disk; df -Pk "$folder"
section writable; if [ -w "$folder" ]; then echo yes; else echo "$folder"; fi
section memory; cat /proc/meminfo
section governor; cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor
section helper; if [ -x "$4" ]; then echo yes; fi
section temperature; cat /sys/class/thermal/thermal_zone*/temp
section throttled; bits=$(cat /sys/devices/platform/soc/soc:firmware/get_throttled)
if [ -n "$bits" ]; then printf '%s\\n' "$bits"; elif command -v vcgencmd >/dev/null; then vcgencmd get_throttled; fi
section python; "$2" -s -c "$3" "$root"
exit 0
"""


@dataclass(frozen=True, slots=True)
class PythonProbe:
    """The Python that the inventory names."""

    version: tuple[int, int, int]
    bits: int
    """32 or 64: a 64-bit kernel may carry 32-bit programs."""
    implementation: str
    runtimes: tuple[str, ...]
    """Folders below ROOT/runtimes, e.g. `litert-2.3.0`."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A board's state; None where it does not say."""

    root: str
    """The board's root folder, `~` expanded."""
    machine: str
    """Architecture that programs there have: `aarch64`, `x86_64`, `armv7l`."""
    glibc: tuple[int, int] | None
    clock_skew_s: float | None
    """The board's clock minus ours."""
    disk_free_bytes: int | None
    unwritable: str | None
    """The folder that should be writable and is not."""
    memory_available_bytes: int | None
    governors: tuple[str, ...]
    helper: bool
    """The helper for the governor is installed."""
    temperature_c: float | None
    """The hottest zone."""
    throttled: int | None
    """The Raspberry Pi firmware's bits, as the kernel shows them, else `vcgencmd get_throttled`."""
    python: PythonProbe | None


def probe_board(transport: Transport, entry: BoardEntry, *, clock: Callable[[], float] = time.time) -> Probe:
    """Ask a board what it is like. Raises FarmError."""
    before = clock()
    done = transport.run(["sh", "-c", _SHELL, "sh", entry.root, entry.python, _PYTHON, HELPER], PROBE_S)
    if done.returncode:
        raise FarmError(
            f"{transport.address}: the probe needs a POSIX shell there; it ended with {done.returncode}: "
            f"{done.stderr.strip()}"
        )
    return read_probe(done.stdout, (before + clock()) / 2)


def read_probe(text: str, host_clock_s: float) -> Probe:
    """Read what the probe printed."""
    sections = read_sections(text)
    python = read_python(sections.get("python", ""))
    clock = sections.get("clock", "")
    unwritable = sections.get("writable", "yes")
    return Probe(
        root=sections.get("root", ""),
        machine=read_machine(sections.get("machine", ""), python.bits if python else None),
        glibc=read_glibc(sections.get("glibc", "")),
        clock_skew_s=int(clock) - host_clock_s if clock.isdigit() else None,
        disk_free_bytes=read_disk_free(sections.get("disk", "")),
        unwritable=None if unwritable == "yes" else unwritable,
        memory_available_bytes=read_memory_available(sections.get("memory", "")),
        governors=tuple(sorted(set(sections.get("governor", "").split()))),
        helper=sections.get("helper", "") == "yes",
        temperature_c=read_temperature(sections.get("temperature", "")),
        throttled=read_throttled(sections.get("throttled", "")),
        python=python,
    )


def read_sections(text: str) -> Mapping[str, str]:
    """Split `==name` blocks."""
    parts = re.split(r"^==(\w+)$", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def read_machine(uname: str, bits: int | None) -> str:
    """Return the architecture of programs: a 64-bit Pi kernel under a 32-bit system prints `aarch64`."""
    if bits == 32:
        return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(uname, uname)
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(uname, uname)


def read_glibc(text: str) -> tuple[int, int] | None:
    """Read `glibc 2.36` or the first line of `ldd --version`; None for another C library."""
    found = re.search(r"(?:glibc|GNU libc|GLIBC)\D*?(\d+)\.(\d+)|ldd \(.*\) (\d+)\.(\d+)", text)
    if found is None:
        return None
    major, minor = (number for number in found.groups() if number is not None)
    return int(major), int(minor)


def read_disk_free(df: str) -> int | None:
    """Read the free bytes of `df -Pk`, the folder of one file system."""
    found = re.search(r"(\d+)\s+\d+%\s", df)
    return int(found[1]) * 1024 if found else None


def read_memory_available(meminfo: str) -> int | None:
    """Read MemAvailable of /proc/meminfo in bytes."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def read_temperature(zones: str) -> float | None:
    """Read millidegrees of thermal zones and return the highest in degrees Celsius."""
    values = [int(word) / 1000 for word in zones.split() if word.lstrip("-").isdigit()]
    return max(values, default=None)


def read_throttled(text: str) -> int | None:
    """Read `50005` (sysfs) or `throttled=0x50005` (vcgencmd) of a Raspberry Pi's firmware."""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]+)", text.strip())
    return int(found[1], 16) if found else None


def read_python(text: str) -> PythonProbe | None:
    """Read what the probe's Python part printed; None when no Python answered."""
    try:
        data = json.loads(text)
    except ValueError:
        return None
    major, minor, micro = data["version"]
    return PythonProbe((major, minor, micro), data["bits"], data["implementation"], tuple(data["runtimes"]))
