"""Boards that work together: who does what, what happens when one is lost, and what they differ by."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from device_farm.board_entry import BoardEntry
from device_farm.errors import BoardUnreachable, ChannelClosed, FarmError, HostKeyMismatch, PushFailed, Unfit
from device_farm.facts import BoardFacts
from orchestrator import crew as crew_module
from orchestrator.assemble import serving
from orchestrator.bench import Bench, BoardRunner, Job, Suspicion
from orchestrator.crew import Crew
from orchestrator.siblings import AGAIN_S, Siblings
from orchestrator.store.errors import StoreUnreachable
from orchestrator.store.lease_book import LeaseBook
from orchestrator.store.store import Store
from orchestrator.ward import Ward
from profilers.measurement import Measurement, MeasureSettings
from profilers.refusals import ArtifactDied
from profilers.runner import MeasuredSession
from recipes.artifact import Artifact
from search.errors import InfeasibleCandidate
from tests.orchestrator.tenants import Leases, tenant_of
from tests.orchestrator.test_bench import FACTS, OUTPUTS, job, measurement

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q"
Failing = Callable[[str], Exception | None]
T = TypeVar("T")
REFERENCE = job("float32")


@dataclass
class Scripted:
    """A board whose measurements take a while; `failing` says which fail, and how."""

    name: str
    seconds: float = 0.02
    speed: float = 1.0
    failing: Failing = lambda artifact: None
    leases: Leases = field(default_factory=Leases)
    measured: list[str] = field(default_factory=list)
    pushed: list[tuple[str, float]] = field(default_factory=list)
    unreachable: int = 0
    """So many connections fail."""
    boots: int = 0
    connections: int = 0

    def connect(self) -> BoardRunner:
        self.connections += 1
        if self.unreachable:
            self.unreachable -= 1
            raise BoardUnreachable("no route")
        return Runner(self)


@dataclass
class Runner:
    board: Scripted
    warnings: tuple[str, ...] = ()
    runtimes: Mapping[str, str] = field(default_factory=lambda: {"litert": "2.3"})

    @property
    def facts(self) -> BoardFacts:
        return replace(FACTS, boot_id=f"{self.board.name}{self.board.boots}")

    def acquire(self, token: int, owner: str, series: str | None = None) -> None:
        pass

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings,
                runtime: str | None = None) -> MeasuredSession:
        error = self.board.failing(artifact.sha256)
        if error is not None:
            raise error
        time.sleep(self.board.seconds)
        self.board.measured.append(artifact.sha256)
        wall = tuple(round(1e6 / self.board.speed) + i for i in range(3))
        return MeasuredSession(replace(measurement(artifact), board=self.board.name, wall_ns=wall), OUTPUTS)

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None,
            runtime: str | None = None) -> None:
        raise NotImplementedError

    def prefetch(self, artifact: Artifact, inputs: Path) -> None:
        self.board.pushed.append((artifact.sha256, time.monotonic()))

    def close(self) -> None:
        pass


@dataclass
class Deaths:
    died: list[tuple[str, str]] = field(default_factory=list)

    def deaths(self, artifact_sha256: str, kind: str) -> int:
        return sum(artifact == artifact_sha256 for artifact, _ in self.died)

    def add_death(self, artifact_sha256: str, board: str, kind: str, what: str) -> None:
        self.died.append((artifact_sha256, board))


@contextmanager
def working(*boards: Scripted, notices: list[str] | None = None, deaths: Deaths | None = None,
            ward: Ward | None = None) -> Iterator[Crew]:
    stop, book = threading.Event(), deaths or Deaths()
    note = (notices if notices is not None else []).append
    benches = [Bench(board.name, "rpi4", board.connect, tenant_of(board.name, board.leases), MeasureSettings(), book,
                     5.0, 0.3, note, stop) for board in boards]
    with Crew(benches, note, stop, ward) as crew:
        for bench in benches:
            bench.set_reference(REFERENCE)
        yield crew


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "REST_S", (0.05, 0.1))


def measured(crew: Crew, count: int) -> list[Measurement]:
    futures = [crew.measured(job(f"candidate {number}")) for number in range(count)]
    return [future.result(20) for future in futures]


def test_every_board_takes_its_share_and_each_artifact_is_measured_once() -> None:
    boards = [Scripted(name) for name in "abcd"]
    with working(*boards) as crew:
        found = measured(crew, 40)
    assert sorted(m.artifact_sha256 for m in found) == sorted(f"candidate {n}" for n in range(40))
    assert sorted(name for board in boards for name in board.measured) == sorted(m.artifact_sha256 for m in found)
    assert all(len(board.measured) >= 5 for board in boards)
    assert crew.sessions["a"][0] == len(boards[0].measured)
    assert [board.leases.events for board in boards] == [[f"{b.name} leased", f"{b.name} released"] for b in boards]


def test_a_slow_board_does_less() -> None:
    fast, slow = Scripted("fast", 0.01), Scripted("slow", 0.2)
    with working(fast, slow) as crew:
        measured(crew, 30)
    assert len(slow.measured) <= 4 < len(fast.measured)


def test_what_is_next_is_pushed_while_a_board_measures() -> None:
    board = Scripted("a", 0.1)
    with working(board) as crew:
        started = time.monotonic()
        measured(crew, 3)
    assert [name for name, _ in board.pushed] == ["candidate 1", "candidate 2"]
    assert board.pushed[0][1] - started < 0.1, "during the first measurement"


def test_a_lost_board_leaves_its_work_and_comes_back() -> None:
    gone = threading.Event()
    gone.set()
    lost = Scripted("lost", failing=lambda artifact: BoardUnreachable("off") if gone.is_set() else None)
    other, notices = Scripted("other", 0.05), list[str]()
    with working(lost, other, notices=notices) as crew:
        assert len(measured(crew, 4)) == 4
        assert lost.measured == [] and crew.size == 1
        gone.clear()
        deadline = time.monotonic() + 10
        while crew.size < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        measured(crew, 12)
    assert len(lost.measured) > 2
    assert [notice for notice in notices if "lost" in notice] == [
        "lost is lost, the other boards go on: off (tried 3 times)", "lost is back"]


def test_without_any_board_what_waits_fails_and_later_work_finds_the_board_again() -> None:
    fails = [PushFailed("disk full")] * 3
    board = Scripted("a", failing=lambda artifact: fails.pop() if fails else None)
    with working(board) as crew:
        futures = [crew.measured(job(f"candidate {number}")) for number in range(3)]
        for future in futures:
            with pytest.raises(FarmError, match="disk full"):
                future.result(10)
        assert crew.measure(job("later")).board == "a"


def test_an_unclear_death_is_repeated_on_another_board() -> None:
    """On the first board only: a candidate is not blamed for one board's fault."""
    frail = Scripted("frail", failing=lambda artifact: ArtifactDied("SIGSEGV") if artifact == "victim" else None)
    sound = Scripted("sound", 0.05)
    with working(frail, sound) as crew:
        filler = [crew.measured(job(f"filler {n}")) for n in range(6)]
        found = crew.measure(job("victim"))
        assert found.board == "sound"
        for future in filler:
            future.result(10)
    assert "float32" in frail.measured or "victim" in sound.measured


