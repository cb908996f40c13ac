"""Whose fault a failure is: a bench over boards that follow a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from device_farm.errors import (
    AgentMismatch,
    AuthenticationFailed,
    BoardBusy,
    BoardUnreachable,
    ChannelClosed,
    ChannelStalled,
    FarmError,
    HostKeyMismatch,
    LeaseLost,
    PushFailed,
    Unfit,
)
from device_farm.facts import BoardFacts
from orchestrator import bench as bench_module
from orchestrator.bench import ATTEMPTS, Bench, BoardRunner, Job, Neighbours
from profilers.golden import Array
from profilers.measurement import Conditions, Measurement, MeasureSettings, Sensors
from profilers.refusals import ArtifactDied
from profilers.runner import MeasuredSession
from recipes.artifact import Artifact
from search.errors import InfeasibleCandidate
from tests.orchestrator.tenants import Leases, tenant_of

OUTPUTS = (np.array([[0.0, 1.0], [1.0, 0.0]], np.float32),)
FACTS = BoardFacts(machine="aarch64", model="Raspberry Pi 4", cpu_features=("asimd",), cores=4, memory_bytes=1 << 32,
                   os="Linux", glibc="2.36", python="3.11.2", boot_id="b")
Outcome = Exception | tuple[Array, ...]


def job(name: str) -> Job:
    return Job(Artifact(Path(name), name, 10), Path("golden.npz"), OUTPUTS, tolerance=0.01)


CANDIDATE, REFERENCE = job("candidate"), job("float32")


@dataclass
class Board:
    """Every connection, lock and measurement takes the next outcome of its list; an empty list means: well."""

    connects: list[BaseException | None] = field(default_factory=list)
    locks: list[BaseException | None] = field(default_factory=list)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    """Artifact -> what its measurements come to."""
    events: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    settings: list[MeasureSettings] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    boots: list[str] = field(default_factory=list)
    """Boot ids of the next connections; then always the last one, `b` without any."""
    boot: str = "b"
    leases: Leases = field(default_factory=Leases)
    conditions: list[Conditions] = field(default_factory=list)
    """Of the next measurements; then nothing else happens."""
    died: list[str] = field(default_factory=list)
    """What was written down of boards that died."""

    def deaths(self, artifact_sha256: str, kind: str) -> int:
        return sum(line.startswith(f"{artifact_sha256} {kind} ") for line in self.died)

    def add_death(self, artifact_sha256: str, board: str, kind: str, what: str) -> None:
        self.died.append(f"{artifact_sha256} {kind} {board} {what}")

    def connect(self) -> BoardRunner:
        self.events.append("connect")
        self._raise(self.connects)
        self.boot = self.boots.pop(0) if self.boots else self.boot
        return Runner(self, self.boot)

    @staticmethod
    def _raise(planned: list[BaseException | None]) -> None:
        problem = planned.pop(0) if planned else None
        if problem is not None:
            raise problem

    def outcome(self, artifact: str) -> tuple[Array, ...]:
        planned = self.outcomes.get(artifact, [])
        found = planned.pop(0) if planned else OUTPUTS
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class Runner:
    board: Board
    boot: str
    closed: bool = False
    warnings: tuple[str, ...] = ()
    runtimes: Mapping[str, str] = field(default_factory=lambda: {"litert": "2.3"})

    @property
    def facts(self) -> BoardFacts:
        return replace(FACTS, boot_id=self.boot)

    def acquire(self, token: int, owner: str, series: str | None = None) -> None:
        self.board.events.append(f"lock for {owner} in {series}")
        self.board.tokens.append(token)
        Board._raise(self.board.locks)

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings,
                runtime: str | None = None) -> MeasuredSession:
        assert not self.closed
        self.board.events.append(artifact.sha256)
        self.board.settings.append(settings)
        seen = self.board.conditions.pop(0) if self.board.conditions else Conditions()
        return MeasuredSession(replace(measurement(artifact), conditions=seen), self.board.outcome(artifact.sha256))

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None,
            runtime: str | None = None) -> None:
        assert not self.closed
        self.board.events.append(f"run {inputs} to {outputs}")
        self.board.outcome(artifact.sha256)

    def prefetch(self, artifact: Artifact, inputs: Path) -> None:
        pass

    def close(self) -> None:
        self.board.events.append("close")
        self.closed = True


def measurement(artifact: Artifact) -> Measurement:
    return Measurement(
        artifact_sha256=artifact.sha256, board="pi-a", kind="rpi4", boot_id="b", runtime="litert",
        runtime_version="2.3", agent_version="1", threads=1, wall_ns=(1000, 1001), cpu_ns=(990, 991), warmup_runs=3,
        load_s=0.1, before=Sensors(), after=Sensors(), peak_rss_bytes=None, simulated=False, session_s=0.2)


def bench(board: Board, reference: bool = True, patience_s: float = 0.0,
          stop: threading.Event | None = None, neighbours: Neighbours = "ignored") -> Bench:
    made = Bench("pi-a", "rpi4", board.connect, tenant_of("pi-a", board.leases), MeasureSettings(threads=3), board,
                 patience_s, 2.0, board.notices.append, stop, neighbours=neighbours)
    if reference:
        made.set_reference(REFERENCE)
    return made


def measured(board: Board) -> list[str]:
    return [event for event in board.events if event in ("candidate", "float32")]


def test_a_healthy_board_measures_once_with_the_studys_settings() -> None:
    board = Board()
    with bench(board) as opened:
        assert opened.measure(CANDIDATE) == measurement(CANDIDATE.artifact)
        opened.measure(CANDIDATE, replace(opened.settings, max_sampling_s=0.25))
    lock = "lock for anna@desk for study 'a' in store/pi-a"
    assert board.events == ["connect", lock, "candidate", lock, "candidate", "close"]
    assert board.leases.events == ["pi-a leased", "pi-a released"]
    assert [(s.threads, s.max_sampling_s) for s in board.settings] == [(3, 1.0), (3, 0.25)]


HOT = Conditions(throttled=("temperature limit", "CPU quota"), still_throttled=True)
STARVED = Conditions(hog="stress (pid 812)", waited_s=0.05, others_cores=1.5)
BESIDE = Conditions(hog="stress (pid 812)", waited_s=0.0, others_cores=1.5)
USED = "pi-a: other processes used its cores while it measured, most of all stress (pid 812)"


def test_a_disturbed_session_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "PAUSES_S", (0.01, 0.02, 0.03))
    board = Board(conditions=[HOT, STARVED, BESIDE, BESIDE])
    with bench(board, neighbours="repeated") as opened:
        assert opened.measure(CANDIDATE).conditions == BESIDE, "its cores were its own"
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate"] * 4
    assert board.notices == [
        "pi-a was throttled while it measured (temperature limit, CPU quota); it is measured again in 0.01 s",
        f"{USED}; it is measured again in 0.02 s", USED]


def test_a_board_that_stays_throttled_is_unfit_and_one_that_is_used_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "PAUSES_S", (0.01, 0.01, 0.01))
    board = Board(conditions=[HOT] * 4)
    with bench(board, neighbours="repeated") as opened, pytest.raises(Unfit, match=r"CPU quota\), 4 times: give it"):
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate"] * 4, "no other attempt would help"
    board = Board(conditions=[STARVED] * 4)
    with bench(board, neighbours="repeated") as opened:
        assert opened.measure(CANDIDATE).conditions == STARVED
    assert measured(board) == ["candidate"] * 4


@pytest.mark.parametrize(("neighbours", "notices"), [
    ("said", ["pi-a was throttled while it measured (temperature limit, CPU quota)", USED]), ("ignored", [])])
def test_on_other_boards_disturbances_are_said_at_most(neighbours: Neighbours, notices: list[str]) -> None:
    board = Board(conditions=[HOT, STARVED, BESIDE])
    with bench(board, neighbours=neighbours) as opened:
        for _ in range(3):
            opened.measure(CANDIDATE)
    assert measured(board) == ["candidate"] * 3
    assert board.notices == notices


def test_two_failures_of_the_farm_are_survived_on_new_connections() -> None:
    board = Board(outcomes={"candidate": [PushFailed("disk full"), FarmError("odd"), OUTPUTS]})
    with bench(board) as opened:
        assert opened.measure(CANDIDATE) == measurement(CANDIDATE.artifact)
    assert measured(board) == ["candidate"] * 3
    assert board.events.count("connect") == board.events.count("close") == 3
    assert set(board.tokens) == {1}, "one lease"


@pytest.mark.parametrize(("known", "asked"), [((), "float32"), (("tvm:float32",), "tvm:float32")])
def test_a_crash_is_cross_examined_with_the_reference_of_its_own_runtime(known: tuple[str, ...], asked: str) -> None:
    """Without one of its own (its float32 crashes) the board must run the other compiler's."""
    board = Board(outcomes={"candidate": [ArtifactDied("SIGSEGV")]})
    with bench(board) as opened:
        for name in known:
            opened.set_reference(replace(job(name), runtime="tvm"))
        opened.measure(replace(CANDIDATE, runtime="tvm"))
    assert [event for event in board.events if event in ("candidate", "float32", "tvm:float32")] == [
        "candidate", asked, "candidate"]


