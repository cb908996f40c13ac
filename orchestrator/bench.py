"""One board while a search uses it: reconnects, retries, and decides whose fault a failure is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
)

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
    Unfit,
)
from device_farm.facts import BoardFacts
from device_farm.leases import RENEW_S
from orchestrator.leasing import PATIENCE_S, Leasing, Tenant
from profilers.golden import Array, check_golden
from profilers.measurement import Measurement, MeasureSettings
from profilers.refusals import ArtifactDied
from profilers.runner import MeasuredSession
from recipes.artifact import Artifact
from search.errors import InfeasibleCandidate

ATTEMPTS = 3
RETURN_S = 90.0
"""A board that was lost while it ran a candidate may boot for so long."""
FATAL = 2
"""Boards that may die under an artifact; then it is never sent again."""
LOSSES = 10
"""So often a lease may be lost while one candidate runs."""
RECHECKS = 2
"""Times a board that was lost must run its references before it serves again."""
POLL_S = 0.5
PAUSES_S = (10.0, 30.0, 60.0)
"""Before a disturbed session is repeated."""
HOGGED_CORES = 0.5
"""Used by other processes meanwhile: said."""
STARVED = 0.05
"""Of the session spent waiting for a core: said; twice that is repeated."""
Neighbours = Literal["ignored", "said", "repeated"]
"""What is done about throttling and other processes: a board that shares its host has no say in them; on this computer
they are its user's; on a board of its own a disturbed session is repeated."""
HOPELESS = (HostKeyMismatch, AuthenticationFailed, AgentMismatch, BoardBusy, Unfit)
"""What another attempt does not mend."""
LOST = (ChannelClosed, ChannelStalled)
"""The board, or the way to it, is gone: unclear while it runs a candidate."""
T = TypeVar("T")
log = logging.getLogger(__name__)


class BoardRunner(Protocol):
    """What a bench needs of a board's runner."""

    @property
    def facts(self) -> BoardFacts:
        """What the machine is."""

    runtimes: Mapping[str, str]
    """Name -> version of what runs artifacts there."""
    warnings: tuple[str, ...]
    """What may make its figures poor."""

    def acquire(self, token: int, owner: str, series: str | None = None) -> None:
        """Take the machine's lock. Raises BoardBusy."""

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings,
                runtime: str | None = None) -> MeasuredSession:
        """Measure. Raises InfeasibleCandidate or FarmError."""

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None,
            runtime: str | None = None) -> None:
        """Run a file of examples. Raises InfeasibleCandidate or FarmError."""

    def prefetch(self, artifact: Artifact, inputs: Path) -> None:
        """Push what the board lacks, from another thread, on a connection of its own. Raises FarmError."""

    def close(self) -> None:
        """Let the board go; never raises."""


class DeathBook(Protocol):
    """Remembers under which artifacts boards died, beyond one controller's life."""

    def deaths(self, artifact_sha256: str, kind: str) -> int:
        """Return how many boards of this kind died under the artifact."""

    def add_death(self, artifact_sha256: str, board: str, kind: str, what: str) -> None:
        """Write down one more."""


@dataclass(slots=True)
class Suspicion:
    """What has happened under an artifact so far, on whichever boards."""

    failures: list[Exception] = field(default_factory=list)
    elsewhere: bool = False
    """Another board could repeat it."""


class TryElsewhere(Exception):
    """The board is healthy, and the artifact failed there: another board is to repeat it."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An artifact with what its outputs must be."""

    artifact: Artifact
    golden_inputs: Path
    golden_outputs: tuple[Array, ...]
    tolerance: float
    runtime: str | None = None
    """What executes it; None: the board's first."""


