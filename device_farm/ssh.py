"""Boards that are reached by SSH."""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import fabric
import paramiko

from device_farm.board_entry import BoardEntry
from device_farm.errors import ChannelClosed, FarmError, PushFailed
from device_farm.ssh_channel import SSHChannel
from device_farm.ssh_connect import connect, disconnect
from device_farm.transport import Completed

SFTP_STALL_S = 30.0
"""A copy in which nothing moves for this long has failed."""
_DIAGNOSIS_S = 10.0


class SSHTransport:
    """One board over one connection, which is made at first use and again after a loss."""

    def __init__(self, entry: BoardEntry, *, connect_timeout_s: float = 10.0) -> None:
        self._name = entry.name
        self._hops = entry.hops()
        self._environment = tuple(f"{key}={value}" for key, value in entry.env.items())
        self._connect_timeout_s = connect_timeout_s
        self._connections: list[fabric.Connection] = []
        self._sftp: paramiko.SFTPClient | None = None
        self._channels: list[SSHChannel] = []

    @property
    def address(self) -> str:
        """For messages: `pi@10.0.0.7:22`."""
        return self._hops[-1].address

    def connect(self) -> None:
        """Connect unless connected already.

        Raises BoardUnreachable, HostKeyMismatch or AuthenticationFailed.
        """
        if self._connections and self._connections[-1].is_connected:
            return
        self.close()
        self._connections = connect(self._name, self._hops, self._connect_timeout_s)

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a command to its end; 127 when there is no such command, 128 + N when signal N ended it.

        A command that outlives `timeout_s` is left to itself on the board.

        Raises:
            ChannelStalled: It did not end in time.
            ChannelClosed: The connection was lost.
            FarmError: No connection could be made.
        """
        # The shell is kept until the end, because paramiko does not say by which signal a process died.
        session = self._start(f"{self._command(argv)}; exit $?")
        channel = SSHChannel(session, self._what(argv), keep_stderr=True)
        try:
            channel.end_input()
            stdout, stderr = channel.read_all(timeout_s)
            status = channel.exit_status()
        finally:
            session.close()
        if status is None:
            raise ChannelClosed(f"{self._what(argv)}: its shell was killed")
        return Completed(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))

    def open(self, argv: Sequence[str]) -> SSHChannel:
        """Start a long-lived process. Raises FarmError."""
        channel = SSHChannel(self._start(self._command(argv)), self._what(argv))
        self._channels.append(channel)
        return channel

    def push(self, source: Path, destination: str) -> None:
        """Copy a file atomically, making its folder where needed. Raises PushFailed or another FarmError."""
        goal = PurePosixPath(destination)
        part = str(goal.with_name(f".{goal.name[:40]}.{secrets.token_hex(6)}.part"))
        size = source.stat().st_size
        sftp = self._client()
        try:
            with source.open("rb") as file:
                try:
                    sftp.putfo(file, part, confirm=False)
                except FileNotFoundError:
                    self._make_folder(str(goal.parent))
                    file.seek(0)
                    sftp.putfo(file, part, confirm=False)
            # Writes are sent without waiting for answers: only the size tells whether all of them worked.
            written = sftp.stat(part).st_size
            if written != size:
                raise OSError(f"{written} of {size} bytes were written")
            sftp.posix_rename(part, destination)
        except (OSError, EOFError, paramiko.SSHException) as error:
            cause = self._push_cause(sftp, part, str(goal.parent), size, error)
            raise PushFailed(f"cannot push {source} to {self.address}:{destination}: {cause}") from error

    def pull(self, source: str, destination: Path) -> None:
        """Copy a file from the board: whole, or not at all. Raises FarmError."""
        part = destination.with_name(f".{destination.name[:40]}.{secrets.token_hex(6)}.part")
        sftp = self._client()
        try:
            with part.open("wb") as file:
                sftp.getfo(source, file)
            part.replace(destination)
        except (OSError, EOFError, paramiko.SSHException) as error:
            if _is_lost(sftp, error):
                self.close()
            where = f"{self.address}:{source}"
            raise FarmError(f"cannot copy {where} to {destination}: {_words(error)}") from error
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """End every process that was opened and close the connection; never raises."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        if self._sftp is not None:
            self._sftp.close()
            self._sftp = None
        disconnect(self._connections)
        self._connections = []

    def _what(self, argv: Sequence[str]) -> str:
        return f"{PurePosixPath(argv[0]).name} on {self.address}"

    def _command(self, argv: Sequence[str]) -> str:
        return shlex.join([*(("env", *self._environment) if self._environment else ()), *argv])

    def _start(self, command: str) -> paramiko.Channel:
        try:
            session = self._session()
            session.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ChannelClosed(f"{self.address}: no command could be started: {_words(error)}") from error
        return session

    def _session(self) -> paramiko.Channel:
        """Open a session; once more where the connection proves to be lost: it looks alive for a moment after."""
        self.connect()
        transport: paramiko.Transport = self._connections[-1].transport
        try:
            return transport.open_session(timeout=self._connect_timeout_s)
        except (paramiko.SSHException, OSError, EOFError):
            if transport.is_active():
                raise
        self.close()
        self.connect()
        transport = self._connections[-1].transport
        return transport.open_session(timeout=self._connect_timeout_s)

    def _client(self) -> paramiko.SFTPClient:
        self.connect()
        if self._sftp is None or _is_closed(self._sftp):
            try:
                self._sftp = self._connections[-1].client.open_sftp()
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise FarmError(
                    f"{self.address}: no SFTP ({_words(error)}): install it there, e.g. "
                    "sudo apt-get install openssh-sftp-server"
                ) from error
            channel = self._sftp.get_channel()
            if channel is not None:
                channel.settimeout(SFTP_STALL_S)
        return self._sftp

    def _make_folder(self, folder: str) -> None:
        made = self.run(["mkdir", "-p", "--", folder], _DIAGNOSIS_S)
        if made.returncode:
            raise OSError(made.stderr.strip() or f"cannot make {folder}")

    def _push_cause(self, sftp: paramiko.SFTPClient, part: str, folder: str, size: int, error: Exception) -> str:
        """Remove what was written and say why a copy failed; SFTP itself says only `Failure`."""
        if _is_lost(sftp, error):
            self.close()
            return f"the connection was lost or stalled ({_words(error)})"
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            sftp.remove(part)
        if isinstance(error, OSError) and error.errno is not None:
            return _words(error)
        probe = 'df -Pk -- "$1" | tail -n 1; : > "$2" && rm -f -- "$2"'
        try:
            done = self.run(["sh", "-c", probe, "sh", folder, part], _DIAGNOSIS_S)
        except FarmError:
            return _words(error)
        if done.returncode:
            return f"{done.stderr.strip()} ({_words(error)})"
        fields = done.stdout.split()
        if len(fields) > 3 and fields[3].isdigit() and int(fields[3]) * 1024 < size:
            return f"the disk is full: {fields[3]} kB free in {folder}, {size // 1024 + 1} kB needed"
        return _words(error)


def _is_closed(sftp: paramiko.SFTPClient) -> bool:
    channel = sftp.get_channel()
    return channel is None or channel.closed


def _is_lost(sftp: paramiko.SFTPClient, error: Exception) -> bool:
    """Say whether the connection failed, and not a file."""
    return _is_closed(sftp) or isinstance(error, TimeoutError | EOFError | paramiko.SSHException)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


if TYPE_CHECKING:
    from device_farm.transport import Channel, Transport

    _transport: Transport = SSHTransport(BoardEntry(name="a", kind="b"))
    _channel: Channel = _transport.open([])