def test_a_board_that_comes_back_is_waited_for() -> None:
    board = Board(connects=[BoardUnreachable("no route"), BoardUnreachable("no route"), None])
    with bench(board) as opened:
        opened.measure(CANDIDATE)
    assert board.events.count("connect") == 3


def test_the_last_failure_is_raised_with_the_number_of_attempts() -> None:
    board = Board(outcomes={"candidate": [PushFailed(f"gone {i}") for i in range(9)]})
    last = rf"^gone {ATTEMPTS - 1} \(tried {ATTEMPTS} times\)$"
    with bench(board) as opened, pytest.raises(PushFailed, match=last):
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate"] * ATTEMPTS
    assert board.events[-1] == "close"


@pytest.mark.parametrize("error", [
    HostKeyMismatch("another key"), AuthenticationFailed("refused"), AgentMismatch("no runtime")])
def test_what_another_attempt_does_not_mend_is_not_tried_again(error: FarmError) -> None:
    board = Board(connects=[error])
    started = time.monotonic()
    with pytest.raises(type(error), match=f"^{error}$"), bench(board):
        pass
    assert time.monotonic() - started < 0.4
    assert board.events == ["connect"]


def test_a_board_that_another_holds_is_waited_for_on_one_connection() -> None:
    board = Board(locks=[BoardBusy("held by another"), BoardBusy("held by another"), None])
    with bench(board, patience_s=30) as opened:
        opened.measure(CANDIDATE)
    assert board.notices == ["waiting for pi-a: held by another"]
    assert board.events.count("connect") == 1
    assert set(board.tokens) == {1}


