"""Connections to boards, hop by hop: every key pinned, every failure named."""

from __future__ import annotations

import logging
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fabric
import paramiko
from paramiko.pkey import UnknownKeyType

from device_farm.board_entry import Hop
from device_farm.errors import AuthenticationFailed, BoardUnreachable, FarmError, HostKeyMismatch
from device_farm.hostkeys import HostKey, parse_host_key, scan_host_key

KEEPALIVE_S = 15
LOG_CHANNEL = "device_farm.paramiko"
logging.getLogger(LOG_CHANNEL).addHandler(logging.NullHandler())  # its failures arrive as exceptions


def connect(
    name: str, hops: Sequence[Hop], timeout_s: float, *, jumps: Sequence[Hop] | None = None
) -> list[fabric.Connection]:
    """Connect through all hops; the last connection is the board's.

    Args:
        name: The board's name in the inventory, for messages.
        hops: Jump hosts, first to last, then the board.
        timeout_s: Seconds for each step of each hop: connection, banner, key exchange, login.
        jumps: Those of the hops that are no board, for messages. Default: all but the last.

    Raises:
        BoardUnreachable: Nothing answers, or not as an SSH server.
        HostKeyMismatch: A machine shows another key than the pinned one.
        AuthenticationFailed: A machine refuses the user or the key.
    """
    connections: list[fabric.Connection] = []
    jumps = hops[:-1] if jumps is None else jumps
    for hop in hops:
        renew = _renew(name, jumps if hop in jumps else ())
        try:
            connections.append(_connect(renew, hop, timeout_s, connections[-1] if connections else None))
        except FarmError as error:
            disconnect(connections)
            if hop in jumps:
                raise type(error)(f"the jump host of {name}: {error}") from error
            raise
    return connections


def disconnect(connections: Sequence[fabric.Connection]) -> None:
    """Close connections, the board's first; never raises."""
    for connection in reversed(connections):
        connection.close()
        connection.client.close()


def scan_behind(name: str, jumps: Sequence[Hop], host: str, port: int, timeout_s: float) -> HostKey:
    """Return the key that a machine behind jump hosts shows, without logging in there.

    Args:
        name: The board's name in the inventory, for messages.
        jumps: Jump hosts, first to last; their keys are pinned already. There may be none.
        host: Name or address of the machine as the last of them sees it.
        port: TCP port.
        timeout_s: Seconds for each step.

    Raises:
        FarmError: A jump host is not reached, or the machine is not, or is no SSH server.
    """
    if not jumps:
        return scan_host_key(host, port, timeout_s)
    connections = connect(name, jumps, timeout_s, jumps=jumps)

    def tunnel(host: str, port: int) -> paramiko.Channel:
        try:
            channel: paramiko.Channel = connections[-1].transport.open_channel(
                "direct-tcpip", (host, port), ("", 0), timeout=timeout_s
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise BoardUnreachable(
                f"{host}:{port}: the jump host {jumps[-1].address} cannot reach it: {error}"
            ) from error
        return channel

    try:
        return scan_host_key(host, port, timeout_s, tunnel)
    finally:
        disconnect(connections)


def _renew(name: str, jumps: Sequence[Hop]) -> str:
    """Return the command that pins a board's key anew, or its jump hosts' keys and its own."""
    return " ".join(["orchestrator devices add --replace", *(f"--jump {hop.address}" for hop in jumps), name])


def _connect(renew: str, hop: Hop, timeout_s: float, gateway: fabric.Connection | None) -> fabric.Connection:
    pinned = parse_host_key(hop.host_key)
    try:
        expected = paramiko.PKey.from_type_string(pinned.type, pinned.blob)
    except (ValueError, paramiko.SSHException, UnknownKeyType) as error:
        raise HostKeyMismatch(f"{hop.address}: the pinned host key cannot be read ({error}): {renew}") from error
    arguments: dict[str, Any] = {
        "banner_timeout": timeout_s,
        "auth_timeout": timeout_s,
        "channel_timeout": timeout_s,
        **_identity(hop),
    }
    if gateway is None:
        arguments["sock"] = _socket(hop, timeout_s)
    connection = fabric.Connection(
        hop.host,
        user=hop.user,
        port=hop.port,
        gateway=gateway,
        connect_timeout=timeout_s,
        connect_kwargs=arguments,
        # Neither ~/.ssh/config nor fabric's own files: what the inventory says is all there is.
        config=fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True),
    )
    client: paramiko.SSHClient = connection.client
    client.set_log_channel(LOG_CHANNEL)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    known = hop.host if hop.port == paramiko.config.SSH_PORT else f"[{hop.host}]:{hop.port}"
    client.get_host_keys().add(known, pinned.type, expected)
    try:
        connection.open()
        connection.transport.set_keepalive(KEEPALIVE_S)
        return connection
    except (paramiko.SSHException, EOFError, OSError) as error:
        client.close()
        if "sock" in arguments:
            arguments["sock"].close()
        raise _failure(renew, hop, pinned, gateway, error) from error