class Bench:
    """A board that is held for a search.

    Args:
        name: the board's name, for messages.
        kind: what kind of board it is.
        connect: makes a runner; called again after a FarmError.
        who: leases the board; its tokens go to the agent.
        settings: of every measurement.
        deaths: remembers under which artifacts boards died.
        patience_s: how long to wait while the board is another's.
        return_s: how long to wait for a board that was lost while it ran a candidate.
        notice: told once why we wait.
        stop: set when the user wants no more waiting; a wait then ends in KeyboardInterrupt.
        renew_s: how often the lease is renewed.
        neighbours: what is done about throttling and other processes.
    """

    def __init__(self, name: str, kind: str, connect: Callable[[], BoardRunner], who: Tenant,
                 settings: MeasureSettings, deaths: DeathBook, patience_s: float = PATIENCE_S,
                 return_s: float | None = None, notice: Callable[[str], None] = log.info,
                 stop: threading.Event | None = None, renew_s: float = RENEW_S,
                 neighbours: Neighbours = "ignored") -> None:
        self.name, self.settings = name, settings
        self.kind, self._connect, self._who = kind, connect, who
        self._deaths, self._patience_s, self._notice = deaths, patience_s, notice
        self._return_s = RETURN_S if return_s is None else return_s
        self._stop, self._renew_s, self._neighbours = stop or threading.Event(), renew_s, neighbours
        self._runner: BoardRunner | None = None
        self._leasing: Leasing | None = None
        self._warned: set[str] = set()
        self._boot: str | None = None
        self._references: dict[str | None, Job] = {}

    def __enter__(self) -> Self:
        """Connect."""
        self.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the board go, and give its lease back; never raises."""
        self._drop()
        self._leave()

    def connect(self) -> None:
        """Connect; the board is leased with the first measurement. Raises FarmError."""
        self._trying("connecting", lambda runner: None, locked=False)

    def abort(self) -> None:
        """From another thread: break off what the board does; its thread ends with an error."""
        runner = self._runner
        if runner is not None:
            runner.close()

    def ready(self) -> None:
        """Connect, lease the board and take its lock. Raises FarmError, KeyboardInterrupt."""
        self._trying("taking the board", lambda runner: None)

    def returned(self) -> bool:
        """Wait for the board, that boots; tell whether it is there."""
        try:
            self._trying("reconnecting", lambda runner: None, locked=False, within_s=self._return_s)
        except (FarmError, KeyboardInterrupt):
            return False
        return True

    def recheck(self) -> list[Measurement]:
        """See that the board runs its references again, and how fast. Raises FarmError."""
        return [self.judge(job) for job in [*self._references.values()] * RECHECKS]

    def prefetch(self, job: Job) -> None:
        """From another thread: push what a later job needs. Raises FarmError; what is missing is pushed again."""
        runner = self._runner
        if runner is not None:
            runner.prefetch(job.artifact, job.golden_inputs)

    @property
    def runner(self) -> BoardRunner:
        """The live runner. Raises FarmError when there is none and none can be made."""
        if self._runner is None:
            self._runner = self._connect()
            self._boot = self._runner.facts.boot_id
            self._say(*self._runner.warnings)
        return self._runner

    def _say(self, *warnings: str) -> None:
        """Tell the user, each once."""
        for warning in warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._notice(warning)

    def _acquire(self, runner: BoardRunner) -> None:
        """Lease the board and take its lock, waiting while it is another's.

        The lock is taken before everything that is measured: it tells us whether it is still ours.

        Raises:
            BoardBusy: the patience is over.
            LeaseLost: the board became another's meanwhile.
            KeyboardInterrupt: the user wants no more waiting.
        """
        if self._leasing is None:
            self._leasing = Leasing(self._who, self._patience_s, self._notice, self._stop, self._renew_s)
        deadline = time.monotonic() + self._patience_s
        told = False
        while True:
            try:
                runner.acquire(self._leasing.lease.token, f"{self._who.owner} for {self._who.purpose}",
                               self._who.series)
            except BoardBusy as busy:  # one with another store
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    self._notice(f"waiting for {self.name}: {busy}")
                    told = True
                if self._stop.wait(min(POLL_S, self._patience_s)):
                    raise KeyboardInterrupt from busy
            else:
                self._say(*runner.warnings)
                return

    def set_reference(self, job: Job) -> None:
        """Keep an artifact that is known to run here (float32): it cross-examines the board, and its own runtime."""
        self._references[job.runtime] = job

    def _reference(self, job: Job) -> Job | None:
        """Return what stands beside a job: of its own runtime, else of the first that has one."""
        return self._references.get(job.runtime) or next(iter(self._references.values()), None)

    def measure(self, job: Job, settings: MeasureSettings | None = None,
                suspicion: Suspicion | None = None) -> Measurement:
        """Measure an artifact and compare its outputs with the host's.

        Args:
            job: the artifact.
            settings: default: the bench's.
            suspicion: what has happened under it on other boards.

        Raises:
            InfeasibleCandidate: the candidate's fault, see `_examined`.
            TryElsewhere: it is unclear whose fault it is, and there is another board.
            FarmError: ours, after a bounded number of attempts.
            KeyboardInterrupt: the user wants no more waiting.
        """
        session = self.session(job, settings, suspicion)
        check_golden(session.outputs, job.golden_outputs, job.tolerance, self.name)
        return session.measurement

    def session(self, job: Job, settings: MeasureSettings | None = None,
                suspicion: Suspicion | None = None) -> MeasuredSession:
        """Measure an artifact whose outputs the caller judges. Raises as `measure`."""
        doubts = suspicion or Suspicion()
        return self._undisturbed(lambda: self._examined(job, doubts, lambda runner: runner.measure(
            job.artifact, job.golden_inputs, settings or self.settings, job.runtime)))

    def _undisturbed(self, measure: Callable[[], MeasuredSession]) -> MeasuredSession:
        """Measure; repeat after a pause where the clock was taken away, or other processes took the cores.

        Raises:
            Unfit: the board stays throttled. Other processes do not make it unfit: the median bears them.
            KeyboardInterrupt: the user wants no more waiting.
        """
        session = measure()
        for pause_s in PAUSES_S if self._neighbours == "repeated" else ():
            why = self._throttled(session.measurement) or self._starved(session.measurement, 2 * STARVED)
            if why is None:
                break
            self._notice(f"{why}; it is measured again in {pause_s:g} s")
            if self._stop.wait(pause_s):
                raise KeyboardInterrupt
            session = measure()
        throttled = self._throttled(session.measurement)
        if throttled is not None and self._neighbours == "repeated":
            raise Unfit(f"{throttled}, {len(PAUSES_S) + 1} times: give it a better power supply, a heat sink or a fan, "
                        "or `cool_below` in the inventory")
        if self._neighbours != "ignored":
            beside = throttled or self._starved(session.measurement, STARVED)
            self._say(*([beside] if beside is not None else []))
        return session

    def _throttled(self, found: Measurement) -> str | None:
        if not found.conditions.still_throttled:
            return None
        return f"{self.name} was throttled while it measured ({', '.join(found.conditions.throttled)})"

    def _starved(self, found: Measurement, share: float) -> str | None:
        """Say that other processes used the board, which a session felt for a share of its time."""
        seen = found.conditions
        waited = (seen.waited_s or 0.0) / max(found.session_s, 1e-3) / found.threads
        if waited <= share and not (share <= STARVED and (seen.others_cores or 0.0) >= HOGGED_CORES):
            return None
        return f"{self.name}: other processes used its cores while it measured, most of all {seen.hog}"

    def run(self, job: Job, inputs: Path, outputs: Path, suspicion: Suspicion | None = None) -> None:
        """Run a file of examples on the board. Raises as `measure`."""
        self._examined(job, suspicion or Suspicion(),
                       lambda runner: runner.run(job.artifact, inputs, outputs, runtime=job.runtime))

    def _examined(self, job: Job, suspicion: Suspicion, action: Callable[[BoardRunner], T]) -> T:
        """Do something with a candidate, and cross-examine an unclear death.

        When the artifact crashes or hangs, or the board is lost, the reference must pass on the board;
        then the candidate is repeated. It is to blame for two crashes, for two boards (or one board twice)
        that booted again or did not come back, and for a connection that breaks ATTEMPTS times under it. It is not
        where the board became another's meanwhile, who ended our agent: then it is leased anew.
        """
        reference = self._reference(job)
        if reference is None or reference.artifact.sha256 == job.artifact.sha256:
            return self._trying("running the reference", action)
        failures, lost = suspicion.failures, 0
        while True:
            died = self._deaths.deaths(job.artifact.sha256, self.kind)
            if died >= FATAL:
                raise InfeasibleCandidate(f"{died} boards of kind {self.kind} died (booted again, or did not come "
                                          "back) while they ran it; it is not sent again")
            crashed = sum(isinstance(f, ArtifactDied) for f in failures)
            if crashed == 2 or len(failures) == ATTEMPTS:
                times = "twice" if len(failures) == 2 else f"{len(failures)} times"
                raise InfeasibleCandidate(f"{times}, beside a healthy reference: {failures[-1]}") from failures[-1]
            try:
                return self._trying("running a candidate", action, surviving=LOST)
            except ArtifactDied as error:
                failures.append(error)
                log.warning("%s; the reference artifact is run to see whose fault it is", error)
                self.judge(reference)
                self._elsewhere(suspicion)
            except LOST as error:
                if self._is_lost_lease() and lost < LOSSES:
                    lost += 1
                    continue
                failures.append(error)
                self._notice(f"{self.name} was lost while it ran a candidate ({error}); waiting up to "
                             f"{self._return_s:.0f} s for it")
                self._await_board(job, reference, self._boot)
                self._elsewhere(suspicion)

    def _elsewhere(self, suspicion: Suspicion) -> None:
        """Raise TryElsewhere after a first failure, where there is another board."""
        if suspicion.elsewhere and len(suspicion.failures) == 1:
            raise TryElsewhere(f"{self.name} runs the reference, and not the candidate: {suspicion.failures[0]}")

    def _is_lost_lease(self) -> bool:
        """Tell whether the board is another's by now; then forget our lease."""
        try:
            if self._leasing is not None:
                self._leasing.confirm()
        except LeaseLost as error:
            self._notice(f"{error}; it is leased anew")
            self._leave()
            return True
        return False

    def _await_board(self, job: Job, reference: Job, boot: str | None) -> None:
        """Wait for a lost board, run the reference, and write down whether the board had died. Raises FarmError."""
        def died(what: str) -> None:
            log.warning("%s %s while it ran %s", self.name, what, job.artifact.sha256)
            self._deaths.add_death(job.artifact.sha256, self.name, self.kind, what)

        try:
            self._trying("reconnecting", lambda runner: None, locked=False, within_s=self._return_s)
        except (*LOST, BoardUnreachable):
            died("did not come back")
            raise
        if self._boot != boot:
            died("booted again")
        self.judge(reference)

    def judge(self, job: Job) -> Measurement:
        """Run the reference. Raises FarmError when the board does not even run that."""
        try:
            session = self._undisturbed(lambda: self._trying("running the reference", lambda runner: runner.measure(
                job.artifact, job.golden_inputs, self.settings, job.runtime)))
            check_golden(session.outputs, job.golden_outputs, job.tolerance, self.name)
        except InfeasibleCandidate as error:
            raise self.ill("the reference artifact", error) from error
        return session.measurement

    def ill(self, what: str, error: InfeasibleCandidate) -> FarmError:
        """Return the farm's fault: the board fails with what it ran before, and what is no candidate."""
        return FarmError(f"{self.name} is ill: {what}, which ran before, fails now: {error}; "
                         f"see 'orchestrator devices check {self.name}'")

    def _trying(self, what: str, action: Callable[[BoardRunner], T], *, locked: bool = True,
                surviving: tuple[type[FarmError], ...] = (), within_s: float | None = None) -> T:
        """Do something with the board, reconnecting after a FarmError.

        Args:
            what: for messages.
            action: what to do.
            locked: it needs the board's lock.
            surviving: errors of the action itself that are raised at once.
            within_s: try for so long, instead of a number of times.

        Raises:
            FarmError: the last one.
            KeyboardInterrupt: the user wants no more waiting.
        """
        failures: list[str] = []
        acting = False

        def attempt() -> T:
            nonlocal acting
            acting = False
            try:
                runner = self.runner
                if locked:
                    self._acquire(runner)
                acting = True
                return action(runner)
            except FarmError as error:
                failures.append(str(error))
                log.warning("%s: %s failed: %s", self.name, what, error)
                self._drop()
                if isinstance(error, LeaseLost):
                    self._notice(f"{error}; {self.name} is leased anew")
                    self._leave()
                raise

        def worth_repeating(error: BaseException) -> bool:
            return (isinstance(error, FarmError) and not isinstance(error, HOPELESS)
                    and not (acting and isinstance(error, surviving)))

        enough = stop_after_attempt(ATTEMPTS) if within_s is None else stop_after_delay(within_s)
        retrying = Retrying(stop=enough | stop_when_event_set(self._stop), sleep=sleep_using_event(self._stop),
                            wait=wait_exponential(multiplier=0.5, max=8),
                            retry=retry_if_exception(worth_repeating), reraise=True)
        try:
            return retrying(attempt)
        except FarmError as error:
            if self._stop.is_set() and worth_repeating(error):
                raise KeyboardInterrupt from error
            if len(failures) == 1:
                raise
            raise type(error)(f"{error} (tried {len(failures)} times)") from error

    def _drop(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _leave(self) -> None:
        if self._leasing is not None:
            self._leasing.release()
            self._leasing = None