def test_patience_ends_and_leaves_no_open_connection() -> None:
    board = Board(locks=[BoardBusy("held by another")] * 99)
    started = time.monotonic()
    with pytest.raises(BoardBusy, match="held by another"), bench(board, patience_s=0.8) as opened:
        opened.measure(CANDIDATE)
    assert 0.8 <= time.monotonic() - started < 3
    assert board.events[-1] == "close"


def test_an_interrupt_while_waiting_leaves_no_open_connection() -> None:
    board = Board(locks=[KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt), bench(board) as opened:
        opened.measure(CANDIDATE)
    assert board.events[-1] == "close"


def test_a_refused_candidate_is_neither_repeated_nor_judged() -> None:
    board = Board(outcomes={"candidate": [InfeasibleCandidate("no such operator")]})
    with bench(board) as opened, pytest.raises(InfeasibleCandidate, match="^no such operator$"):
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate"]


def test_a_death_beside_a_healthy_reference_is_repeated_once() -> None:
    board = Board(outcomes={"candidate": [ArtifactDied("SIGSEGV"), OUTPUTS]})
    with bench(board) as opened:
        assert opened.measure(CANDIDATE) == measurement(CANDIDATE.artifact)
    assert measured(board) == ["candidate", "float32", "candidate"]


def test_two_deaths_beside_a_healthy_reference_are_the_candidates_fault() -> None:
    board = Board(outcomes={"candidate": [ArtifactDied("SIGSEGV one"), ArtifactDied("SIGSEGV two")]})
    with bench(board) as opened:
        with pytest.raises(InfeasibleCandidate, match="^twice, beside a healthy reference: SIGSEGV two$") as caught:
            opened.measure(CANDIDATE)
        assert not isinstance(caught.value, ArtifactDied)
        opened.measure(job("next"))
    assert measured(board) == ["candidate", "float32", "candidate", "float32"]


@pytest.mark.parametrize("illness", [
    ArtifactDied("SIGBUS"), InfeasibleCandidate("no memory"), (OUTPUTS[0] + 1,)])
@pytest.mark.parametrize("moment", [1, 2])
def test_a_reference_that_fails_too_is_the_farms_fault(illness: Outcome, moment: int) -> None:
    well: list[Outcome] = [OUTPUTS] * (moment - 1)
    board = Board(outcomes={"candidate": [ArtifactDied("SIGSEGV")] * 2, "float32": [*well, illness]})
    with bench(board) as opened, pytest.raises(FarmError, match="pi-a is ill.*orchestrator devices check pi-a"):
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate", "float32"] * moment


def test_the_farm_may_fail_during_the_cross_examination() -> None:
    board = Board(outcomes={"candidate": [ArtifactDied("SIGSEGV"), OUTPUTS],
                            "float32": [ChannelClosed("gone"), OUTPUTS]})
    with bench(board) as opened:
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate", "float32", "float32", "candidate"]


def test_a_connection_that_breaks_once_under_a_candidate_is_nobodys_fault() -> None:
    board = Board(outcomes={"candidate": [ChannelStalled("silent"), OUTPUTS]})
    with bench(board) as opened:
        assert opened.measure(CANDIDATE) == measurement(CANDIDATE.artifact)
    assert measured(board) == ["candidate", "float32", "candidate"]
    assert board.died == []
    assert board.notices == ["pi-a was lost while it ran a candidate (silent); waiting up to 2 s for it"]


def test_a_connection_that_breaks_under_one_candidate_only_is_its_fault() -> None:
    board = Board(outcomes={"candidate": [ChannelClosed("gone")] * 9})
    with bench(board) as opened, pytest.raises(InfeasibleCandidate, match="^3 times, beside a healthy ref.*: gone$"):
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate", "float32"] * ATTEMPTS
    assert board.died == []


def test_a_board_that_boots_again_is_waited_for_and_the_candidate_repeated() -> None:
    board = Board(boots=["b", "c"], outcomes={"candidate": [ChannelClosed("gone"), OUTPUTS]},
                  connects=[None, BoardUnreachable("booting"), BoardUnreachable("booting")])
    with bench(board) as opened:
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate", "float32", "candidate"]
    assert board.died == ["candidate rpi4 pi-a booted again"]


def test_a_board_that_booted_before_the_candidate_came_did_not_die_under_it() -> None:
    board = Board(boots=["b", "c"], locks=[ChannelClosed("it boots")], outcomes={
        "candidate": [ChannelClosed("gone"), OUTPUTS]})
    with bench(board) as opened:
        opened.measure(CANDIDATE)
    assert board.boot == "c"
    assert board.died == []


def test_a_candidate_under_which_two_boards_died_is_never_sent_again() -> None:
    board = Board(boots=["b", "c", "d"], outcomes={"candidate": [ChannelClosed("gone")] * 9})
    with bench(board) as opened:
        for _ in range(2):
            with pytest.raises(InfeasibleCandidate, match="^2 boards of kind rpi4 died .* not sent again$"):
                opened.measure(CANDIDATE)
        opened.measure(job("next"))
    assert measured(board) == ["candidate", "float32", "candidate", "float32"], "sent twice, not more"
    assert len(board.died) == 2


def test_a_board_that_does_not_come_back_is_the_farms_fault_and_written_down() -> None:
    board = Board(outcomes={"candidate": [ChannelClosed("gone")] * 9},
                  connects=[None, *[BoardUnreachable("no route")] * 99])
    with pytest.raises(BoardUnreachable, match="no route"), bench(board) as opened:
        opened.measure(CANDIDATE)
    assert board.died == ["candidate rpi4 pi-a did not come back"]
    board.connects.clear()
    with bench(board) as resumed, pytest.raises(InfeasibleCandidate, match="2 boards"):
        board.boots = ["c"]
        resumed.measure(CANDIDATE)


def test_a_board_that_another_took_meanwhile_did_not_die_and_is_leased_anew() -> None:
    """The other one's agent has ended ours: that is no failure of the candidate, however often."""
    board = Board(outcomes={"candidate": [ChannelClosed("ended")] * 5})
    board.leases.lost = ["taken over"] * 5
    with bench(board) as opened:
        assert opened.measure(CANDIDATE) == measurement(CANDIDATE.artifact)
    assert measured(board) == ["candidate"] * 6, "without the reference"
    assert board.died == []
    assert board.tokens == [1, 2, 3, 4, 5, 6]
    assert board.notices == ["taken over; it is leased anew"] * 5


def test_what_the_board_says_of_an_older_token_leads_to_a_new_lease() -> None:
    board = Board(locks=[LeaseLost("token 1 is older than 7")])
    with bench(board) as opened:
        opened.measure(CANDIDATE)
    assert board.tokens == [1, 2]
    assert board.leases.events[-1] == "pi-a released"


def test_a_store_that_gives_old_tokens_is_given_up() -> None:
    board = Board(locks=[LeaseLost("token 1 is older than 7")] * 99)
    with bench(board) as opened, pytest.raises(LeaseLost, match="tried 3 times"):
        opened.measure(CANDIDATE)


def test_a_board_that_is_leased_to_another_is_waited_for_with_the_reason() -> None:
    board = Board()
    board.leases.held = 2
    with bench(board, patience_s=30) as opened:
        opened.measure(CANDIDATE)
    assert len(board.notices) == 1
    assert board.notices[0].startswith("waiting: pi-a leased by ben@lab for nightly since 20")


def test_patience_with_leases_ends_with_the_reason() -> None:
    board = Board()
    board.leases.held = 99
    waited = r"waited for 0 s \(--wait\): pi-a leased by ben@lab"
    with bench(board, patience_s=0.3) as opened, pytest.raises(BoardBusy, match=waited):
        opened.measure(CANDIDATE)
    assert board.leases.events == ["pi-a asked", "pi-a withdrawn"]


def test_the_reference_is_never_blamed() -> None:
    board = Board(boots=["b", "c", "d", "e"], outcomes={"float32": [ChannelClosed("gone")] * 9})
    with bench(board) as opened, pytest.raises(ChannelClosed, match=r"tried 3 times"):
        opened.measure(REFERENCE)
    assert board.died == []


def test_an_interrupt_ends_every_wait() -> None:
    stop = threading.Event()
    unreachable: list[BaseException | None] = [None, *[BoardUnreachable("no route")] * 99]
    for board in (Board(locks=[BoardBusy("held")] * 99), Board(connects=unreachable, outcomes={
            "candidate": [ChannelClosed("gone")]})):
        stop.clear()
        timer = threading.Timer(0.6, stop.set)
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt), bench(board, patience_s=60, stop=stop) as opened:
            opened.measure(CANDIDATE)
        assert time.monotonic() - started < 1.5
        assert board.died == []


