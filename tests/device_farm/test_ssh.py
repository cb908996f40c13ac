from __future__ import annotations

import hashlib
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import fabric
import pytest

from device_farm import ssh
from device_farm.board_entry import BoardEntry
from device_farm.errors import (
    AuthenticationFailed,
    BoardUnreachable,
    ChannelClosed,
    ChannelStalled,
    HostKeyMismatch,
    PushFailed,
)
from device_farm.ssh import SSHTransport
from tests.contracts.transport_contract import WAIT_S, TransportContract
from tests.sshd import Sshd, fingerprint, free_port, new_key, running_sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def transport(sshd: Sshd) -> Iterator[SSHTransport]:
    transport = SSHTransport(sshd.entry())
    yield transport
    transport.close()


def failing(entry: BoardEntry, timeout_s: float = 10.0) -> None:
    """Connect; the caller expects an error."""
    transport = SSHTransport(entry, connect_timeout_s=timeout_s)
    try:
        transport.connect()
    finally:
        transport.close()


class TestSSHTransport(TransportContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        return str(tmp_path / "board")


class TestConnecting:
    def test_a_wrong_host_key_is_refused_and_both_are_named(self, sshd: Sshd, tmp_path: Path) -> None:
        pinned = new_key(tmp_path / "other")
        with pytest.raises(HostKeyMismatch) as caught:
            failing(sshd.entry("pi", host_key=pinned))
        message = str(caught.value)
        assert f"expected the pinned host key {fingerprint(tmp_path / 'other.pub')}" in message
        assert f"got {fingerprint(sshd.root.parent / 'host.pub')}" in message
        assert "devices add --replace pi" in message

    def test_a_pinned_key_of_another_type_is_refused_too(self, sshd: Sshd, tmp_path: Path) -> None:
        pinned = new_key(tmp_path / "other", kind="ecdsa")
        with pytest.raises(HostKeyMismatch) as caught:
            failing(sshd.entry("pi", host_key=pinned))
        assert fingerprint(tmp_path / "other.pub") in str(caught.value)
        assert fingerprint(sshd.root.parent / "host.pub") in str(caught.value)

    def test_a_refused_connection_says_so(self, sshd: Sshd) -> None:
        port = free_port()
        with pytest.raises(BoardUnreachable, match=f"127.0.0.1:{port}: connection refused: does an SSH server run"):
            failing(sshd.entry(port=port))

    def test_an_unknown_name_says_so(self, sshd: Sshd) -> None:
        with pytest.raises(BoardUnreachable, match=r"no-such-board\.invalid:\d+: no such host"):
            failing(sshd.entry(host="no-such-board.invalid"))

    def test_a_server_that_says_nothing_is_unreachable(self, sshd: Sshd) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            started = time.monotonic()
            with pytest.raises(BoardUnreachable, match="not as an SSH server"):
                failing(sshd.entry(port=server.getsockname()[1]), 0.5)
            assert time.monotonic() - started < 5

    def test_a_wrong_user_key_names_the_key_and_the_remedy(self, sshd: Sshd, tmp_path: Path) -> None:
        new_key(tmp_path / "stranger")
        with pytest.raises(AuthenticationFailed) as caught:
            failing(sshd.entry(identity_file=str(tmp_path / "stranger")))
        assert f"refuses user {sshd.user!r}; keys tried: {tmp_path}/stranger (identity_file)" in str(caught.value)
        assert f"ssh-copy-id -i {tmp_path}/stranger -p {sshd.port} {sshd.user}@127.0.0.1" in str(caught.value)

    def test_a_key_with_a_passphrase_needs_the_agent(self, sshd: Sshd, tmp_path: Path) -> None:
        new_key(tmp_path / "locked", locked_by="open sesame")
        with pytest.raises(AuthenticationFailed, match="needs a passphrase: run 'ssh-add"):
            failing(sshd.entry(identity_file=str(tmp_path / "locked")))

    def test_a_missing_key_file_is_named(self, sshd: Sshd, tmp_path: Path) -> None:
        with pytest.raises(AuthenticationFailed, match="nowhere cannot be read"):
            failing(sshd.entry(identity_file=str(tmp_path / "nowhere")))

    def test_small_packets_are_not_held_back(self, transport: SSHTransport) -> None:
        """With Nagle's algorithm on, every command waits 40 ms for a delayed acknowledgement."""
        transport.connect()
        sock = transport._connections[-1].transport.sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    def test_the_environment_reaches_every_command(self, sshd: Sshd) -> None:
        transport = SSHTransport(sshd.entry(env={"BOARD_COLOUR": "two words"}))
        assert transport.run(["sh", "-c", "echo $BOARD_COLOUR"], WAIT_S).stdout == "two words\n"
        channel = transport.open(["sh", "-c", "echo $BOARD_COLOUR"])
        assert channel.receive(WAIT_S) == b"two words"
        transport.close()


class TestLosses:
    def test_a_killed_session_closes_the_channel_and_the_next_call_connects_again(
        self, sshd: Sshd, transport: SSHTransport
    ) -> None:
        channel = transport.open(["cat"])
        channel.send(b"alive")
        assert channel.receive(WAIT_S) == b"alive"
        sshd.kill_sessions()
        with pytest.raises(ChannelClosed, match="cat on .*: the connection was lost"):
            channel.receive(WAIT_S)
        assert transport.run(["echo", "back"], WAIT_S).stdout == "back\n"

    def test_a_connection_that_is_lost_after_the_end_of_the_output_is_lost(
        self, sshd: Sshd, transport: SSHTransport
    ) -> None:
        channel = transport.open(["sh", "-c", "exec >&- 2>&-; sleep 60"])
        give_up = time.monotonic() + WAIT_S
        while not channel._session.eof_received:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        sshd.kill_sessions()
        with pytest.raises(ChannelClosed, match="the connection was lost"):
            channel.receive(WAIT_S)

    def test_a_connection_that_looks_alive_but_is_lost_is_made_again(
        self, sshd: Sshd, transport: SSHTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        transport.connect()
        lost = transport._connections[-1].transport
        sshd.kill_sessions()
        lost.join(WAIT_S)
        assert not lost.is_active()
        looks = [True]  # once
        real = fabric.Connection.is_connected.fget
        monkeypatch.setattr(fabric.Connection, "is_connected",
                            property(lambda connection: looks.pop() if looks else real(connection)))
        assert transport.run(["echo", "back"], WAIT_S).stdout == "back\n"
        assert not looks

    def test_a_killed_session_ends_a_command_that_runs(self, sshd: Sshd, transport: SSHTransport) -> None:
        transport.connect()
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {' '.join(map(str, sshd.sessions()))}"])
        started = time.monotonic()
        with pytest.raises(ChannelClosed, match="the connection was lost"):
            transport.run(["sleep", "60"], 60)
        assert time.monotonic() - started < 20
        killer.wait()

    def test_a_command_that_a_signal_ends_is_not_a_lost_connection(self, transport: SSHTransport) -> None:
        assert transport.run(["sh", "-c", "kill -KILL $$"], WAIT_S).returncode == 137
        channel = transport.open(["sh", "-c", "kill -SEGV $$"])
        with pytest.raises(ChannelClosed, match="by a signal"):
            channel.receive(WAIT_S)

    def test_a_session_that_stalls_is_told_apart_from_one_that_ended(self, sshd: Sshd, transport: SSHTransport) -> None:
        channel = transport.open(["cat"])
        with sshd.stalled():
            channel.send(b"late")
            with pytest.raises(ChannelStalled, match=r"no line came within 0\.3 s"):
                channel.receive(0.3)
        assert channel.receive(WAIT_S) == b"late"

    def test_a_push_that_stalls_fails_and_leaves_nothing_under_its_name(
        self, sshd: Sshd, transport: SSHTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ssh, "SFTP_STALL_S", 0.5)
        source = tmp_path / "model"
        source.write_bytes(secrets.token_bytes(200_000))
        transport.push(source, str(tmp_path / "before"))
        with sshd.stalled(), pytest.raises(PushFailed, match="the connection was lost or stalled"):
            transport.push(source, str(tmp_path / "there"))
        assert not (tmp_path / "there").exists()
        transport.push(source, str(tmp_path / "there"))
        assert (tmp_path / "there").read_bytes() == source.read_bytes()


class TestFiles:
    def test_ten_megabytes_arrive_whole(self, transport: SSHTransport, tmp_path: Path) -> None:
        source = tmp_path / "model"
        source.write_bytes(secrets.token_bytes(10_000_000))
        transport.push(source, str(tmp_path / "there"))
        done = transport.run(["sha256sum", str(tmp_path / "there")], WAIT_S)
        assert done.stdout.split()[0] == hashlib.sha256(source.read_bytes()).hexdigest()

    def test_a_full_disk_is_named_and_nothing_is_left(self, tmp_path: Path) -> None:
        source = tmp_path / "model"
        source.write_bytes(secrets.token_bytes(4_000_000))
        with running_sshd(tmp_path / "sshd", mounts='mount -t tmpfs -o size=1m tmpfs "$root"') as server:
            transport = SSHTransport(server.entry())
            there = f"{server.root}/artifacts/model"
            transport.run(["mkdir", "-p", f"{server.root}/artifacts"], WAIT_S)
            with pytest.raises(PushFailed, match=r"the disk is full: \d+ kB free in .*/artifacts, 3907 kB needed"):
                transport.push(source, there)
            assert transport.run(["ls", "-A", f"{server.root}/artifacts"], WAIT_S).stdout == ""
            source.write_bytes(b"small")
            transport.push(source, there)
            assert transport.run(["cat", there], WAIT_S).stdout == "small"
            # To the last byte: then a file of a single packet fails, too, and the old one stays.
            transport.run(["sh", "-c", 'cat /dev/zero > "$1"', "sh", f"{server.root}/rest"], WAIT_S)
            source.write_bytes(secrets.token_bytes(20_000))
            with pytest.raises(PushFailed, match="the disk is full: 0 kB free"):
                transport.push(source, there)
            assert transport.run(["cat", there], WAIT_S).stdout == "small"
            assert transport.run(["ls", "-A", f"{server.root}/artifacts"], WAIT_S).stdout == "model\n"
            transport.close()

    def test_a_read_only_folder_is_named(self, tmp_path: Path) -> None:
        source = tmp_path / "model"
        source.write_bytes(b"small")
        with running_sshd(tmp_path / "sshd", mounts='mount -t tmpfs -o ro tmpfs "$root"') as server:
            transport = SSHTransport(server.entry())
            for there in (f"{server.root}/model", f"{server.root}/artifacts/model"):
                with pytest.raises(PushFailed, match="Read-only file system"):
                    transport.push(source, there)
            transport.close()


class TestJump:
    def test_a_board_behind_a_jump_host_is_reached_through_it(self, sshd: Sshd, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "jump") as jump:
            assert jump.sessions() == []
            transport = SSHTransport(sshd.entry(jump=[jump.hop().model_dump()]))
            assert transport.run(["echo", "there"], WAIT_S).stdout == "there\n"
            assert jump.sessions() != []
            source = tmp_path / "model"
            source.write_bytes(secrets.token_bytes(300_000))
            transport.push(source, str(tmp_path / "copy"))
            assert (tmp_path / "copy").read_bytes() == source.read_bytes()
            channel = transport.open(["cat"])
            jump.kill_sessions()
            with pytest.raises(ChannelClosed):
                channel.receive(WAIT_S)
            assert transport.run(["echo", "again"], WAIT_S).stdout == "again\n"
            transport.close()

    def test_the_jump_hosts_key_is_pinned_too(self, sshd: Sshd, tmp_path: Path) -> None:
        pinned = new_key(tmp_path / "other")
        with running_sshd(tmp_path / "jump") as jump:
            hop = {**jump.hop().model_dump(), "host_key": pinned}
            with pytest.raises(HostKeyMismatch) as caught:
                failing(sshd.entry("pi", jump=[hop]))
        assert f"127.0.0.1:{jump.port}: expected the pinned host key" in str(caught.value)
        assert str(caught.value).endswith(
            f"orchestrator devices add --replace --jump {jump.user}@127.0.0.1:{jump.port} pi"
        )

    def test_a_jump_host_that_is_not_there_is_named(self, sshd: Sshd) -> None:
        hop = {**sshd.hop().model_dump(), "port": free_port()}
        with pytest.raises(BoardUnreachable, match=rf"the jump host of pi: .*:{hop['port']}: connection refused"):
            SSHTransport(sshd.entry("pi", jump=[hop])).connect()

    def test_a_key_that_others_can_read_is_refused(self, sshd: Sshd, tmp_path: Path) -> None:
        key = tmp_path / "key"
        key.write_bytes(sshd.identity_file.read_bytes())
        key.chmod(0o644)
        with pytest.raises(AuthenticationFailed, match=rf"can be read by others \(its mode is 0644\): chmod 600 {key}"):
            SSHTransport(sshd.entry("pi", identity_file=str(key))).connect()
        key.chmod(0o600)
        transport = SSHTransport(sshd.entry("pi", identity_file=str(key)))
        transport.connect()
        transport.close()

    def test_the_key_behind_the_jump_host_is_checked(self, sshd: Sshd, tmp_path: Path) -> None:
        pinned = new_key(tmp_path / "other")
        with running_sshd(tmp_path / "jump") as jump:
            entry = sshd.entry(jump=[jump.hop().model_dump()], host_key=pinned)
            with pytest.raises(HostKeyMismatch, match=rf":{sshd.port} \(through 127.0.0.1\): expected the pinned"):
                failing(entry)

    def test_a_board_that_the_jump_host_cannot_reach(self, sshd: Sshd, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "jump") as jump:
            entry = sshd.entry(jump=[jump.hop().model_dump()], port=free_port())
            with pytest.raises(BoardUnreachable, match="the jump host cannot reach it"):
                failing(entry)