def test_two_deaths_on_two_healthy_boards_are_the_candidates_fault() -> None:
    boards = [Scripted(name, failing=lambda artifact: ArtifactDied("SIGSEGV") if artifact == "victim" else None)
              for name in "ab"]
    with working(*boards) as crew:
        measured(crew, 4)
        with pytest.raises(InfeasibleCandidate, match="twice, beside a healthy reference"):
            crew.measure(job("victim"))
    assert [board.measured.count("float32") for board in boards] == [1, 1], "each was cross-examined"


def test_a_candidate_that_kills_boards_kills_two_and_no_more() -> None:
    boards = [Scripted(name) for name in "abcd"]

    def kills(board: Scripted) -> Failing:
        def fail(artifact: str) -> Exception | None:
            if artifact != "killer":
                return None
            board.boots += 1
            return ChannelClosed("gone")

        return fail

    for board in boards:
        board.failing = kills(board)
    deaths = Deaths()
    with working(*boards, deaths=deaths) as crew:
        measured(crew, 8)
        with pytest.raises(InfeasibleCandidate, match="2 boards of kind rpi4 died"):
            crew.measure(job("killer"))
        assert len(measured(crew, 8)) == 8 and crew.size == 4
    assert len({board for _, board in deaths.died}) == len(deaths.died) == 2
    assert sum(board.boots for board in boards) == 2


