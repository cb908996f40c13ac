"""SIGINT and SIGTERM while something runs, as it was before afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Take both signals to a handler; only the main thread can.

    Also where a shell started the program in the background and has SIGINT ignored for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """KeyboardInterrupt on both signals, and an event that says so.

    Python drops an exception that a signal raises while a finalizer or a weak reference's callback runs; who asks the
    event between two steps stops all the same.
    """
    asked = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.set()
        raise KeyboardInterrupt

    with handled(interrupt):
        yield asked
