"""One board while a search uses it: reconnects, retries, and decides whose fault a failure is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from device_farm.errors import (
    AgentMismatch,
    AuthenticationFailed,
    BoardBusy,
    FarmError,
    HostKeyMismatch,
    LeaseLost,
)
from device_farm.facts import BoardFacts
from profilers.golden import Array, check_golden
from profilers.measurement import Measurement, MeasureSettings
from profilers.refusals import ArtifactDied
from profilers.runner import MeasuredSession
from recipes.artifact import Artifact
from search.errors import InfeasibleCandidate

ATTEMPTS = 3
PATIENCE_S = 600.0
POLL_S = 0.5
HOPELESS = (HostKeyMismatch, AuthenticationFailed, AgentMismatch, BoardBusy, LeaseLost)
"""What another attempt does not mend."""
T = TypeVar("T")
log = logging.getLogger(__name__)


class BoardRunner(Protocol):
    """What a bench needs of a board's runner."""

    @property
    def facts(self) -> BoardFacts:
        """What the machine is."""

    runtime_name: str
    runtime_version: str

    def acquire(self, token: int, owner: str, series: str | None = None) -> None:
        """Take the machine's lock. Raises BoardBusy."""

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings) -> MeasuredSession:
        """Measure. Raises InfeasibleCandidate or FarmError."""

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None) -> None:
        """Run a file of examples. Raises InfeasibleCandidate or FarmError."""

    def close(self) -> None:
        """Let the board go; never raises."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An artifact with what its outputs must be."""

    artifact: Artifact
    golden_inputs: Path
    golden_outputs: tuple[Array, ...]
    tolerance: float


class Bench:
    """A board that is held for a search.

    Args:
        name: the board's name, for messages.
        connect: makes a runner; called again after a FarmError.
        owner: who holds the board, for other controllers' messages.
        settings: of every measurement.
        series: what this controller's tokens belong to (its machine and store); within it they rise.
        patience_s: how long to wait while another controller holds the board.
        notice: told once why we wait.
    """

    def __init__(self, name: str, connect: Callable[[], BoardRunner], owner: str, settings: MeasureSettings,
                 series: str, patience_s: float = PATIENCE_S, notice: Callable[[str], None] = log.info) -> None:
        self.name = name
        self._series, self._patience_s, self._notice = series, patience_s, notice
        self.settings = settings
        self._connect = connect
        self._owner = owner
        self._runner: BoardRunner | None = None
        self._held = False
        self._reference: Job | None = None

    def __enter__(self) -> Self:
        """Connect; the lock is taken with the first measurement. Raises FarmError."""
        self._trying("connecting", lambda runner: None, locked=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._drop()

    @property
    def runner(self) -> BoardRunner:
        """The live runner. Raises FarmError when there is none and none can be made."""
        if self._runner is None:
            self._runner, self._held = self._connect(), False
        return self._runner

    def _acquire(self, runner: BoardRunner) -> None:
        """Take the board's lock, waiting while another controller holds it. Raises BoardBusy in the end."""
        if self._held:
            return
        deadline = time.monotonic() + self._patience_s
        told = False
        while True:
            try:
                runner.acquire(time.time_ns() // 1_000_000, self._owner, self._series)
            except BoardBusy as busy:
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    self._notice(f"waiting for {self.name}: {busy}")
                    told = True
                time.sleep(min(POLL_S, self._patience_s))
            else:
                self._held = True
                return

    def set_reference(self, job: Job) -> None:
        """Keep the artifact that is known to run here (float32): it cross-examines the board."""
        self._reference = job

    def measure(self, job: Job, settings: MeasureSettings | None = None) -> Measurement:
        """Measure an artifact and compare its outputs with the host's.

        An unclear death (a crash, a hang) is cross-examined: the reference runs on the board; if it
        passes, the artifact is repeated once; two deaths beside a healthy reference are its own fault.

        Raises:
            InfeasibleCandidate: the candidate's fault.
            FarmError: ours, after a bounded number of attempts.
        """
        try:
            return self._once(job, settings)
        except ArtifactDied as first:
            if self._reference is None or self._reference.artifact.sha256 == job.artifact.sha256:
                raise
            log.warning("%s; the reference artifact is run to see whose fault it is", first)
            self._judge_board()
            try:
                return self._once(job, settings)
            except ArtifactDied as second:
                self._judge_board()
                raise InfeasibleCandidate(f"twice, beside a healthy reference: {second}") from first

    def run(self, artifact: Artifact, inputs: Path, outputs: Path) -> None:
        """Run a file of examples on the board. Raises InfeasibleCandidate or FarmError."""
        self._trying("running a split", lambda runner: runner.run(artifact, inputs, outputs))

    def _judge_board(self) -> None:
        """Run the reference. Raises FarmError when the board does not even run that."""
        if self._reference is None:
            return
        try:
            self._once(self._reference, None)
        except InfeasibleCandidate as error:
            raise FarmError(f"{self.name} is ill: the reference artifact, which ran before, fails now: {error}; "
                            f"see 'orchestrator devices check {self.name}'") from error

    def _once(self, job: Job, settings: MeasureSettings | None) -> Measurement:
        session = self._trying("measuring", lambda runner: runner.measure(
            job.artifact, job.golden_inputs, settings or self.settings))
        check_golden(session.outputs, job.golden_outputs, job.tolerance, self.name)
        return session.measurement

    def _trying(self, what: str, action: Callable[[BoardRunner], T], locked: bool = True) -> T:
        """Do something with the board, reconnecting after a FarmError. Raises the last FarmError."""
        failures: list[str] = []

        def attempt() -> T:
            try:
                runner = self.runner
                if locked:
                    self._acquire(runner)
                return action(runner)
            except FarmError as error:
                failures.append(str(error))
                log.warning("%s: %s failed: %s", self.name, what, error)
                self._drop()
                raise

        retrying = Retrying(stop=stop_after_attempt(ATTEMPTS), wait=wait_exponential(multiplier=0.5, max=8),
                            retry=retry_if_exception(_worth_repeating), reraise=True)
        try:
            return retrying(attempt)
        except FarmError as error:
            if len(failures) == 1:
                raise
            raise type(error)(f"{error} (tried {len(failures)} times)") from error

    def _drop(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None


def _worth_repeating(error: BaseException) -> bool:
    return isinstance(error, FarmError) and not isinstance(error, HOPELESS)