def test_a_board_that_is_anothers_joins_when_it_is_free() -> None:
    taken, free, notices = Scripted("taken"), Scripted("free", 0.05), list[str]()
    taken.leases.held = 3
    with working(taken, free, notices=notices) as crew:
        first = crew.measure(job("first"))
        assert first.board == "free" and crew.lead.name == "free", "nobody waits for a board that is another's"
        measured(crew, 40)
    assert len(taken.measured) > 0
    assert notices == ["waiting: taken leased by ben@lab for nightly since 2026-11-23 12:00"]


def test_what_must_stay_on_one_board_does() -> None:
    boards = [Scripted(name) for name in "abc"]
    with working(*boards) as crew:
        measured(crew, 6)
        assert len({crew.measure(job(f"confirm {n}"), lead=True).board for n in range(6)}) == 1
        boards[0].failing = lambda artifact: BoardUnreachable("off")
        assert {crew.measure(job(f"again {n}"), lead=True).board for n in range(4)} <= {"b", "c"}


def test_a_delayed_task_lets_others_go_first() -> None:
    board = Scripted("a")
    with working(board) as crew:
        late, soon = crew.measured(job("late"), delay_s=0.3), crew.measured(job("soon"))
        soon.result(5)
        late.result(5)
    assert board.measured == ["soon", "late"]


def test_the_end_waits_for_no_lease() -> None:
    taken, free = Scripted("taken"), Scripted("free")
    taken.leases.held = 10**6
    began = time.monotonic()
    with working(taken, free) as crew:
        crew.measure(job("first"))
    assert time.monotonic() - began < 3
    assert taken.leases.events == ["taken asked", "taken withdrawn"]


def test_boards_are_compared_by_the_reference_and_corrected() -> None:
    fast, slow, notices = Scripted("fast"), Scripted("slow", speed=0.8), list[str]()
    with working(fast, slow, notices=notices) as crew:
        crew.set_reference(REFERENCE, 1e-3)
        found = measured(crew, 24)
    for one in found:
        assert np.median(one.comparable_ns) == pytest.approx(1e6, rel=1e-4)
        assert np.median(one.wall_ns) == pytest.approx(1e6 if one.board == "fast" else 1.25e6, rel=1e-4)
        assert one.scale == pytest.approx(1.0 if one.board == "fast" else 0.8, rel=1e-4)
    assert {one.board for one in found} == {"fast", "slow"}
    assert fast.measured.count("float32") == slow.measured.count("float32") == 3
    assert notices == []


@pytest.fixture
def book(tmp_path: Path) -> Iterator[LeaseBook]:
    with Store.open(tmp_path / "store") as store:
        yield store.leases


def warded(book: LeaseBook, notices: list[str], *boards: Scripted, **power: object) -> Ward:
    entries = {board.name: BoardEntry.model_validate({
        "name": board.name, "kind": "rpi4", "host": board.name, "user": "pi", "host_key": KEY, "power": power or None})
        for board in boards}
    return Ward(book, entries, notices.append)


def awaited(what: Callable[[], T]) -> T:
    """Return the first true value within ten seconds."""
    deadline = time.monotonic() + 10
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found
    return found


