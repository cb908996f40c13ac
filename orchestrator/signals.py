"""SIGINT and SIGTERM while something runs, as it was before afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handled(handler: Handler = signal.default_int_handler) -> Iterator[None]:
    """Take both signals to a handler, by default KeyboardInterrupt; only the main thread can.

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
