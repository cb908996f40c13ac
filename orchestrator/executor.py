"""Host work in worker processes that may die: the pool is rebuilt and the work resubmitted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from orchestrator.scratch import Scratch
from search.errors import InfeasibleCandidate

T = TypeVar("T")
RESUBMITS = 3
log = logging.getLogger(__name__)


class WorkerDied(InfeasibleCandidate):
    """A task whose worker died every time: one infeasible candidate, not a failed study."""


class HostPool:
    """A `concurrent.futures`-style pool of spawned processes.

    When a worker dies, Python's pool fails every pending future, and nobody knows whose fault it was.
    Here the pool is made anew, and each of these tasks is submitted again, at most three times, one
    after the other in a process of its own: a task that kills its worker kills no other, and gets
    `WorkerDied`. Temporary files of workers go with the pool.

    Args:
        workers: number of processes.
        log_file: where everything goes that workers (and libraries in them) print.
    """

    def __init__(self, workers: int, log_file: Path) -> None:
        self._workers = workers
        self._log_file = log_file
        self._scratch = Scratch()
        self._lock = threading.Lock()
        self._one_by_one = threading.Lock()
        self._closed = False
        self._died = False
        self._busy = 0
        self._pool = self._make(workers)
        self._single: ProcessPoolExecutor | None = None

    def submit(self, task: Callable[..., T], *args: Any) -> Future[T]:
        """Run `task(*args)` in a worker; all must pickle. After `shutdown` the future is cancelled."""
        outer: Future[T] = Future()
        with self._lock:
            if self._closed:
                _cancel(outer)
                return outer
            try:
                inner = self._pool.submit(task, *args)
            except BrokenProcessPool:
                self._pool = self._make(self._workers)
                inner = self._pool.submit(task, *args)
            self._busy += 1
        inner.add_done_callback(lambda done: self._finish(outer, done, task, args))
        return outer

    def shutdown(self) -> None:
        """Cancel what is not finished, end the workers, and remove their temporary files and an empty log."""
        with self._lock:
            self._closed = True
            if self._busy:
                _terminate(self._pool)
            if self._single is not None:
                _terminate(self._single)
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._one_by_one:
            self._scratch.close()
        if not self._died and self._log_file.is_file() and self._log_file.stat().st_size == 0:
            self._log_file.unlink()

    def _make(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"),
                                   initializer=_start_worker, initargs=(str(self._log_file), str(self._scratch.path)))

    def _finish(self, outer: Future[T], inner: Future[T], task: Callable[..., T], args: tuple[Any, ...]) -> None:
        with self._lock:
            self._busy -= 1
            closed = self._closed
        if inner.cancelled() or not isinstance(inner.exception(), BrokenProcessPool):
            _copy(inner, outer)
        elif closed:
            _cancel(outer)
        else:
            threading.Thread(target=self._again, args=(outer, task, args), daemon=True).start()

    def _again(self, outer: Future[T], task: Callable[..., T], args: tuple[Any, ...]) -> None:
        """Run a task, that was pending when a worker died, where it can harm only itself."""
        with self._one_by_one:
            for _ in range(RESUBMITS):
                with self._lock:
                    if self._closed:
                        _cancel(outer)
                        return
                    self._single = self._make(1)
                    log.warning("a worker process died; %s is tried again", getattr(task, "__name__", task))
                    inner = self._single.submit(task, *args)
                died = isinstance(inner.exception(), BrokenProcessPool)
                self._single.shutdown()
                if not died:
                    _copy(inner, outer)
                    return
        self._died = True  # the message names the log
        outer.set_exception(WorkerDied(f"its worker process died {RESUBMITS + 1} times (out of memory, or a crash in "
                                       f"a native library); see {self._log_file}"))


def _copy(inner: Future[T], outer: Future[T]) -> None:
    if inner.cancelled():
        _cancel(outer)
    elif (error := inner.exception()) is not None:
        outer.set_exception(error)
    else:
        outer.set_result(inner.result())


def _cancel(future: Future[T]) -> None:
    """Cancel a future and wake who waits for it."""
    future.cancel()
    future.set_running_or_notify_cancel()


def _terminate(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):  # noqa: SLF001 - terminate_workers needs Python 3.14
        process.terminate()


def _start_worker(log_file: str, scratch: str) -> None:
    """Send what libraries print to the log, keep them single-threaded, ignore Ctrl-C (the parent ends us)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed worker would leave
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def _end_with_parent() -> None:
    """End this process when the controller is gone: workers hold both ends of their queues, and would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
