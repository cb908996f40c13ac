"""One measurement at a time on a machine, and none by a controller whose lease was taken over."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from typing import Any

from profilers.agent.protocol import LOCK_HELD, OLD_TOKEN, Refusal

END_S = 5.0
"""An agent that is killed has let go of the lock by then."""


class BoardLock:
    """A lock on a file that the kernel releases when this process ends, with rising tokens beside it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Tell whether this process may measure."""
        return self._fd is not None

    def acquire(self, token: int, owner: str, series: str) -> None:
        """Take the lock, or keep it with a higher token.

        Tokens of one series (one board of one store) only rise; series do not compare. An agent that holds the lock
        with an older token of the series is ended: its controller lost the lease, and may be stopped and never say so.
        So is one with the same token: its controller has connected anew, and that one's connection hangs.

        Raises:
            Refusal: another process holds the lock, or a higher token of the series was seen.
        """
        tokens = _open_shared(self._path + ".tokens")
        try:
            _refuse_older(_read(tokens), series, token, owner)
            fd = self._fd if self._fd is not None else self._lock(token, series)
            try:
                seen = _read(tokens)  # anew: another may have been here
                _refuse_older(seen, series, token, owner)
                if token > seen.get(series, 0):
                    seen[series] = token
                    _write(tokens, seen)
                _write(fd, {"owner": owner, "token": token, "series": series, "pid": os.getpid()})
                self._fd = fd
            finally:
                if self._fd is None:
                    os.close(fd)
        finally:
            os.close(tokens)

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def _lock(self, token: int, series: str) -> int:
        fd = _open_shared(self._path)
        if _locked(fd):
            return fd
        holder = _read(fd)
        ours = holder.get("series") == series and _is_no_newer(holder.get("token"), token)
        if ours and _ended(fd, holder.get("pid")):
            return fd
        os.close(fd)
        raise Refusal(LOCK_HELD, "the lock {} is held by {} with token {}".format(
            self._path, holder.get("owner", "another agent"), holder.get("token", "unknown")),
                      owner=holder.get("owner"), token=holder.get("token"))


def _refuse_older(seen: dict[str, Any], series: str, token: int, owner: str) -> None:
    highest = seen.get(series, 0)
    if token < highest:
        raise Refusal(OLD_TOKEN, f"token {token} of {owner} is older than {highest}, the highest that was seen here: "
                      "the lease was given to another", token=highest)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_no_newer(token: object, than: int) -> bool:
    return isinstance(token, int) and token <= than


def _ended(fd: int, pid: object) -> bool:
    """End the process that holds the lock, and take it; False where that is not ours to do, or does not help."""
    if not isinstance(pid, int) or not _holds(pid, fd):
        return False
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # its children die with it; a stopped one would not serve SIGTERM
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        if _locked(fd):
            return True
        time.sleep(0.05)
    return False


def _holds(pid: int, fd: int) -> bool:
    """Tell whether a process has the file open: the number in it may be of another one by now."""
    own = os.fstat(fd)
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        try:
            found = os.stat(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
            return True
    return False


def _open_shared(path: str) -> int:
    """Open or make a file that every user of the machine may lock.

    O_CREAT on another user's file in /tmp is refused by `fs.protected_regular`: open first, then make.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(fd, 0o666)
    return fd


def _read(fd: int) -> dict[str, Any]:
    """Return the JSON object in a file; empty when it is being written or is damaged."""
    try:
        data = json.loads(os.pread(fd, 1 << 20, 0) or b"{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _write(fd: int, data: dict[str, Any]) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(data).encode(), 0)
