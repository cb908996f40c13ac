"""Finding the processes that something under test has started, however deep and however orphaned."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

MARK = "ORCHESTRATOR_TEST_FAMILY"


def marked(mark: str) -> dict[str, str]:
    """Return the environment for a process whose descendants must be found again."""
    return {**os.environ, MARK: mark}


def family(mark: str) -> dict[int, str]:
    """Return process id -> command line of every living process that inherited the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            state = (folder / "stat").read_bytes().rpartition(b")")[2].split()[0]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if state != b"Z":
            found[int(folder.name)] = command
    return found


def wait_until_gone(mark: str, seconds: float) -> dict[int, str]:
    """Wait for a family's end; return who is left after `seconds`."""
    deadline = time.monotonic() + seconds
    while left := family(mark):
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return {}


def end_family(mark: str) -> None:
    """Kill who is left, so that a failed test leaves nothing behind."""
    for pid in family(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
