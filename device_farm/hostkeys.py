"""Host keys: what the inventory pins, and how a board shows its own."""

from __future__ import annotations

import base64
import binascii
import hashlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_farm.errors import BoardUnreachable

if TYPE_CHECKING:
    import paramiko

HOST_KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)

Tunnel = Callable[[str, int], "paramiko.Channel"]
"""Opens a connection to a host and port as seen from another machine."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public host key."""

    type: str
    base64: str

    @property
    def blob(self) -> bytes:
        """Return the key's bytes."""
        return base64.b64decode(self.base64)

    @property
    def fingerprint(self) -> str:
        """Return `SHA256:...`, as `ssh-keygen -l` prints it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.type} {self.base64}"


def parse_host_key(text: str) -> HostKey:
    """Read `ssh-ed25519 AAAA...` (a comment may follow). Raises ValueError that says what to write."""
    remedy = "write the whole public key, 'ssh-ed25519 AAAA...' (there: /etc/ssh/ssh_host_ed25519_key.pub)"
    words = text.split()
    if len(words) < 2:
        raise ValueError(f"expected a type and a key, got {text!r}; {remedy}")
    kind, encoded = words[:2]
    if kind not in HOST_KEY_TYPES:
        raise ValueError(f"expected one of the types {', '.join(HOST_KEY_TYPES)}, got {kind!r}; {remedy}")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the key is not base64 ({error}); {remedy}") from error
    length = int.from_bytes(blob[:4], "big")
    if len(blob) <= 4 + length or blob[4 : 4 + length] != kind.encode():
        raise ValueError(f"the key is cut short or not of type {kind}; {remedy}")
    return HostKey(kind, encoded)


def scan_host_key(host: str, port: int, timeout_s: float, via: Tunnel | None = None) -> HostKey:
    """Return the key that a board shows, without logging in: the user must confirm it before it is pinned.

    Args:
        host: Name or address.
        port: TCP port.
        timeout_s: Seconds for the connection, and again for the key exchange.
        via: Opens the connection from another machine (a jump host).

    Raises:
        BoardUnreachable: No connection, or no SSH server behind it.
    """
    import paramiko

    address = f"{host}:{port}"
    try:
        sock = via(host, port) if via else socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise BoardUnreachable(f"{address}: no connection: {error}; is it on, the address right?") from error
    try:
        transport = paramiko.Transport(sock)
        try:
            transport.set_log_channel("device_farm.paramiko")
            transport.banner_timeout = timeout_s
            transport.start_client(timeout=timeout_s)
            key = transport.get_remote_server_key()
        finally:
            transport.close()
    except (paramiko.SSHException, EOFError, OSError) as error:
        reason = str(error) or "it hung up"
        raise BoardUnreachable(f"{address}: answers, but not as an SSH server: {reason}") from error
    finally:
        sock.close()
    return HostKey(key.get_name(), key.get_base64())
