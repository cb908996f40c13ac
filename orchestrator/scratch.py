"""A folder for the temporary files of processes that may be killed; the next one made clears what is left."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from tempfile import gettempdir, mkdtemp

PREFIX = "hil-orchestrator-"


class Scratch:
    """A folder that is locked as long as this process lives, so that nobody takes it for abandoned."""

    def __init__(self) -> None:
        _remove_abandoned()
        self.path, self._lock = _make()

    def close(self) -> None:
        """Remove the folder; never raises."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _make() -> tuple[Path, int]:
    while True:
        path = Path(mkdtemp(prefix=PREFIX))
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for abandoned
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():  # else the same, a moment later
            return path, handle
        os.close(handle)


def _remove_abandoned() -> None:
    """Remove the folders of processes that were killed."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # no folder, another user's, or removed by now
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)
