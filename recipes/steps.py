"""A step of the build chain: what goes in is its key, what comes out are blobs; done once for all processes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from recipes.blobs import BlobStore

FOLDER = "steps"


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step."""

    name: str
    key: str
    """SHA-256 of the name, the inputs and the tools' versions."""
    outputs: Mapping[str, str]
    """What came out -> blob."""
    tools: Mapping[str, str]
    """Distribution -> version."""


def run_step(blobs: BlobStore, name: str, inputs: Mapping[str, object], tools: tuple[str, ...],
             make: Callable[[], Mapping[str, bytes]]) -> Step:
    """Return what a step gave when it was done before, else do it.

    Of several processes that need the same step at the same time, one does it and the others wait. A step
    whose blobs were removed is done again; one that raises leaves nothing.

    Args:
        blobs: where the outputs lie; finished steps are listed beside them.
        name: of the step.
        inputs: everything that decides the outputs but the tools: digests and parameters, as JSON.
        tools: distributions whose versions decide the outputs.
        make: does the step.
    """
    versions = {tool: version(tool) for tool in tools}
    text = json.dumps({"step": name, "inputs": inputs, "tools": versions}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    place = blobs.root / FOLDER / key[:2] / f"{key}.json"
    outputs = _done(place, blobs)
    if outputs is None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            outputs = _done(place, blobs)
            if outputs is None:
                outputs = {what: blobs.put_bytes(data).sha256 for what, data in make().items()}
                _write(place, outputs)
    return Step(name, key, outputs, versions)


def _done(place: Path, blobs: BlobStore) -> dict[str, str] | None:
    try:
        outputs: dict[str, str] = json.loads(place.read_text("utf-8"))
    except FileNotFoundError:
        return None
    return outputs if all(blobs.has(sha256) for sha256 in outputs.values()) else None


def _write(place: Path, outputs: Mapping[str, str]) -> None:
    unfinished = place.with_suffix(f".{uuid4().hex}")
    unfinished.write_text(json.dumps(outputs, sort_keys=True), "utf-8")
    os.replace(unfinished, place)