def test_a_lost_board_is_in_quarantine_until_it_is_back(book: LeaseBook) -> None:
    gone, notices = threading.Event(), list[str]()
    gone.set()
    lost = Scripted("lost", failing=lambda artifact: BoardUnreachable("off") if gone.is_set() else None)
    other = Scripted("other", 0.05)
    with working(lost, other, notices=notices, ward=warded(book, notices, lost, other)) as crew:
        measured(crew, 4)
        [kept] = awaited(book.quarantines)
        assert (kept.board, kept.reason, kept.failures) == ("lost", "off (tried 3 times)", 1)
        gone.clear()
        assert awaited(lambda: not book.quarantines())
        measured(crew, 8)
    assert [event.what for event in book.events("lost", 9)] == ["quarantined", "returned"]


def test_a_board_that_does_not_come_back_is_power_cycled(book: LeaseBook, tmp_path: Path) -> None:
    log, notices = tmp_path / "log", list[str]()
    write = [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write(sys.argv[2])", str(log)]
    lost = Scripted("lost", failing=lambda artifact: None if log.exists() and "+" in log.read_text() else
                    BoardUnreachable("hung"))
    for others in ([Scripted("other", 0.05)], []):  # among others, and alone
        log.unlink(missing_ok=True)
        lost.measured.clear()
        ward = warded(book, notices, lost, *others, on_command=[*write, "+"], off_command=[*write, "-"])
        with working(lost, *others, notices=notices, ward=ward) as crew:
            futures = [crew.measured(job(f"candidate {number}"), lead=not others) for number in range(4)]
            assert len([future.result(30) for future in futures]) == 4
            assert awaited(lambda: not book.quarantines())
            assert len(measured(crew, 6)) == 6
        assert log.read_text() == "-+"
        assert "lost does not come back: its power is switched off and on" in notices
        assert lost.measured[:2] == ["float32", "float32"], "it was checked twice"
    assert [event.what for event in book.events("lost", 9)] == ["quarantined", "power cycle", "returned"] * 2


def test_a_board_that_is_slower_than_ever_is_taken_out(book: LeaseBook) -> None:
    for speed in (1.0, 1.02, 0.98, 0.5):
        notices = list[str]()
        slow, other = Scripted("slow", speed=speed), Scripted("other", 0.05)
        with working(slow, other, notices=notices, ward=warded(book, notices, slow, other)) as crew:
            crew.set_reference(REFERENCE, 1e-3)
            found = measured(crew, 6)
            if speed == 0.5:
                [kept] = awaited(book.quarantines)
                assert kept.board == "slow" and "takes 2 ms" in kept.reason and "0.98 to 1.02 ms" in kept.reason
                assert {one.board for one in found} == {"other"}
                slow.speed = 1.0  # it has cooled
                assert awaited(lambda: not book.quarantines())
    book.quarantine("slow", "looked at")
    book.restore("slow", "anna@desk")
    assert book.readings("slow", found[0]) == (), "a person has looked at it: its history begins anew"


def test_a_board_that_shares_its_host_is_only_spoken_of(book: LeaseBook) -> None:
    notices, board = list[str](), Scripted("a")
    ward = warded(book, notices, board)
    entry = ward.boards["a"].model_copy(update={"shares_host": "allowed"})
    ward = Ward(book, {"a": entry}, notices.append)
    for milliseconds in (1, 1, 1, 1, 1, 3):
        ward.judge("a", replace(measurement(job("float32").artifact), wall_ns=(milliseconds * 1_000_000,)))
    assert notices == ["a takes 3 ms for the reference (float32), which took it 1 to 1 ms the last 5 times"]


def test_what_ends_a_boards_thread_reaches_who_waits(book: LeaseBook, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Scripted("a")
    ward = warded(book, [], board)
    monkeypatch.setattr(LeaseBook, "add_reading", lambda *_: (_ for _ in ()).throw(StoreUnreachable("no server")))
    with working(board, ward=ward) as crew:
        crew.set_reference(REFERENCE, 1e-3)
        with pytest.raises(StoreUnreachable, match="no server"):
            crew.measure(job("candidate"))
        with pytest.raises(StoreUnreachable, match="no server"):
            crew.measure(job("another"))


def test_power_does_not_mend_a_wrong_key(book: LeaseBook, tmp_path: Path) -> None:
    notices: list[str] = []
    board = Scripted("a", failing=lambda artifact: HostKeyMismatch("another key"))
    ward = warded(book, notices, board, on_command=["false"], off_command=["false"])
    with working(board, notices=notices, ward=ward) as crew, pytest.raises(HostKeyMismatch):
        crew.measure(job("candidate"))
    assert notices == []
    assert [kept.reason for kept in book.quarantines()] == ["another key"]


def test_a_board_that_fails_three_times_a_day_waits_for_a_person(book: LeaseBook) -> None:
    notices, entry = list[str](), warded(book, [], Scripted("a")).boards["a"]
    for failure in range(3):
        board = Scripted("a", failing=lambda artifact: PushFailed("disk full"))
        assert serving(book, [entry], notices.append) == [entry]
        with working(board, notices=notices, ward=warded(book, notices, board)) as crew, pytest.raises(PushFailed):
            crew.measure(job("candidate"))
        assert ("a has failed 3 times in a day" in "".join(notices)) == (failure == 2)
        if failure < 2:
            book.restore("a", "by itself")
    with pytest.raises(Unfit, match=r"a waits for a person since .*: disk full .*orchestrator devices check a"):
        serving(book, [entry], notices.append)


def reading(board: str, seconds: float) -> Measurement:
    return replace(measurement(REFERENCE.artifact), board=board, wall_ns=(round(seconds * 1e9),) * 3)


class TestSiblings:
    def test_noise_is_not_corrected(self) -> None:
        siblings = Siblings(lambda text: None)
        siblings.set_anchor(REFERENCE, 1.0)
        for seconds in (1.005, 1.012, 1.018):
            siblings.add(reading("a", seconds))
        for seconds in (0.9, 1.1, 1.2):
            siblings.add(reading("b", seconds))
        assert siblings.comparable(reading("a", 1.0)).scale == siblings.comparable(reading("b", 1.0)).scale == 1.0

    def test_a_drift_of_one_board_is_reported_once_and_of_all_is_not(self) -> None:
        notices: list[str] = []
        siblings = Siblings(notices.append)
        siblings.set_anchor(REFERENCE, 1.0)
        for factor in (1.0, 1.0, 1.0, 1.1, 1.1, 1.1):
            for board in "abc":
                siblings.add(reading(board, factor))
        assert notices == []
        for _ in range(4):
            siblings.add(reading("c", 1.4))
        assert len(notices) == 1 and notices[0].startswith("c drifts: the reference takes 40% longer since the start, "
                                                           "its siblings 10% longer")

    def test_a_board_of_another_kind_is_reported(self) -> None:
        notices: list[str] = []
        siblings = Siblings(notices.append)
        siblings.set_anchor(REFERENCE, 1.0)
        for _ in range(3):
            siblings.add(reading("a", 2.0))
        assert notices == ["a takes 100% longer for the reference than where it was measured first: is it of the same "
                           "kind? See 'orchestrator devices check a'"]

    def test_the_reference_is_read_first_on_every_board_and_then_again_and_again(self) -> None:
        now = [0.0]
        siblings = Siblings(lambda text: None, lambda: now[0])
        assert siblings.due("a", 2) == 0, "there is none yet"
        siblings.set_anchor(REFERENCE, 1.0)
        assert (siblings.due("a", 2), siblings.due("a", 1)) == (3, 0)
        for _ in range(3):
            siblings.add(reading("a", 1.0))
        assert siblings.due("a", 2) == 0
        now[0] = AGAIN_S + 1
        assert (siblings.due("a", 2), siblings.due("b", 1)) == (1, 1)


def check(made: Callable[[], BoardRunner], action: Callable[[Bench, Suspicion], int], of: Job) -> None:
    """Mypy: the fake is a BoardRunner."""


check(Scripted("a").connect, lambda bench, suspicion: 1, REFERENCE)
