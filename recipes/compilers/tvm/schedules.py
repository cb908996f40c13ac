"""Kernel -> tile, as measured on a kind of board; versioned, because it decides artifacts' bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from recipes.compilers.tvm.kernels.convolution import Tile

SCHEMA = 1
Schedules = Mapping[str, Tile]
"""`Template.key` -> tile; a kernel that is not named has its default."""


def schedules_bytes(schedules: Schedules) -> bytes:
    """Write tiles as the bytes of schedules.json."""
    document = {"schema": SCHEMA, "tiles": {key: tile_numbers(tile) for key, tile in sorted(schedules.items())}}
    return json.dumps(document, sort_keys=True).encode()


def read_schedules(data: bytes | None) -> dict[str, Tile]:
    """Read what `schedules_bytes` wrote; nothing: no kernel was measured. Raises ValueError for another version."""
    if data is None:
        return {}
    document = json.loads(data)
    if document.get("schema") != SCHEMA:
        raise ValueError(f"schedules of the compiler tvm with schema {document.get('schema')}; expected {SCHEMA}")
    return {key: tile_of(values) for key, values in document["tiles"].items()}


def tile_numbers(tile: Tile) -> tuple[int, int, int]:
    """Return a tile as pixels, vectors, and whether the weights stay."""
    return tile.pixels, tile.vectors, int(tile.weights_stay)


def tile_of(values: Sequence[int]) -> Tile:
    """Read what `tile_numbers` wrote. Raises ValueError."""
    pixels, vectors, stay = values
    return Tile(pixels, vectors, bool(stay))
