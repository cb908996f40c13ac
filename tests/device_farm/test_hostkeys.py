from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_farm.errors import BoardUnreachable, HostKeyMismatch
from device_farm.hostkeys import HOST_KEY_TYPES, HostKey, parse_host_key, scan_host_key
from device_farm.ssh_connect import scan_behind
from tests.sshd import Sshd, fingerprint, free_port, new_key, running_sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_fingerprint_is_that_of_ssh_keygen(tmp_path: Path, kind: str) -> None:
    key = parse_host_key(new_key(tmp_path / "key", kind=kind))
    assert key.fingerprint == fingerprint(tmp_path / "key.pub")
    assert key.type in HOST_KEY_TYPES


def test_a_comment_is_left_out(sshd: Sshd) -> None:
    assert str(parse_host_key(f"  {sshd.host_key}   root@pi \n")) == sshd.host_key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a type and a key, got ''"),
        ("ssh-ed25519", "expected a type and a key, got 'ssh-ed25519'"),
        ("SHA256:abc= there", "expected one of the types ssh-ed25519, ecdsa-sha2-nistp256"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "expected one of the types .*, got 'ssh-dss'"),
        ("ssh-ed25519 not-base64!", "the key is not base64"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "the key is cut short or not of type ssh-ed25519"),
        ("ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q", "not of type ssh-rsa"),
        ("ssh-ed25519 AAAA", "the key is cut short"),
    ],
)
def test_what_is_no_key_is_refused_with_the_remedy(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"{words}.*; write the whole public key, 'ssh-ed25519 AAAA"):
        parse_host_key(text)


class TestScanning:
    def test_the_key_is_the_servers(self, sshd: Sshd) -> None:
        assert str(scan_host_key("127.0.0.1", sshd.port, 10)) == sshd.host_key

    def test_the_key_behind_a_jump_host_is_seen_from_there(self, sshd: Sshd, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "jump") as jump:
            seen = [jump.hop()]
            key = scan_behind("pi", seen, "127.0.0.1", sshd.port, 10)
            assert scan_behind("pi", [], "127.0.0.1", sshd.port, 10) == key
            with pytest.raises(BoardUnreachable, match=rf"the jump host .*:{jump.port} cannot reach it"):
                scan_behind("pi", seen, "127.0.0.1", free_port(), 10)
            wrong = seen[0].model_copy(update={"host_key": sshd.host_key})
            with pytest.raises(HostKeyMismatch, match=rf"add --replace --jump \S+:{jump.port} pi$"):
                scan_behind("pi", [wrong], "127.0.0.1", sshd.port, 10)
        assert key == HostKey(*sshd.host_key.split())
        with pytest.raises(BoardUnreachable, match="connection refused"):
            scan_behind("pi", seen, "127.0.0.1", sshd.port, 10)

    def test_a_refused_connection_says_so(self) -> None:
        port = free_port()
        with pytest.raises(BoardUnreachable, match=f"127.0.0.1:{port}: no connection: .*refused"):
            scan_host_key("127.0.0.1", port, 10)

    def test_silence_ends_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            started = time.monotonic()
            with pytest.raises(BoardUnreachable, match="answers, but not as an SSH server"):
                scan_host_key("127.0.0.1", server.getsockname()[1], 0.5)
            assert time.monotonic() - started < 10
