"""The lock on a board: one controller at a time, and a lease that was taken over measures no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from profilers.agent.lock import BoardLock
from profilers.agent.protocol import LOCK_HELD, OLD_TOKEN, Refusal

HOLDER = """
import sys, time
from profilers.agent.lock import BoardLock
lock = BoardLock(sys.argv[1])
lock.acquire(int(sys.argv[2]), "the first", sys.argv[3])
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def holder(path: Path, token: int, series: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that takes the lock and keeps it."""
    words = [sys.executable, "-c", HOLDER, str(path), str(token), series]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_newer_token_of_the_series_ends_who_has_an_older_one(tmp_path: Path, stopped: bool) -> None:
    lock = BoardLock(str(tmp_path / "lock"))
    with holder(tmp_path / "lock", 5, "store/board") as child:
        if stopped:
            child.send_signal(signal.SIGSTOP)
        lock.acquire(6, "the second", "store/board")
        assert child.wait(10) == -signal.SIGKILL
    assert lock.held
    assert json.loads((tmp_path / "lock").read_text())["owner"] == "the second"
    lock.release()
    with pytest.raises(Refusal, match="token 5 of the first is older than 6") as refused:
        BoardLock(str(tmp_path / "lock")).acquire(5, "the first", "store/board")
    assert refused.value.code == OLD_TOKEN


@pytest.mark.parametrize(("token", "series"), [(6, "another/board"), (9, "another/board")])
def test_nobody_else_does(tmp_path: Path, token: int, series: str) -> None:
    """Another store's, however great: its tokens do not compare."""
    with holder(tmp_path / "lock", 5, "store/board") as child:
        with pytest.raises(Refusal, match="held by the first with token 5") as refused:
            BoardLock(str(tmp_path / "lock")).acquire(token, "the second", series)
        assert refused.value.code == LOCK_HELD
        assert child.poll() is None


def test_the_number_of_a_process_that_does_not_hold_the_lock_is_left_alone(tmp_path: Path) -> None:
    """The file may name a process that ended, whose number another has by now."""
    with holder(tmp_path / "lock", 5, "s") as child, subprocess.Popen(["sleep", "60"]) as other:
        try:
            (tmp_path / "lock").write_text(json.dumps({"owner": "x", "token": 5, "series": "s", "pid": other.pid}))
            with pytest.raises(Refusal, match="held by x"):
                BoardLock(str(tmp_path / "lock")).acquire(6, "the second", "s")
            time.sleep(0.2)
            assert (child.poll(), other.poll()) == (None, None)
        finally:
            other.kill()
