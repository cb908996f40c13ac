"""What the machine is."""

from __future__ import annotations

import os
import platform
import re
import struct

from profilers.agent.sensors import text


def read(root: str = "/") -> dict[str, object]:
    """Return the fields of `BoardFacts`; None where the system does not say."""
    cpuinfo = text(os.path.join(root, "proc/cpuinfo")) or ""
    memory = re.search(r"MemTotal:\s+(\d+) kB", text(os.path.join(root, "proc/meminfo")) or "")
    return {
        "machine": machine(platform.machine(), struct.calcsize("P")),
        "model": text(os.path.join(root, "proc/device-tree/model")) or field(cpuinfo, "Model", "model name"),
        "cpu_features": sorted(set((field(cpuinfo, "Features", "flags") or "").split())),
        "cores": os.cpu_count(),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "os": system(text(os.path.join(root, "etc/os-release")) or ""),
        "glibc": glibc(),
        "python": platform.python_version(),
        "boot_id": text(os.path.join(root, "proc/sys/kernel/random/boot_id")),
    }


def machine(kernel: str, pointer_bytes: int) -> str:
    """Return the architecture that programs see: a 64-bit kernel may carry a 32-bit system."""
    if pointer_bytes == 4:
        return {"aarch64": "armv7l", "x86_64": "i686"}.get(kernel, kernel)
    return kernel


def field(cpuinfo: str, *names: str) -> str | None:
    """Return the first value of the first of `names` that /proc/cpuinfo has."""
    for name in names:
        found = re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return None


def system(os_release: str) -> str:
    """Return the distribution's name, e.g. `Debian GNU/Linux 12 (bookworm)`."""
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', os_release, re.MULTILINE)
    return found.group(1) if found else platform.system()


def glibc() -> str | None:
    """Return the version of the GNU C library, e.g. `2.36`; None with another C library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return None
    return version if name == "glibc" and version else None
