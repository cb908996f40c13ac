"""Host work in worker processes that may die: the pool is rebuilt and the work resubmitted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from search.errors import InfeasibleCandidate

T = TypeVar("T")
RESUBMITS = 3
log = logging.getLogger(__name__)


class WorkerDied(InfeasibleCandidate):
    """A task whose worker died every time: one infeasible candidate, not a failed study."""


class HostPool:
    """A `concurrent.futures`-style pool of spawned processes.

    When a worker dies, Python's pool fails every pending future; here the pool is made anew and each
    task submitted again, at most three times; a task that still kills its worker gets `WorkerDied`.

    Args:
        workers: number of processes.
        log_file: where everything goes that workers (and libraries in them) print.
    """

    def __init__(self, workers: int, log_file: Path) -> None:
        self._workers = workers
        self._log_file = log_file
        self._lock = threading.Lock()
        self._closed = False
        self._busy = 0
        self._pool = self._make()

    def submit(self, task: Callable[..., T], *args: Any) -> Future[T]:
        """Run `task(*args)` in a worker; all must pickle."""
        outer: Future[T] = Future()
        self._start(outer, task, args, 0)
        return outer

    def shutdown(self) -> None:
        """Drop what has not started and end the workers; tasks under way are ended too."""
        with self._lock:
            pool = self._pool
            self._closed = True
        processes = list((pool._processes or {}).values())  # noqa: SLF001 - terminate_workers needs Python 3.14
        if self._busy:
            for process in processes:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)

    def _make(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._workers, mp_context=multiprocessing.get_context("spawn"),
                                   initializer=_start_worker, initargs=(str(self._log_file),))

    def _start(self, outer: Future[T], task: Callable[..., T], args: tuple[Any, ...], tries: int) -> None:
        with self._lock:
            if self._closed:
                outer.cancel()
                return
            try:
                inner = self._pool.submit(task, *args)
            except BrokenProcessPool:
                self._pool = self._make()
                inner = self._pool.submit(task, *args)
            self._busy += 1
        inner.add_done_callback(lambda done: self._finish(outer, done, task, args, tries))

    def _finish(self, outer: Future[T], inner: Future[T], task: Callable[..., T], args: tuple[Any, ...],
                tries: int) -> None:
        with self._lock:
            self._busy -= 1
        if inner.cancelled():
            outer.cancel()
            return
        error = inner.exception()
        if isinstance(error, BrokenProcessPool):
            if tries < RESUBMITS and not self._closed:
                log.warning("a worker process died; %s is tried again", getattr(task, "__name__", task))
                threading.Thread(target=self._start, args=(outer, task, args, tries + 1), daemon=True).start()
                return
            error = WorkerDied(f"its worker process died {tries + 1} times (out of memory, or a crash in a "
                               f"native library); see {self._log_file}")
        if error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(inner.result())


def _start_worker(log_file: str) -> None:
    """Send what libraries print to the log, keep them single-threaded, ignore Ctrl-C (the parent ends us)."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
