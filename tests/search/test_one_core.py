"""Linear algebra on one core while the engine computes, and as before afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from search.adaptive.graph import Floats, Ints
from search.adaptive.one_core import one_core
from search.proposers.adaptive import AdaptiveSearcher
from tests.search.tasks import Bench, leveled


def threads() -> set[int]:
    return {library["num_threads"] for library in ThreadpoolController().info() if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Two threads, however many cores there are."""
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        assert threads() == {2}
        yield


def test_it_may_be_nested_and_an_error_lifts_it() -> None:
    with one_core(), pytest.raises(ZeroDivisionError):
        assert threads() == {1}
        with one_core():
            raise ZeroDivisionError
    assert threads() == {2}


def test_threads_that_overlap_leave_it_as_it_was() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with one_core():
            inside.set()
            leave.wait(10)

    with one_core():
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
    leave.set()
    thread.join()
    assert threads() == {2}


def test_the_engine_is_limited_and_the_host_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, engine, host = Bench.by_chance(leveled(4)), set[int](), set[int]()
    cholesky = np.linalg.cholesky

    def spy(matrix: Floats) -> Floats:
        engine.update(threads())
        found: Floats = np.asarray(cholesky(matrix), np.float64)
        return found

    def divergence(configs: Ints) -> Floats:
        host.update(threads())
        return bench.divergence(configs)

    monkeypatch.setattr(np.linalg, "cholesky", spy)
    bench.drive(AdaptiveSearcher(replace(bench.task(), divergence=divergence)), 3)
    assert (engine, host) == ({1}, {2})
