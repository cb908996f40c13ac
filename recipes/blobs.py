"""Files that are kept by what they contain: `<first two digits>/<sha256>` below one folder."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recipes.artifact import Artifact

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


class BlobMissing(LookupError):
    """No blob has this digest: it was removed, or never stored here."""


@dataclass(frozen=True, slots=True)
class BlobStore:
    """A folder of content-addressed, read-only files; safe for several processes at once.

    A blob appears whole or not at all, also when the machine loses power: the bytes are on the
    disk before the file gets its name.
    """

    root: Path

    def put_bytes(self, data: bytes) -> Artifact:
        """Keep `data`. Returns the stored file. Raises OSError (full disk, no permission)."""
        return self._put(iter((data,)))

    def put_file(self, source: Path) -> Artifact:
        """Keep a copy of `source`. Returns the stored file. Raises OSError."""
        return self._put(_chunks(source))

    def path(self, sha256: str) -> Path:
        """Return the file of a digest. Raises BlobMissing; ValueError when it is no digest."""
        place = self._place(sha256)
        if not place.is_file():
            raise BlobMissing(f"no blob {sha256} in {self.root}: it was removed with its study, or the "
                              "folder is not the one that it was stored in; rebuild it")
        return place

    def has(self, sha256: str) -> bool:
        """Say whether the blob is here. Raises ValueError when `sha256` is no digest."""
        return self._place(sha256).is_file()

    def remove(self, sha256: str) -> int:
        """Remove a blob if it is here. Returns the bytes freed. Raises OSError."""
        place = self._place(sha256)
        try:
            size = place.stat().st_size
            place.unlink()
        except FileNotFoundError:
            return 0
        return size

    def remove_leftovers(self, older_than_s: float) -> int:
        """Remove half-written files of killed processes. Returns the bytes freed."""
        freed = 0
        oldest = time.time() - older_than_s
        for file in self._unfinished.glob("*"):
            try:
                facts = file.stat()
                if facts.st_mtime < oldest:
                    file.unlink()
                    freed += facts.st_size
            except FileNotFoundError:
                continue
        return freed

    @property
    def _unfinished(self) -> Path:
        return self.root / "unfinished"

    def _place(self, sha256: str) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise ValueError(f"sha256: expected 64 lower-case hexadecimal digits, got {sha256!r}")
        return self.root / sha256[:2] / sha256

    def _put(self, chunks: Iterable[bytes]) -> Artifact:
        self._unfinished.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        size = 0
        handle, name = tempfile.mkstemp(dir=self._unfinished)
        unfinished = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            sha256 = digest.hexdigest()
            place = self._place(sha256)
            if not place.is_file():
                place.parent.mkdir(exist_ok=True)
                os.replace(unfinished, place)
                sync(place.parent)
        finally:
            unfinished.unlink(missing_ok=True)
        return Artifact(place, sha256, size)


def _chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def sync(place: Path) -> None:
    """Bring a file or folder to the disk. Raises OSError."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
