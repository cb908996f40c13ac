"""A candidate under which boards die, in a whole search: it ends as infeasible, and does not end the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from device_farm.errors import BoardUnreachable, ChannelClosed, FarmError
from device_farm.facts import BoardFacts
from device_farm.inventory import BoardEntry, Inventory
from orchestrator import bench, wiring
from orchestrator.bench import BoardRunner
from orchestrator.config import StudyConfig
from orchestrator.progress import Silent
from orchestrator.store.records import StudyStatus, TrialHistory, TrialRole, TrialState
from orchestrator.store.store import Store
from orchestrator.study_run import StudyRun
from profilers.measurement import MeasureSettings
from profilers.refusals import ArtifactDied
from profilers.runner import MeasuredSession
from recipes.artifact import Artifact
from recipes.compilers.compiler import Compiler
from tests.orchestrator.searches import Quick, quick_model


@dataclass
class Frail:
    """The simulated board; the n-th artifact that it gets makes it boot again, or takes it off the network."""

    make: Callable[[], BoardRunner]
    victim_number: int
    returns: bool
    sickens: int = 0
    """The artifact runs so often and crashes from then on, and the board stays; 0: it is the board that dies."""
    seen: list[str] = field(default_factory=list)
    """Artifacts in the order in which they came first."""
    sent: list[str] = field(default_factory=list)
    boots: int = 0
    down: bool = False

    def connect(self) -> BoardRunner:
        if self.down:
            raise BoardUnreachable("no route to the board")
        return FrailRunner(self, self.make())

    @property
    def victim(self) -> str:
        return self.seen[self.victim_number - 1]

    def take(self, artifact: Artifact) -> None:
        self.sent.append(artifact.sha256)
        if artifact.sha256 not in self.seen:
            self.seen.append(artifact.sha256)
        if len(self.seen) >= self.victim_number and artifact.sha256 == self.victim:
            if self.sickens:
                if self.sent.count(self.victim) > self.sickens:
                    raise ArtifactDied("SIGSEGV")
                return
            self.boots += 1
            self.down = not self.returns
            raise ChannelClosed("the connection is gone")


class FrailRunner:
    """A connection to it."""

    def __init__(self, board: Frail, runner: BoardRunner) -> None:
        self._board, self._runner = board, runner
        self.runtimes, self.warnings = runner.runtimes, runner.warnings
        self._boot = f"boot {board.boots}"

    @property
    def facts(self) -> BoardFacts:
        return replace(self._runner.facts, boot_id=self._boot)

    def acquire(self, token: int, owner: str, series: str | None = None) -> None:
        self._runner.acquire(token, owner, series)

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings,
                runtime: str | None = None) -> MeasuredSession:
        self._board.take(artifact)
        return self._runner.measure(artifact, golden, settings, runtime)

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None,
            runtime: str | None = None) -> None:
        self._board.take(artifact)
        self._runner.run(artifact, inputs, outputs, limit, runtime)

    def prefetch(self, artifact: Artifact, inputs: Path) -> None:
        pass

    def close(self) -> None:
        self._runner.close()


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return quick_model(tmp_path_factory, tmp_path_factory.mktemp("frail"))


@pytest.fixture
def store(quick: Quick) -> Store:
    return Store.open(quick.store)


def search(quick: Quick, store: Store, monkeypatch: pytest.MonkeyPatch, board: Frail | None, victim: int = 0,
           returns: bool = True, resume: bool = False, sickens: int = 0) -> Frail:
    """Run a search on such a board; return the board, also when the search ended in an error."""
    made: list[Frail] = [board] if board is not None else []
    real = wiring.connector

    def connector(entry: BoardEntry, folder: Path, agent: Path,
                  compilers: Sequence[Compiler]) -> Callable[[], BoardRunner]:
        if not made:
            made.append(Frail(real(entry, folder, agent, compilers), victim, returns, sickens))
        made[0].make = real(entry, folder, agent, compilers)
        return made[0].connect

    config = StudyConfig.model_validate({
        "study": "frail", "device": "sim", "model": "separable.tflite", "data": "small.py:data", "budget": "0.9x",
        "sampler": "tpe", "measurements": 9})
    with monkeypatch.context() as patch:
        patch.setattr(wiring, "connector", connector)
        patch.setattr(bench, "RETURN_S", 1.0)
        try:
            StudyRun(store, Inventory(), config, quick.folder, Silent(), resume).run()
        except BoardUnreachable:
            assert made[0].down
    return made[0]


def trials(store: Store) -> tuple[TrialHistory, ...]:
    return store.histories(store.study("frail").id)


def test_a_candidate_that_boots_the_board_again_is_infeasible_and_the_search_goes_on(
        quick: Quick, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    board = search(quick, store, monkeypatch, None, victim=4)
    assert store.study("frail").status is StudyStatus.FINISHED
    blamed = [h.trial for h in trials(store) if h.trial.state is TrialState.INFEASIBLE and h.trial.reason
              and "died" in h.trial.reason]
    assert [(t.artifact_sha256, t.role) for t in blamed] == [(board.victim, TrialRole.BASELINE)]
    assert board.sent.count(board.victim) == 2
    assert store.deaths(board.victim, "sim") == 2
    assert sum(h.trial.state is TrialState.COMPLETE for h in trials(store)) == 9


def test_a_candidate_that_takes_the_board_away_ends_the_search_twice_and_not_again(
        quick: Quick, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    board = search(quick, store, monkeypatch, None, victim=5, returns=False)
    assert store.study("frail").status is StudyStatus.FAILED
    assert store.deaths(board.victim, "sim") == 1
    for deaths in (2, 2):
        board.down = False  # somebody has pulled the plug
        search(quick, store, monkeypatch, board, resume=True)
        assert store.deaths(board.victim, "sim") == deaths
    assert store.study("frail").status is StudyStatus.FINISHED
    (blamed,) = [h.trial for h in trials(store) if h.trial.artifact_sha256 == board.victim]
    assert blamed.state is TrialState.INFEASIBLE
    assert board.sent.count(board.victim) == 2


def test_a_baseline_that_ran_before_and_fails_in_the_confirmation_is_an_ill_board(
        quick: Quick, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FarmError, match="sim is ill: float32, which ran before, fails now: SIGSEGV"):
        search(quick, store, monkeypatch, None, victim=1, sickens=3)  # the budget is a share of it: three readings
    assert store.study("frail").status is StudyStatus.FAILED
    float32 = next(h for h in trials(store) if h.trial.label == "float32")
    assert float32.trial.state is TrialState.COMPLETE, "what was measured stays"
    search(quick, store, monkeypatch, None, victim=99, resume=True)
    assert store.study("frail").status is StudyStatus.FINISHED


def test_a_baseline_that_fails_when_it_is_read_again_is_an_ill_board(
        quick: Quick, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FarmError, match="sim is ill: float32, which ran before, fails now: SIGSEGV"):
        search(quick, store, monkeypatch, None, victim=1, sickens=1)
    assert store.study("frail").status is StudyStatus.FAILED
    search(quick, store, monkeypatch, None, victim=99, resume=True)
    assert store.study("frail").status is StudyStatus.FINISHED


def test_after_a_resume_the_reference_is_still_there_to_examine_the_board(
        quick: Quick, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    board = search(quick, store, monkeypatch, None, victim=3, returns=False)
    board.down, board.returns = False, True
    board.sent.clear()
    search(quick, store, monkeypatch, board, resume=True)
    float32 = next(h.trial for h in trials(store) if h.trial.label == "float32")
    sent = board.sent.index(board.victim)
    assert board.sent[sent + 1] == float32.artifact_sha256
    assert store.study("frail").status is StudyStatus.FINISHED
