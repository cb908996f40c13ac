"""This machine, as a target."""

from __future__ import annotations

import platform
from pathlib import Path

from recipes.target import Target


def host_target(runtime_version: str) -> Target:
    """Return the machine that this program runs on."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return Target(platform.machine(), "tvm", runtime_version, tuple(sorted(flags)))
