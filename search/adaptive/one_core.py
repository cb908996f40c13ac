"""Linear algebra on one core.

The engine's matrices are small, and while it thinks the other cores evaluate candidates: threads that wait for each
other there take 4 to 10 times as long as one alone (benchmarks/proposals.py beside two busy processes).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _libraries() -> ThreadpoolController:
    """Return what is loaded by the first use: all that the engine computes with."""
    return ThreadpoolController()


@contextmanager
def one_core() -> Iterator[None]:
    """Limit linear algebra to one thread, in a `with` or as a decorator; it may be nested."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield
