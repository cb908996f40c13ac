"""Lines to and from a process on the other side of an SSH connection."""

from __future__ import annotations

import contextlib
import time

import paramiko

from device_farm.errors import ChannelClosed, ChannelStalled

STDERR_CHARACTERS = 4000
CLOSE_S = 5.0
"""A process may take this long to end after its input is closed."""
LOST_S = 0.2
"""A lost connection is known to be lost so long after its channels have ended."""
STATUS_S = 5.0
"""A process may take this long to end after its output is closed."""
SEND_S = 30.0
_SLICE_S = 0.25
"""Standard error is emptied at least this often, so that a talkative process never blocks."""
_CHUNK = 1 << 16


class SSHChannel:
    """A process that stays alive on the board."""

    def __init__(self, session: paramiko.Channel, what: str, *, keep_stderr: bool = False) -> None:
        self._session = session
        self._what = what
        self._buffer = bytearray()
        self._searched = 0
        self._stderr = bytearray()
        self._keep_stderr = keep_stderr
        self._closing = False

    def send(self, line: bytes) -> None:
        """Write one line. Raises ChannelClosed or ChannelStalled."""
        try:
            self._session.settimeout(SEND_S)
            self._session.sendall(line + b"\n")
        except TimeoutError as error:
            raise ChannelStalled(f"{self._what}: took no input for {SEND_S:g} s") from error
        except OSError as error:
            raise self._ended() from error

    def end_input(self) -> None:
        """Close the process's standard input. Raises ChannelClosed."""
        try:
            self._session.shutdown_write()
        except OSError as error:
            raise self._ended() from error

    def receive(self, timeout_s: float) -> bytes:
        """Return the next line. Raises ChannelClosed or ChannelStalled."""
        deadline = time.monotonic() + timeout_s
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise ChannelStalled(f"{self._what}: no line came within {timeout_s:g} s")
            chunk = self._read(remaining)
            if chunk == b"":
                raise self._ended()
            self._buffer += chunk or b""
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def read_all(self, timeout_s: float) -> tuple[bytes, bytes]:
        """Return standard output and error, whole, once they have ended. Raises ChannelStalled."""
        deadline = time.monotonic() + timeout_s
        while (remaining := deadline - time.monotonic()) > 0:
            chunk = self._read(remaining)
            if chunk == b"":
                self._drain_stderr()
                return bytes(self._buffer), bytes(self._stderr)
            self._buffer += chunk or b""
        raise ChannelStalled(f"{self._what}: did not end within {timeout_s:g} s")

    def exit_status(self) -> int | None:
        """Return the exit status once the output has ended: None when a signal ended the process.

        Raises ChannelClosed when the connection is lost: paramiko shows no difference between the two.
        """
        if not self._session.status_event.wait(STATUS_S):
            raise ChannelClosed(f"{self._what}: closed its output, but did not end within {STATUS_S:g} s")
        if self._session.exit_status >= 0:
            return self._session.exit_status
        if self._session.eof_received and not self._lost():
            return None
        raise ChannelClosed(f"{self._what}: the connection was lost")

    def _lost(self) -> bool:
        """Tell whether the connection is lost; paramiko ends the channels a moment before it says so."""
        transport = self._session.get_transport()
        transport.join(LOST_S)  # it is a thread, which ends with the connection
        return not transport.is_active()

    def close(self) -> None:
        """Close the process's input, wait for its end, then let go of it; never raises."""
        self._closing = True
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException, ChannelStalled):
            if not self._session.closed:
                self._session.shutdown_write()
                self.read_all(CLOSE_S)
                self._session.status_event.wait(STATUS_S)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._session.close()
        self._buffer.clear()
        self._searched = 0

    def stderr_tail(self) -> str:
        """Return the last lines (at most 4,000 characters) of the process's standard error."""
        self._drain_stderr()
        text = self._stderr.decode(errors="replace")
        if len(text) > STDERR_CHARACTERS:
            text = text[-STDERR_CHARACTERS:]
            text = text.partition("\n")[2] or text
        return text

    def _ended(self) -> ChannelClosed:
        if self._closing:
            return ChannelClosed(f"{self._what}: the channel was closed by this side")
        try:
            status = self.exit_status()
        except ChannelClosed as error:
            how = str(error)
        else:
            how = f"{self._what}: ended " + ("by a signal" if status is None else f"with exit code {status}")
        tail = self.stderr_tail().strip()
        return ChannelClosed(f"{how}; its standard error {f'ends: {tail}' if tail else 'is empty'}")

    def _read(self, timeout_s: float) -> bytes | None:
        """Return what came on standard output: None for nothing yet, empty for its end."""
        self._session.settimeout(min(timeout_s, _SLICE_S))
        try:
            return self._session.recv(_CHUNK)
        except TimeoutError:
            return None
        finally:
            self._drain_stderr()

    def _drain_stderr(self) -> None:
        while self._session.recv_stderr_ready():
            self._stderr += self._session.recv_stderr(_CHUNK)
        if not self._keep_stderr:
            del self._stderr[: -4 * STDERR_CHARACTERS]
