"""The machine that the controller runs on, reached by processes and pipes."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from device_farm.errors import ChannelClosed, ChannelStalled, FarmError, PushFailed
from device_farm.transport import Completed

STDERR_CHARACTERS = 4000
CLOSE_S = 5.0
"""A process may take this long to end after its input is closed."""
TERMINATE_S = 1.0

_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


class LocalChannel:
    """Lines to and from a child process."""

    def __init__(self, argv: Sequence[str], address: str) -> None:
        self._what = f"{Path(argv[0]).name} on {address}"
        try:
            # A session of its own: an interrupt from the terminal must reach the controller alone.
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ChannelClosed(f"cannot start {argv[0]} on {address}: {error.strerror}") from error
        self._stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        if self._stdin is None or stdout is None or stderr is None:
            raise ChannelClosed(f"cannot start {argv[0]} on {address}: it has no pipes")
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stderr = b""
        self._threads = (
            threading.Thread(target=self._read_lines, args=(stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(stderr,), daemon=True),
        )
        for thread in self._threads:
            thread.start()

    def _read_lines(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                if line.endswith(b"\n"):
                    self._lines.put(line[:-1])
        self._lines.put(None)

    def _read_stderr(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := os.read(stream.fileno(), STDERR_CHARACTERS):
                self._stderr = (self._stderr + chunk)[-4 * STDERR_CHARACTERS :]

    def send(self, line: bytes) -> None:
        """Write one line. Raises ChannelClosed."""
        stdin = self._stdin
        try:
            if stdin is None:
                raise ChannelClosed(f"{self._what}: the channel was closed by this side")
            stdin.write(line + b"\n")
            stdin.flush()
        except OSError as error:
            raise self._ended() from error

    def receive(self, timeout_s: float) -> bytes:
        """Return the next line. Raises ChannelClosed or ChannelStalled."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty as error:
            raise ChannelStalled(f"{self._what}: no line came within {timeout_s:g} s") from error
        if line is None:
            self._lines.put(None)
            raise self._ended()
        return line

    def close(self) -> None:
        """Close the process's input, wait for it, then terminate and at last kill it."""
        stdin, self._stdin = self._stdin, None
        if stdin is None:
            return
        with contextlib.suppress(OSError):
            stdin.close()
        for timeout_s, end in ((CLOSE_S, self._process.terminate), (TERMINATE_S, self._process.kill)):
            try:
                self._process.wait(timeout_s)
                break
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()
        for thread in self._threads:
            thread.join(TERMINATE_S)

    def stderr_tail(self) -> str:
        """Return the last lines (at most 4,000 characters) of the process's standard error."""
        text = self._stderr.decode(errors="replace")
        if len(text) > STDERR_CHARACTERS:
            text = text[-STDERR_CHARACTERS:].partition("\n")[2] or text[-STDERR_CHARACTERS:]
        return text

    def _ended(self) -> ChannelClosed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TERMINATE_S)
        self._threads[1].join(TERMINATE_S)
        code = self._process.returncode
        how = "closed its output" if code is None else f"ended with exit code {code}"
        tail = self.stderr_tail().strip()
        return ChannelClosed(f"{self._what} {how}; on standard error it left: {tail or 'nothing'}")


class LocalTransport:
    """A transport without a network: copies for pushes, child processes for commands."""

    def __init__(self, address: str = "local") -> None:
        self._address = address
        self._channels: list[LocalChannel] = []

    @property
    def address(self) -> str:
        """`local`, or what the inventory calls it."""
        return self._address

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a command to its end; 127 when there is no such command. Raises ChannelStalled."""
        try:
            done = subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise ChannelStalled(
                f"{argv[0]} on {self._address} did not end within {timeout_s:g} s") from error
        except OSError as error:
            return Completed(127, "", f"cannot start {argv[0]} on {self._address}: {error.strerror}")
        return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def open(self, argv: Sequence[str]) -> LocalChannel:
        """Start a long-lived process. Raises ChannelClosed when it cannot be started."""
        channel = LocalChannel(argv, self._address)
        self._channels.append(channel)
        return channel

    def push(self, source: Path, destination: str) -> None:
        """Copy a file atomically, making its folder where needed. Raises PushFailed."""
        goal = Path(destination)
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, goal)
        except OSError as error:
            raise push_failed(source, f"{self._address}:{destination}", error) from error

    def pull(self, source: str, destination: Path) -> None:
        """Copy a file: whole, or not at all. Raises FarmError."""
        try:
            _copy(Path(source), destination)
        except OSError as error:
            raise FarmError(
                f"cannot copy {self._address}:{source} to {destination}: {error.strerror}") from error

    def close(self) -> None:
        """End every process that was opened."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()


def _copy(source: Path, goal: Path) -> None:
    with source.open("rb") as file:
        handle, name = tempfile.mkstemp(prefix=f".{goal.name[:40]}.", suffix=".part", dir=goal.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                shutil.copyfileobj(file, out)
            temporary.chmod(0o644)
            temporary.replace(goal)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def push_failed(source: Path, destination: str, error: OSError) -> PushFailed:
    """Say why a copy did not arrive."""
    cause = _CAUSES.get(error.errno or 0, error.strerror or str(error))
    return PushFailed(f"cannot push {source} to {destination}: {cause}")


if TYPE_CHECKING:
    from device_farm.transport import Channel, Transport

    _transport: Transport = LocalTransport()
    _channel: Channel = _transport.open([])
