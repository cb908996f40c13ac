"""JSON lines over file descriptors."""

from __future__ import annotations

import json
import os
from collections import deque

CHUNK = 1 << 16


class LineReader:
    """Splits what a file descriptor brings into lines; reads only when asked to."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lines: deque[bytes] = deque()
        self._parts: list[bytes] = []

    def fill(self) -> bool:
        """Read once (blocks when nothing is there); False at the end of the stream."""
        data = os.read(self.fd, CHUNK)
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._parts.append(line)
            self._lines.append(b"".join(self._parts))
            self._parts.clear()
        if rest:
            self._parts.append(rest)
        return bool(data)

    def pop(self) -> bytes | None:
        """Return the next whole line, or None."""
        return self._lines.popleft() if self._lines else None


def write_line(fd: int, line: bytes) -> None:
    """Write a line whole. Raises BrokenPipeError."""
    data = memoryview(line + b"\n")
    while data:
        data = data[os.write(fd, data):]


def dump(message: dict[str, object]) -> bytes:
    """Return compact JSON; NaN is not JSON and raises ValueError."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
