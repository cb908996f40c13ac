"""Leases: who is next, and that nobody has a board that another has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from device_farm.errors import LeaseLost
from device_farm.leases import Lease, LeaseStore, Request, Wanted, assigned, in_order
from orchestrator.store.database import open_engine
from orchestrator.store.lease_book import LeaseBook
from orchestrator.store.places import StorePlace, store_at
from orchestrator.store.store import Store
from tests.postgres import address, running_postgres

PROCESSES, SECONDS = 16, 6.0
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def request(ticket: int, *boards: str, priority: int = 0) -> Request:
    return Request(ticket, Wanted(boards, f"owner {ticket}", "test", priority), NOW)


def given(requests: list[Request], *free: str) -> dict[int, str]:
    return assigned(requests, {one.ticket: free for one in requests})


class TestWhoIsNext:
    def test_priority_then_ticket(self) -> None:
        waiting = [request(1, "a"), request(2, "a", priority=1), request(3, "a", priority=1)]
        assert [one.ticket for one in in_order(waiting)] == [2, 3, 1]

    def test_a_board_goes_to_who_waits_longest(self) -> None:
        assert given([request(1, "a", "b"), request(2, "a", "b")], "b") == {1: "b"}

    def test_who_can_take_another_leaves_the_only_one(self) -> None:
        assert given([request(1, "a", "b"), request(2, "a")], "a", "b") == {1: "b", 2: "a"}

    def test_an_earlier_one_never_loses_to_a_later_one(self) -> None:
        found = given([request(1, "a"), request(2, "a", "b"), request(3, "b"), request(4, "c")], "a", "b")
        assert found == {1: "a", 2: "b"}

    def test_nobody_waits_for_a_board_that_only_others_want(self) -> None:
        assert given([request(1, "a"), request(2, "b")], "b") == {2: "b"}

    def test_what_is_reserved_for_another_is_not_given(self) -> None:
        waiting = [request(1, "a", "b"), request(2, "a", "b")]
        assert assigned(waiting, {1: ("b",), 2: ("a", "b")}) == {1: "b", 2: "a"}
        assert assigned(waiting, {1: (), 2: ("a",)}) == {2: "a"}

    def test_a_request_names_a_board(self) -> None:
        with pytest.raises(ValueError, match="at least one board"):
            Wanted((), "me", "test")


@pytest.fixture
def place(store_place: StorePlace) -> StorePlace:
    Store.open(store_place).close()
    return store_place


@pytest.fixture
def book(place: StorePlace) -> Iterator[LeaseBook]:
    engine = open_engine(place)
    yield LeaseBook(engine, ttl_s=0.5, request_ttl_s=0.5)
    engine.dispose()


def taken(book: LeaseStore, *boards: str, priority: int = 0) -> Lease:
    lease = book.take(book.ask(Wanted(boards, "me", "test", priority)))
    assert lease is not None
    return lease


class TestReservations:
    def test_only_its_owner_leases_it_meanwhile(self, book: LeaseBook) -> None:
        kept = book.reserve(book.ask(Wanted(("a",), "me", "debugging")), 60)
        assert kept is not None and kept.board == "a"
        assert book.reservations() == (kept,)
        other = book.ask(Wanted(("a", "b"), "you", "nightly"))
        lease = book.take(other)
        assert lease is not None and lease.board == "b"
        assert book.take(book.ask(Wanted(("a",), "you", "nightly"))) is None
        assert taken(book, "a").owner == "me"

    def test_it_ends_by_itself_and_by_hand(self, book: LeaseBook) -> None:
        book.reserve(book.ask(Wanted(("a",), "me", "")), 0.3)
        book.reserve(book.ask(Wanted(("b",), "me", "")), 60)
        time.sleep(0.35)
        assert [kept.board for kept in book.reservations()] == ["b"]
        ended = book.unreserve("b")
        assert ended is not None and (ended.board, ended.owner) == ("b", "me")
        assert book.reservations() == () and book.unreserve("b") is None and book.unreserve("c") is None

    def test_it_waits_for_who_has_the_board(self, book: LeaseBook) -> None:
        first = taken(book, "a")
        ticket = book.ask(Wanted(("a",), "you", ""))
        assert book.reserve(ticket, 60) is None
        book.release(first)
        assert book.reserve(ticket, 60) is not None

    def test_what_happened_is_remembered_in_order(self, book: LeaseBook) -> None:
        book.release(taken(book, "a"))
        taken(book, "a")
        time.sleep(0.55)
        taken(book, "a")
        book.note("a", "booted", "", "it was pulled")
        assert [event.what for event in book.events("a", 99)] == [
            "leased", "released", "leased", "lapsed", "leased", "booted"]
        assert [event.what for event in book.events("a", 2)] == ["leased", "booted"]
        assert book.events("b", 9) == ()


class TestQuarantine:
    def test_nobody_leases_it_until_it_returns(self, book: LeaseBook) -> None:
        lease = taken(book, "a")
        kept = book.quarantine("a", "no route")
        assert (kept.board, kept.reason, kept.failures, kept.waits_for_person) == ("a", "no route", 1, False)
        assert book.renew(lease).expires > lease.expires, "who has it brings it back"
        book.release(lease)
        ticket = book.ask(Wanted(("a",), "you", "test"))
        assert book.take(ticket) is None
        assert book.restore("a", "by itself") and not book.restore("a", "by itself")
        assert book.quarantines() == ()
        assert book.take(ticket) is not None

    def test_a_request_for_several_takes_a_healthy_one(self, book: LeaseBook) -> None:
        book.quarantine("a", "no route")
        assert taken(book, "a", "b").board == "b"

    def test_the_third_failure_in_a_day_waits_for_a_person(self, book: LeaseBook) -> None:
        for failures in (1, 2, 3):
            kept = book.quarantine("a", f"failure {failures}")
            assert book.quarantine("a", f"failure {failures}, still").failures == failures, "one and the same"
            assert (kept.failures, kept.waits_for_person) == (failures, failures == 3)
            book.restore("a", "by itself" if failures < 3 else "anna@desk")
        assert not book.quarantine("a", "again").waits_for_person, "a person has looked at it since"

    def test_it_is_in_the_boards_history(self, book: LeaseBook) -> None:
        book.quarantine("a", "no route")
        book.restore("a", "anna@desk")
        assert [(event.what, event.who, event.detail) for event in book.events("a", 9)] == [
            ("quarantined", "", "no route"), ("returned", "anna@desk", "")]


class TestBook:
    def test_tokens_rise_and_survive_a_release(self, book: LeaseBook) -> None:
        first = taken(book, "a")
        book.release(first)
        assert book.leases() == ()
        assert taken(book, "a").token > first.token

    def test_a_second_waits_and_is_next(self, book: LeaseBook) -> None:
        first = taken(book, "a")
        ticket = book.ask(Wanted(("a",), "you", "nightly"))
        assert book.take(ticket) is None
        assert [(one.ticket, one.wanted.owner) for one in book.requests()] == [(ticket, "you")]
        book.release(first)
        late = book.ask(Wanted(("a",), "them", "study"))
        assert book.take(late) is None, "another is before it"
        lease = book.take(ticket)
        assert lease is not None and (lease.owner, lease.purpose) == ("you", "nightly")

    def test_priority_goes_first(self, book: LeaseBook) -> None:
        first = taken(book, "a")
        low, high = book.ask(Wanted(("a",), "low", "test")), book.ask(Wanted(("a",), "high", "test", 1))
        book.release(first)
        assert book.take(low) is None
        assert book.take(high) is not None

    def test_a_lease_lapses_unless_it_is_renewed(self, book: LeaseBook) -> None:
        first, second = taken(book, "a"), taken(book, "b")
        for _ in range(4):
            time.sleep(0.2)
            second = book.renew(second)
        assert [lease.board for lease in book.leases()] == ["b"]
        again = taken(book, "a")
        assert again.token > first.token
        with pytest.raises(LeaseLost, match="a is no longer leased to me: me has it since"):
            book.renew(first)
        book.release(first)
        assert [lease.board for lease in book.leases()] == ["a", "b"], "an old lease cannot give a new one back"

    def test_what_lapsed_and_nobody_took_can_be_kept(self, book: LeaseBook) -> None:
        lease = taken(book, "a")
        time.sleep(0.6)
        assert book.renew(lease).expires > lease.expires
        book.release(lease)
        with pytest.raises(LeaseLost, match="it was released"):
            book.renew(lease)

    def test_who_stops_asking_is_forgotten(self, book: LeaseBook) -> None:
        first = taken(book, "a")
        gone, here = book.ask(Wanted(("a",), "gone", "test")), book.ask(Wanted(("a",), "here", "test"))
        for _ in range(4):
            time.sleep(0.2)
            book.renew(first)
            assert book.take(here) is None
        book.release(first)
        assert book.take(here) is not None
        with pytest.raises(LeaseLost, match="forgotten"):
            book.take(gone)

    def test_an_answer_that_was_lost_is_given_again(self, book: LeaseBook) -> None:
        wanted = Wanted(("a",), "me", "test")
        ticket, other = book.ask(wanted), book.ask(Wanted(("b",), "me", "test"))
        assert book.ask(wanted) == ticket
        lease, kept = book.take(ticket), book.reserve(other, 60)
        assert lease is not None and book.take(ticket) == lease
        assert kept is not None and book.reserve(other, 60) == kept
        book.release(lease)
        with pytest.raises(LeaseLost):
            book.take(ticket)

    def test_withdrawn_is_gone(self, book: LeaseBook) -> None:
        taken(book, "a")
        ticket = book.ask(Wanted(("a",), "me", "test"))
        book.withdraw(ticket)
        assert book.requests() == ()


def worked(place: StorePlace, folder: Path, ttl_s: float, disturb: Callable[[], None]) -> list[dict[str, Any]]:
    """Let processes lease four boards for some seconds; return every lease, and whether its owner was alone."""
    folder.mkdir()
    children = [subprocess.Popen([sys.executable, "-m", "tests.orchestrator.lease_worker", address(place), str(folder),
                                  "a,b,c,d", str(number), str(ttl_s), str(SECONDS)], env=environment(), text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE) for number in range(PROCESSES)]
    try:
        disturb()
        printed = [child.communicate(timeout=180) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [err for _, err in printed if err] == []
    return [json.loads(line) for out, _ in printed for line in out.splitlines()]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_no_board_has_two_owners_under_sixteen_processes(place: StorePlace, tmp_path: Path) -> None:
    leases = worked(place, tmp_path / "boards", 30, lambda: None)
    assert all(lease["alone"] for lease in leases)
    given = [(lease["board"], lease["token"]) for lease in leases]
    assert len(given) == len(set(given)) > 16
    assert {board for board, _ in given} == set("abcd")


def test_a_server_that_crashes_gives_no_board_twice(tmp_path: Path) -> None:
    with running_postgres() as server:
        place = store_at(f"{server.new_database('store')}?folder={tmp_path / 'files'}", Path("/"))
        Store.open(place).close()
        started: list[float] = []

        def crash() -> None:
            while not any((tmp_path / "boards").iterdir()):  # none has begun
                time.sleep(0.1)
            for _ in range(2):
                time.sleep(1.0)
                server.stop("immediate")
                time.sleep(0.3)
                server.start()
                started.append(time.monotonic())

        leases = worked(place, tmp_path / "boards", 30, crash)
        assert all(lease["alone"] for lease in leases)
        given = [(lease["board"], lease["token"]) for lease in leases]
        assert len(given) == len(set(given)) > 8
        assert max(lease["ended"] for lease in leases) > started[-1], "they work on after the last restart"


def test_the_board_of_a_killed_owner_is_given_again_when_its_time_is_over(place: StorePlace) -> None:
    code = ("import sys, time; from pathlib import Path; from device_farm.leases import Wanted\n"
            "from orchestrator.store.database import open_engine; from orchestrator.store.lease_book import LeaseBook\n"
            "from orchestrator.store.places import store_at\n"
            "book = LeaseBook(open_engine(store_at(sys.argv[1], Path('/'))), 3.0)\n"
            "print(book.take(book.ask(Wanted(('a',), 'killed', 'test'))).token, flush=True); time.sleep(600)")
    child = subprocess.Popen([sys.executable, "-c", code, address(place)], stdout=subprocess.PIPE, text=True,
                             env=environment())
    with child:
        assert child.stdout is not None and (token := int(child.stdout.readline())) > 0
        began = time.monotonic()
        child.kill()
    engine = open_engine(place)
    book = LeaseBook(engine, 3.0)
    ticket, lease = book.ask(Wanted(("a",), "me", "test")), None
    while lease is None and time.monotonic() < began + 30:
        lease = book.take(ticket)
        time.sleep(0.05)
    assert lease is not None and lease.token > token
    assert 2.5 < time.monotonic() - began < 10
    engine.dispose()
