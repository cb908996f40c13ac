"""Worker processes that really die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest

from orchestrator.executor import RESUBMITS, HostPool, WorkerDied
from search.errors import InfeasibleCandidate
from tests.orchestrator import tasks
from tests.orchestrator.processes import end_family, family, marked, wait_until_gone

LONG_S = 60.0


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[HostPool]:
    pool = HostPool(2, tmp_path / "log")
    yield pool
    pool.shutdown()
    assert not multiprocessing.active_children()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_in(folder: Path, count: int) -> list[int]:
    """Wait until `count` tasks have said who works on them."""
    deadline = time.monotonic() + LONG_S
    while len(found := list(folder.glob("pid-*"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.name.split("-")[1]) for path in found]


def test_results_and_reasons_come_home(pool: HostPool) -> None:
    futures = [pool.submit(tasks.square, number) for number in range(10)]
    refused = pool.submit(tasks.refuse, "too large")
    assert [future.result(LONG_S) for future in futures] == [n * n for n in range(10)]
    with pytest.raises(InfeasibleCandidate, match="^too large$") as caught:
        refused.result(LONG_S)
    assert caught.value.reason == "too large"
    assert pool.submit(tasks.worker_pid).result(LONG_S) != os.getpid()


def test_an_empty_log_goes_and_one_that_says_something_stays(tmp_path: Path) -> None:
    for name in ("quiet", "loud"):
        pool = HostPool(1, tmp_path / name)
        pool.submit(tasks.square, 3).result(LONG_S)
        assert (tmp_path / name).exists()
        if name == "loud":
            pool.submit(tasks.shout, "hear").result(LONG_S)
        pool.shutdown()
    assert [path.name for path in tmp_path.iterdir()] == ["loud"]


def test_a_worker_killed_under_way_costs_no_task(pool: HostPool, tmp_path: Path) -> None:
    futures = [pool.submit(tasks.note_pid, tmp_path, 0.3, number) for number in range(6)]
    os.kill(pids_in(tmp_path, 2)[0], signal.SIGKILL)
    assert [future.result(LONG_S) for future in futures] == list(range(6))
    assert pool.submit(tasks.square, 3).result(LONG_S) == 9


def test_a_task_that_kills_its_worker_once_is_tried_again(pool: HostPool, tmp_path: Path) -> None:
    assert pool.submit(tasks.die_once, tmp_path / "marker", 5).result(LONG_S) == 5


def test_a_task_that_always_kills_its_worker_fails_alone(pool: HostPool, tmp_path: Path) -> None:
    """The others take longer than the killer needs to break the pool again and again."""
    others = [pool.submit(tasks.slow_square, number, 0.5) for number in range(3)]
    killer = pool.submit(tasks.die, tmp_path / "tries")
    others += [pool.submit(tasks.slow_square, number, 0.5) for number in range(3, 6)]
    second = pool.submit(tasks.die, tmp_path / "more")
    assert [future.result(LONG_S) for future in others] == [n * n for n in range(6)]
    for guilty, count in ((killer, tmp_path / "tries"), (second, tmp_path / "more")):
        with pytest.raises(WorkerDied, match=r"died 4 times .*; see .*log"):
            guilty.result(LONG_S)
        assert len(count.read_text()) <= 1 + RESUBMITS
    assert isinstance(killer.exception(), InfeasibleCandidate)
    assert pool.submit(tasks.square, 4).result(LONG_S) == 16


def test_shutdown_of_an_idle_pool_leaves_no_process(tmp_path: Path) -> None:
    pool = HostPool(2, tmp_path / "log")
    pids = {pool.submit(tasks.worker_pid).result(LONG_S) for _ in range(8)}
    pool.shutdown()
    assert not any(alive(pid) for pid in pids)


def test_shutdown_while_busy_leaves_no_process_and_no_false_result(tmp_path: Path) -> None:
    pool = HostPool(2, tmp_path / "log")
    futures = [pool.submit(tasks.note_pid, tmp_path, 30.0, number) for number in range(5)]
    pids = pids_in(tmp_path, 2)
    started = time.monotonic()
    pool.shutdown()
    assert time.monotonic() - started < 10
    assert not any(alive(pid) for pid in pids)
    done, _ = wait(futures, timeout=5)
    assert done == set(futures)
    assert all(future.cancelled() for future in futures)
    assert pool.submit(tasks.square, 1).cancelled()


def test_shutdown_while_a_killer_is_tried_again(tmp_path: Path) -> None:
    pool = HostPool(1, tmp_path / "log")
    killer = pool.submit(tasks.die, tmp_path / "tries")
    deadline = time.monotonic() + LONG_S
    while not (tmp_path / "tries").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    pool.shutdown()
    assert wait([killer], timeout=10).done == {killer}
    deadline = time.monotonic() + 10
    while multiprocessing.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_workers_print_goes_to_the_log(
        tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pool = HostPool(1, tmp_path / "log")
    pool.submit(tasks.shout, "hear").result(LONG_S)
    pool.shutdown()
    assert {"hear", "hear native", "hear error"} <= set((tmp_path / "log").read_text().splitlines())
    assert "hear" not in "".join(capfd.readouterr())


def test_an_interrupt_is_the_controllers_business(pool: HostPool) -> None:
    future = pool.submit(tasks.interrupt_self)
    assert future.exception(LONG_S) is None
    assert future.result() == "still here"


def test_workers_and_their_files_do_not_outlive_a_killed_controller(tmp_path: Path) -> None:
    mark = str(tmp_path)
    controller = subprocess.Popen([sys.executable, "-m", "tests.orchestrator.tasks", str(tmp_path)], text=True,
                                  stdout=subprocess.PIPE, env=marked(mark), cwd=Path(__file__).parents[2])
    try:
        assert controller.stdout is not None
        scratch = Path(controller.stdout.readline().strip())
        assert len(family(mark)) >= 3
        assert list(scratch.iterdir())
        controller.kill()
        controller.wait()
        controller.stdout.close()
        assert wait_until_gone(mark, 10) == {}
    finally:
        controller.kill()
        end_family(mark)
    pool = HostPool(1, tmp_path / "log")
    mine = Path(pool.submit(tasks.leave_a_file).result(LONG_S))
    assert not scratch.exists()
    assert list(mine.iterdir())
    other = HostPool(1, tmp_path / "log")
    assert mine.exists()
    other.shutdown()
    pool.shutdown()
    assert not mine.exists()
