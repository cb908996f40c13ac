"""Which tile of a kernel is the fastest, from sessions in which several took turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from profilers.measurement import Measurement
from recipes.compilers.tvm.kernels.convolution import Tile
from recipes.compilers.tvm.tuning import TALLY

GAIN = 0.98
"""Share of the first tile's time that another must stay below, in every session, to be worth another artifact."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Tiles that one library ran in turn; the first one is what the others are compared with."""

    tiles: tuple[Tile, ...]
    code_bytes: tuple[int, ...]
    sessions: tuple[tuple[int, ...], ...]
    """Nanoseconds of each tile, session by session."""


@dataclass(frozen=True, slots=True)
class TileChoice:
    """The tile to take."""

    tile: Tile
    default_ns: int
    best_ns: int
    code_bytes: int
    tiles: int
    """How many were measured."""


def turns(measurement: Measurement, count: int) -> tuple[int, ...]:
    """Return what each of `count` tiles took, nanoseconds. Raises ValueError when another number was timed."""
    found = tuple(call.ns for call in measurement.kernels if not call.kernel.startswith(TALLY))
    if len(found) != count:
        raise ValueError(f"{count} tiles are in the library, the agent timed {len(found)} kernels")
    return found


def choose(libraries: Sequence[Turns]) -> TileChoice:
    """Return the tile that is the fastest in every session, compared with the first of its own library."""
    first, code = libraries[0].tiles[0], libraries[0].code_bytes[0]
    default_ns = statistics.median(session[0] for library in libraries for session in library.sessions)
    best = (1.0, first, code)
    for library in libraries:
        for place, tile in enumerate(library.tiles):
            shares = [session[place] / max(session[0], 1) for session in library.sessions]
            if max(shares) < GAIN and statistics.mean(shares) < best[0]:
                best = (statistics.mean(shares), tile, library.code_bytes[place])
    return TileChoice(best[1], round(default_ns), round(default_ns * best[0]), best[2],
                      len({tile for library in libraries for tile in library.tiles}))
