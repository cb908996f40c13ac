"""Packs the agent into one file that any Python >= 3.8 runs."""

from __future__ import annotations

import zipfile
from pathlib import Path

from recipes.artifact import Artifact

_EPOCH = (1980, 1, 1, 0, 0, 0)
_SOURCE = Path(__file__).parent / "agent"


def build_agent(destination: Path) -> Artifact:
    """Write the zipapp to `destination` and describe it; the same sources give the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    files = {"__main__.py": (_SOURCE / "__main__.py").read_bytes(), "profilers/__init__.py": b""}
    for source in sorted(_SOURCE.glob("*.py")):
        files[f"profilers/agent/{source.name}"] = source.read_bytes()
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Stored, not deflated: compressed bytes differ between versions of zlib.
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return Artifact.of(destination)