def test_without_a_reference_a_death_is_told_as_it_is() -> None:
    for made, dying in ((bench(Board(outcomes={"candidate": [ArtifactDied("SIGSEGV")]}), reference=False), CANDIDATE),
                        (bench(Board(outcomes={"float32": [ArtifactDied("SIGSEGV")]})), REFERENCE)):
        with made as opened, pytest.raises(ArtifactDied, match="^SIGSEGV$"):
            opened.measure(dying)


def test_wrong_outputs_are_the_candidates_fault() -> None:
    board = Board(outcomes={"candidate": [(OUTPUTS[0] + np.float32(0.02),)]})
    with bench(board) as opened, pytest.raises(InfeasibleCandidate, match="output 0 on pi-a differs .* 2.00% of its"):
        opened.measure(CANDIDATE)
    assert measured(board) == ["candidate"]


def test_outputs_within_the_tolerance_count() -> None:
    board = Board(outcomes={"candidate": [(OUTPUTS[0] + np.float32(0.009),)]})
    with bench(board) as opened:
        assert opened.measure(CANDIDATE).wall_ns == (1000, 1001)


def test_a_split_runs_with_the_same_patience() -> None:
    board = Board(outcomes={"candidate": [PushFailed("disk full")]})
    with bench(board) as opened:
        opened.run(CANDIDATE, Path("in"), Path("out"))
    assert [event for event in board.events if event.startswith("run")] == ["run in to out"] * 2


def test_a_death_while_running_a_split_is_examined_too() -> None:
    board = Board(outcomes={"candidate": [ArtifactDied("SIGSEGV")] * 2})
    with bench(board) as opened, pytest.raises(InfeasibleCandidate, match="^twice, beside a healthy reference: SIG"):
        opened.run(CANDIDATE, Path("in"), Path("out"))
    assert measured(board) == ["float32", "float32"]


def check(made: Callable[[], BoardRunner]) -> None:
    """Mypy: the fake is a BoardRunner."""


check(Board().connect)
