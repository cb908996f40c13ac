"""How a board is reached: a protocol with two implementations, SSH and local."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str


class Channel(Protocol):
    """Lines to and from a process that stays alive on the board."""

    def send(self, line: bytes) -> None:
        """Write one line (without its newline). Raises ChannelClosed."""

    def receive(self, timeout_s: float) -> bytes:
        """Return the next line without its newline. Raises ChannelClosed or ChannelStalled."""

    def close(self) -> None:
        """End the process at the other end by closing its input; never raises."""

    def stderr_tail(self) -> str:
        """Return the last lines (at most 4,000 characters) of the process's standard error."""


class Transport(Protocol):
    """A way to one board. Not shared between threads."""

    @property
    def address(self) -> str:
        """For messages: `pi@10.0.0.7:22` or `local`."""

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a command to its end. Raises FarmError, never for a non-zero exit."""

    def open(self, argv: Sequence[str]) -> Channel:
        """Start a long-lived process and return its channel. Raises FarmError."""

    def push(self, source: Path, destination: str) -> None:
        """Copy a file to an absolute path on the board, atomically (temporary name, then rename).

        Raises PushFailed (with the cause: disk full, read-only, connection) or another FarmError.
        """

    def pull(self, source: str, destination: Path) -> None:
        """Copy a file from the board. Raises FarmError."""

    def close(self) -> None:
        """Give the connection back; never raises."""
