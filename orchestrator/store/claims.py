"""Who works on a study: one live controller at a time."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.store.records import Holder

HEARTBEAT_S = 10.0
"""A controller renews its claim this often."""
LAPSE_S = 60.0
"""A claim from another machine (or container) counts as dead when it is older."""


def this_process(token: uuid.UUID, now: datetime) -> Holder:
    """Describe this process as the holder of a claim."""
    pid = os.getpid()
    return Holder(socket.gethostname(), _boot(), pid, _start_of(pid), token, now)


def is_live(holder: Holder, here: Holder) -> bool:
    """Say whether the controller behind a claim is at work, as seen from the process `here`.

    On the same boot of the same machine the process itself is looked up, so the claim of a killed
    controller is free at once; from elsewhere only the age of its heartbeat tells.
    """
    if holder.token == here.token:
        return True
    if (holder.host, holder.boot) != (here.host, here.boot):
        return here.heartbeat_at - holder.heartbeat_at < timedelta(seconds=LAPSE_S)
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and belongs to another user
    return _start_of(holder.pid) == holder.started


def _boot() -> str:
    parts = []
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append("unknown")  # not Linux: the host's name and the process id must do
    return " ".join(parts)


def _start_of(pid: int) -> int | None:
    # Fields after the command's name, which is in parentheses and may hold anything: proc(5).
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])
