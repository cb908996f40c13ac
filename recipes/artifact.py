"""Files that are known by what they contain."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a compiler made: a file that is named by its SHA-256."""

    path: Path
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> Artifact:
        """Describe an existing file. Raises OSError."""
        data = path.read_bytes()
        return cls(path, hashlib.sha256(data).hexdigest(), len(data))