def _socket(hop: Hop, timeout_s: float) -> socket.socket:
    try:
        sock = socket.create_connection((hop.host, hop.port), timeout=timeout_s)
    except socket.gaierror as error:
        raise BoardUnreachable(f"{hop.address}: no such host ({error.strerror}): check 'host'") from error
    except TimeoutError as error:
        raise BoardUnreachable(
            f"{hop.address}: no answer within {timeout_s:g} s: is it on, and on this network?"
        ) from error
    except ConnectionRefusedError as error:
        raise BoardUnreachable(
            f"{hop.address}: connection refused: does an SSH server run there (sudo systemctl status ssh)?"
        ) from error
    except OSError as error:
        raise BoardUnreachable(f"{hop.address}: no connection: {error.strerror or error}") from error
    # paramiko leaves Nagle's algorithm on: a command would then wait 40 ms for the board's delayed answer.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _identity(hop: Hop) -> dict[str, Any]:
    if hop.identity_file is None:
        return {"allow_agent": True, "look_for_keys": True}
    path = Path(hop.identity_file).expanduser()
    _refuse_open(hop, path)
    try:
        key = paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError) as error:  # the latter for OpenSSH's format
        raise AuthenticationFailed(
            f"{hop.address}: the key {path} needs a passphrase: run 'ssh-add {path}' and remove "
            "identity_file from the inventory"
        ) from error
    except (OSError, ValueError, paramiko.SSHException, UnknownKeyType) as error:
        raise AuthenticationFailed(f"{hop.address}: the key {path} cannot be read: {error}") from error
    return {"pkey": key, "allow_agent": False, "look_for_keys": False}


def _refuse_open(hop: Hop, path: Path) -> None:
    """Refuse a private key that others can read, as OpenSSH does. Raises AuthenticationFailed."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # reading it says why
    if mode & 0o077:
        raise AuthenticationFailed(f"{hop.address}: the key {path} can be read by others (its mode is {mode:04o}): "
                                   f"chmod 600 {path}")


def _failure(renew: str, hop: Hop, pinned: HostKey, gateway: fabric.Connection | None, error: Exception) -> FarmError:
    through = f" (through {gateway.host})" if gateway else ""
    where = f"{hop.address}{through}"
    if isinstance(error, paramiko.BadHostKeyException):
        got = HostKey(error.key.get_name(), error.key.get_base64())
        return HostKeyMismatch(
            f"{where}: expected the pinned host key {pinned.fingerprint} ({pinned.type}), "
            f"got {got.fingerprint} ({got.type}): the board was installed anew, or it is another machine. "
            "Compare there: ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub. "
            f"If it is right: {renew}"
        )
    if isinstance(error, paramiko.AuthenticationException) and "timeout" not in str(error).lower():
        return _refused(where, hop)
    if isinstance(error, paramiko.ChannelException):
        return BoardUnreachable(f"{where}: the jump host cannot reach it: {error.text}")
    if type(error) is paramiko.SSHException and "authentication methods" in str(error):
        return _refused(where, hop)
    reason = str(error) or "it hung up"
    return BoardUnreachable(f"{where}: answers, but not as an SSH server that suits: {reason}")


def _refused(where: str, hop: Hop) -> AuthenticationFailed:
    if hop.identity_file is not None:
        tried = [f"{hop.identity_file} (identity_file)"]
        public = f"-i {hop.identity_file} "
    else:
        agent = paramiko.Agent()
        tried = [f"{key.fingerprint} (SSH agent)" for key in agent.get_keys()]
        agent.close()
        files = [Path(f"~/.ssh/id_{kind}").expanduser() for kind in ("rsa", "ecdsa", "ed25519")]
        tried += [str(path) for path in files if path.is_file()]
        public = ""
    return AuthenticationFailed(
        f"{where}: refuses user {hop.user!r}; keys tried: {', '.join(tried) or 'none found'}. "
        f"Allow one there: ssh-copy-id {public}-p {hop.port} {hop.user}@{hop.host}"
    )
