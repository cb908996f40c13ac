"""Raw samples as bytes: zlib-compressed little-endian 64-bit integers."""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Sequence

_WIDTH = 8


def pack(samples: Sequence[int]) -> bytes:
    """Compress integers. Raises OverflowError beyond 64 bits."""
    numbers = array("q", samples)
    if sys.byteorder == "big":
        numbers.byteswap()
    return zlib.compress(numbers.tobytes(), 6)


def unpack(blob: bytes) -> tuple[int, ...]:
    """Return what `pack` was given. Raises ValueError when the bytes are not such samples."""
    try:
        data = zlib.decompress(blob)
    except zlib.error as error:
        raise ValueError(f"samples: expected zlib-compressed data, got {len(blob)} other bytes") from error
    if len(data) % _WIDTH:
        raise ValueError(f"samples: expected a multiple of {_WIDTH} bytes, got {len(data)}")
    numbers = array("q")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)
