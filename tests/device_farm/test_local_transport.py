from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_farm import local
from device_farm.errors import ChannelClosed
from device_farm.local import LocalTransport, push_failed
from tests.contracts.transport_contract import TransportContract


@pytest.fixture
def transport() -> Iterator[LocalTransport]:
    transport = LocalTransport()
    yield transport
    transport.close()


class TestLocalTransport(TransportContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        return str(tmp_path / "board")


def test_a_missing_program_cannot_be_opened(transport: LocalTransport) -> None:
    with pytest.raises(ChannelClosed, match="cannot start no-such-program on local: No such file"):
        transport.open(["no-such-program"])


def test_the_end_names_the_exit_code(transport: LocalTransport) -> None:
    channel = transport.open(["sh", "-c", "exit 9"])
    with pytest.raises(ChannelClosed, match="sh on local ended with exit code 9"):
        channel.receive(10)


def test_close_kills_a_process_that_ignores_everything(
        transport: LocalTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "CLOSE_S", 0.2)
    monkeypatch.setattr(local, "TERMINATE_S", 0.2)
    channel = transport.open(["sh", "-c", "trap '' TERM HUP INT; echo $$; while :; do sleep 0.1; done"])
    pid = int(channel.receive(10))
    started = time.monotonic()
    channel.close()
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(("number", "words"), [
    (errno.ENOSPC, "the disk is full"), (errno.EROFS, "the file system is read-only"),
    (errno.EDQUOT, "the disk quota is used up"), (errno.EACCES, "permission denied"),
    (errno.EISDIR, "Is a directory")])
def test_the_cause_of_a_failed_push_is_named(number: int, words: str) -> None:
    error = push_failed(Path("a.tflite"), "local:/there", OSError(number, os.strerror(number)))
    assert str(error) == f"cannot push a.tflite to local:/there: {words}"


def test_a_push_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """The kernel stops the copy at 100,000 bytes, as a full disk would."""
    source = tmp_path / "big"
    source.write_bytes(b"x" * 1_000_000)
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from device_farm.local import LocalTransport\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "LocalTransport().push(Path(sys.argv[1]), sys.argv[2])\n")
    done = subprocess.run([sys.executable, "-c", script, str(source), str(tmp_path / "there" / "big")],
                          cwd=Path(local.__file__).parents[1], capture_output=True, text=True, check=False)
    assert "device_farm.errors.PushFailed" in done.stderr
    assert "File too large" in done.stderr
    assert list((tmp_path / "there").iterdir()) == []
