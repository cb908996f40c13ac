"""Files on the board that are named by what they contain."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

from profilers.agent.protocol import BAD_REQUEST, Refusal

SHA256 = re.compile(r"[0-9a-f]{64}\Z")
UPLOAD_S = 3600.0
"""A hidden file younger than this is a copy under way."""
SUFFIXES = {"artifacts": ".tflite", "inputs": ".npz", "outputs": ".npz"}


class Cache:
    """ROOT/artifacts, ROOT/inputs and ROOT/outputs; the files used longest ago go first."""

    def __init__(self, root: str, limit_bytes: int) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        for folder in SUFFIXES:
            os.makedirs(os.path.join(root, folder), exist_ok=True)

    def path(self, folder: str, name: str) -> str:
        """Return where a file lies or would lie. Raises Refusal for a name that is not a SHA-256."""
        if not SHA256.match(name):
            raise Refusal(BAD_REQUEST, f"expected a SHA-256 of 64 hexadecimal digits, got {name!r}")
        return os.path.join(self._root, folder, name + SUFFIXES[folder])

    def has(self, path: str, size_bytes: int | None = None) -> bool:
        """Tell whether a file is there (with this size), and mark it as used now."""
        try:
            size = os.stat(path).st_size
            if size_bytes is not None and size != size_bytes:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def trim(self) -> None:
        """Delete the files used longest ago until the rest fits the limit; each folder keeps its newest."""
        old: list[tuple[float, int, str]] = []
        total = 0
        for folder in SUFFIXES:
            files = sorted(_files(os.path.join(self._root, folder)))
            total += sum(size for _, size, _ in files)
            old += files[:-1]
        for _, size, path in sorted(old):
            if total <= self._limit_bytes:
                return
            os.unlink(path)
            total -= size

    def free_bytes(self) -> int:
        """Return what the disk has left for this user."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize


def _files(folder: str) -> Iterator[tuple[float, int, str]]:
    """Yield (time of last use, bytes, path), without copies that are under way."""
    newest_upload = time.time() - UPLOAD_S
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue
            if not entry.name.startswith(".") or stat.st_mtime < newest_upload:
                yield stat.st_mtime, stat.st_size, entry.path
