"""A folder that is there whole or not at all, also when it replaces one, and when this process is killed."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from recipes.blobs import sync

_HERE = -100
"""AT_FDCWD: paths count from the current folder."""
_EXCHANGE = 2
"""RENAME_EXCHANGE (linux/fs.h)."""
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends, its content is on the disk and it takes its place.

    Until then, and when the block raises, `destination` is as it was. What it held before is removed: whether it
    may be is the caller's question. A killed process leaves `.NAME.<32 digits>` beside it.

    Args:
        destination: the folder to make or to replace; missing parents are made.

    Raises:
        OSError: no permission, no space. Nothing half-written is left, and `destination` is untouched.
    """
    staging = _beside(destination)
    try:
        staging.mkdir(parents=True)
        yield staging
        for place in (*staging.rglob("*"), staging):
            sync(place)
        _put_in_place(staging, destination)
        sync(destination.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, destination: Path) -> None:
    """Rename; what was there comes under the name `staging`, or is removed."""
    if not destination.exists() or not any(destination.iterdir()):
        os.rename(staging, destination)
        return
    if _exchange(staging, destination):
        return
    old = _beside(destination)
    os.rename(destination, old)
    try:
        os.rename(staging, destination)
    except OSError:
        os.rename(old, destination)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders trade names in one step (Linux, renameat2(2)); False where the file system cannot."""
    trade = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if trade is None:
        return False
    if trade(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _beside(destination: Path) -> Path:
    return destination.parent / f".{destination.name}.{uuid4().hex}"
