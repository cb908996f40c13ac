"""Boards of one kind that work on one search: whichever is free takes what is next."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from device_farm.errors import (
    AgentMismatch,
    AuthenticationFailed,
    BoardBusy,
    FarmError,
    HostKeyMismatch,
    LeaseLost,
    Unfit,
)
from orchestrator.bench import Bench, Job, Suspicion, TryElsewhere
from orchestrator.siblings import Siblings
from orchestrator.ward import Ward
from profilers.measurement import Measurement, MeasureSettings
from search.errors import InfeasibleCandidate

R = TypeVar("R")
REST_S = (5.0, 15.0, 60.0)
"""A board that was lost is tried again after so long; then always after the last."""
CLOSE_S = 10.0
NOT_BY_POWER = (HostKeyMismatch, AuthenticationFailed, AgentMismatch, BoardBusy, LeaseLost, Unfit)
"""What switching a board's power does not mend."""
log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Task(Generic[R]):
    """Something that one board does."""

    action: Callable[[Bench, Suspicion], R]
    job: Job | None
    """What it needs on the board, pushed while another is measured."""
    lead: bool
    """The board that leads does it."""
    not_before: float
    """Of time.monotonic()."""
    future: Future[R] = field(default_factory=Future)
    suspicion: Suspicion = field(default_factory=Suspicion)
    avoid: set[str] = field(default_factory=set)
    """Boards on which it has failed, while there are others."""


class State(Enum):
    """How a board stands."""

    STARTING = "starting"
    """Waits for its lease, or connects."""
    IDLE = "idle"
    BUSY = "busy"
    LOST = "lost"


@dataclass(eq=False, slots=True)
class Seat:
    """A board's place in the crew."""

    bench: Bench
    state: State = State.STARTING
    cycled: bool = False
    """Its power was switched since it was lost."""
    rests: int = 0
    """So often it was tried again since it was lost."""
    hand: Task[Any] | None = None
    """What it does next; another board may take it first."""
    pushing: Future[None] | None = None
    busy_s: float = 0.0
    """In timed sessions, as the board's agent saw them."""
    sessions: int = 0


class Crew:
    """Benches that are alike, a thread each. The first one that is well leads: what must stay on one board runs there.

    A board that is lost leaves its work to the others, and comes back when it can. When none is left, what is waiting
    fails with the last one's error.

    Args:
        benches: open; they are closed at the end.
        notice: takes what a person should know.
        stop: the benches' own: set at the end, so that nothing waits on.
        ward: keeps lost boards out of other searches, and switches their power.
    """

    def __init__(self, benches: Sequence[Bench], notice: Callable[[str], None], stop: threading.Event,
                 ward: Ward | None = None) -> None:
        self._seats = [Seat(bench) for bench in benches]
        self._notice, self._stop, self._ward = notice, stop, ward
        self._siblings = Siblings(notice)
        self._waiting: deque[Task[Any]] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._broken: BaseException | None = None
        """What ended a thread."""
        self._leads = self._seats[0]
        self._threads: list[threading.Thread] = []
        self._pushers = ThreadPoolExecutor(len(benches), thread_name_prefix="push")

    def __enter__(self) -> Self:
        """Take the benches over."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._stop.set()
        if kind is not None:
            for seat in self._seats:
                seat.bench.abort()
        for thread in self._threads:
            thread.join(CLOSE_S)
        self._pushers.shutdown(wait=False, cancel_futures=True)
        for seat in self._seats:
            seat.bench.close()

    @property
    def lead(self) -> Bench:
        """The board that leads: as long as it is there, the same one."""
        with self._changed:
            return self._leader().bench

    @property
    def names(self) -> tuple[str, ...]:
        """The boards, in the inventory's order."""
        return tuple(seat.bench.name for seat in self._seats)

    @property
    def size(self) -> int:
        """How many boards are not lost."""
        return sum(seat.state is not State.LOST for seat in self._seats)

    @property
    def settings(self) -> MeasureSettings:
        """Of every measurement."""
        return self._seats[0].bench.settings

    @property
    def sessions(self) -> dict[str, tuple[int, float]]:
        """Board -> timed sessions, and how many seconds they took there."""
        return {seat.bench.name: (seat.sessions, seat.busy_s) for seat in self._seats}

    def set_reference(self, job: Job, latency_s: float | None = None) -> None:
        """Keep what cross-examines the boards (float32), and with its latency makes them comparable."""
        for seat in self._seats:
            seat.bench.set_reference(job)
        if latency_s is not None:
            self._siblings.set_anchor(job, latency_s)

    def submit(self, action: Callable[[Bench, Suspicion], R], job: Job | None = None, *, lead: bool = False,
               delay_s: float = 0.0) -> Future[R]:
        """Have a board do something as soon as one is free.

        Args:
            action: raises InfeasibleCandidate, FarmError (another board does it then) or TryElsewhere.
            job: what it needs on the board.
            lead: the board that leads does it.
            delay_s: not before this has passed.
        """
        task: Task[R] = Task(action, job, lead, time.monotonic() + delay_s)
        with self._changed:
            if self._broken is not None:
                raise self._broken
            if not self._threads:
                self._threads = [threading.Thread(target=self._work, args=(seat,), daemon=True,
                                                  name=seat.bench.name) for seat in self._seats]
                for thread in self._threads:
                    thread.start()
            self._waiting.append(task)
            self._deal()
            self._changed.notify_all()
        return task.future

    def measured(self, job: Job, settings: MeasureSettings | None = None, *, lead: bool = False,
                 delay_s: float = 0.0) -> Future[Measurement]:
        """Have a board measure an artifact; its times can be compared with those of the other boards."""
        def measure(bench: Bench, suspicion: Suspicion) -> Measurement:
            started = time.perf_counter()
            found = bench.measure(job, settings, suspicion)
            log.info("%s: measured %s in %.3f s, session %.3f s", bench.name, job.artifact.sha256[:12],
                     time.perf_counter() - started, found.session_s)
            return self._siblings.comparable(found)

        return self.submit(measure, job, lead=lead, delay_s=delay_s)

    def measure(self, job: Job, settings: MeasureSettings | None = None, *, lead: bool = False) -> Measurement:
        """Have a board measure an artifact, and wait for it. Raises InfeasibleCandidate, FarmError."""
        return waited(self.measured(job, settings, lead=lead))

    def ill(self, what: str, error: InfeasibleCandidate) -> FarmError:
        """Return the farm's fault, see `Bench.ill`."""
        return self.lead.ill(what, error)

    # One board's thread

    def _work(self, seat: Seat) -> None:
        """Serve until the end; whoever waits is told what ended it otherwise, e.g. a store that is gone."""
        try:
            self._serve(seat)
        except BaseException as error:  # noqa: BLE001 - nobody waits for a thread
            log.exception("%s serves no more", seat.bench.name)
            with self._changed:
                seat.state, self._broken = State.LOST, error
                self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        for seat in self._seats:
            if seat.hand is not None:
                self._waiting.append(seat.hand)
                seat.hand = None
        for task in self._waiting:
            task.future.set_exception(error)
        self._waiting.clear()
        self._changed.notify_all()

    def _serve(self, seat: Seat) -> None:
        """Lease the board, then do one task after the other; where it is lost, wait until it is there again."""
        error = self._readied(seat)
        while True:
            while error is not None:
                if not self._mended(seat, error) and not self._rest(seat, error):
                    return
                error = self._readied(seat)
            task = self._next(seat)
            if task is None:
                return
            try:
                self._compare(seat)
                self._do(seat, task)
            except FarmError as failure:
                self._again(task, seat)
                error = failure
            except BaseException as failure:
                task.future.set_exception(failure)
                if not isinstance(failure, KeyboardInterrupt):
                    raise

    def _readied(self, seat: Seat) -> FarmError | KeyboardInterrupt | None:
        """Connect, lease and lock; one that was lost must run the reference twice. Return what went wrong."""
        try:
            seat.bench.ready()
            if seat.state is State.LOST:
                for found in seat.bench.recheck():
                    self._remember(found)
        except (FarmError, KeyboardInterrupt) as error:
            return error
        with self._changed:
            was, seat.state, seat.rests, seat.cycled = seat.state, State.IDLE, 0, False
            self._changed.notify_all()
        if was is State.LOST:
            if self._ward is not None:
                self._ward.discharge(seat.bench.name)
            self._notice(f"{seat.bench.name} is back")
        return None

    def _do(self, seat: Seat, task: Task[Any]) -> None:
        """Do a task. Raises FarmError when the board cannot."""
        with self._changed:
            pushing, seat.pushing = seat.pushing, None
        if pushing is not None:
            pushing.exception()  # whatever it was: what is missing is pushed again
        with self._changed:
            self._deal()
        task.suspicion.elsewhere = bool(self._others(seat))
        try:
            result = task.action(seat.bench, task.suspicion)
        except TryElsewhere as error:
            log.warning("%s; it is tried on another board", error)
            self._again(task, seat)
        except FarmError:
            raise
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
            task.future.set_exception(error)
        else:
            if isinstance(result, Measurement):
                seat.sessions += 1
                seat.busy_s += result.session_s
            task.future.set_result(result)

    def _compare(self, seat: Seat) -> None:
        """Run the reference where that is due. Raises FarmError."""
        reference, name = self._siblings.reference, seat.bench.name
        watched = self._ward is not None and self._ward.watches(name)
        for _ in range(self._siblings.due(name, len(self._seats), watched)):
            if reference is not None:
                found = seat.bench.judge(reference)
                self._remember(found)
                self._siblings.add(found)

    def _remember(self, found: Measurement) -> None:
        """Compare a board's reading of a reference with its earlier ones. Raises Unfit."""
        if self._ward is not None and self._ward.watches(found.board):
            self._ward.judge(found.board, found)

    def _next(self, seat: Seat) -> Task[Any] | None:
        """Wait for a task; None at the end."""
        with self._changed:
            seat.state = State.IDLE
            while not self._closed:
                task = self._pick(seat)
                if task is not None:
                    seat.state = State.BUSY
                    return task
                soonest = min((task.not_before for task in self._waiting), default=float("inf"))
                self._changed.wait(max(0.01, min(60.0, soonest - time.monotonic())))
            return None

    def _pick(self, seat: Seat) -> Task[Any] | None:
        """Take a board's next task: what it has in hand, what waits, or what another one has in hand."""
        if seat.hand is not None:
            task, seat.hand = seat.hand, None
            return task
        leads = self._leader() is seat
        for task in self._waiting:
            if self._may(seat, task) and (leads or not task.lead):
                self._waiting.remove(task)
                return task
        for other in self._seats:
            if other.hand is not None and self._may(seat, other.hand):
                task, other.hand = other.hand, None
                return task
        return None

    def _deal(self) -> None:
        """Choose what busy boards do next, and push it meanwhile; what idle boards can do now is left to them."""
        if any(seat.state is State.IDLE for seat in self._seats):
            return
        for seat in self._seats:
            if seat.state is not State.BUSY or seat.hand is not None:
                continue
            seat.hand = next((task for task in self._waiting if not task.lead and self._may(seat, task)), None)
            if seat.hand is None:
                continue
            self._waiting.remove(seat.hand)
            if seat.hand.job is not None and seat.pushing is None:
                seat.pushing = self._pushers.submit(seat.bench.prefetch, seat.hand.job)

    def _may(self, seat: Seat, task: Task[Any]) -> bool:
        avoided = seat.bench.name in task.avoid and bool(self._others(seat))
        return task.not_before <= time.monotonic() and not avoided

    def _leader(self) -> Seat:
        there = [seat for seat in self._seats if seat.state in (State.IDLE, State.BUSY)]
        if self._leads not in there and there:
            self._leads = there[0]
        return self._leads

    def _others(self, seat: Seat) -> list[Seat]:
        """Return the other boards that could do something now or soon."""
        return [other for other in self._seats if other is not seat and other.state in (State.IDLE, State.BUSY)]

    def _again(self, task: Task[Any], seat: Seat) -> None:
        """Give a task back, for another board first of all."""
        with self._changed:
            task.avoid.add(seat.bench.name)
            self._waiting.appendleft(task)
            self._changed.notify_all()

    def _mended(self, seat: Seat, error: FarmError | KeyboardInterrupt) -> bool:
        """Write down that a board is lost; the second time it is tried in vain, switch its power. True after that."""
        if self._ward is None or self._closed or isinstance(error, KeyboardInterrupt):
            return False
        if seat.state is not State.LOST:
            self._ward.admit(seat.bench.name, error)
        alone = not self._others(seat)
        if seat.cycled or not (alone or seat.rests >= 1) or isinstance(error, NOT_BY_POWER):
            return False
        seat.cycled = True
        if not self._ward.cycle(seat.bench.name):
            return False
        with self._changed:
            seat.state = State.LOST
        return seat.bench.returned()

    def _rest(self, seat: Seat, error: FarmError | KeyboardInterrupt) -> bool:
        """Leave the work to the others for a while; False at the end.

        Where there is no other board, what waits fails; later tasks find this one tried again.
        """
        with self._changed:
            before, seat.state = seat.state, State.LOST
            if seat.hand is not None:
                self._waiting.appendleft(seat.hand)
                seat.hand = None
            if self._closed:
                return False
            alone = all(other.state is State.LOST for other in self._seats)
            if alone:
                self._fail_all(error)
            self._changed.notify_all()
        if not alone and isinstance(error, KeyboardInterrupt):  # it was waiting for its lease
            return False
        if alone:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                return not self._closed
        if before is not State.LOST:
            self._notice(f"{seat.bench.name} is lost, the other boards go on: {error}")
        rest_s = REST_S[min(seat.rests, len(REST_S) - 1)]
        seat.rests += 1
        with self._changed:
            self._changed.wait_for(lambda: self._closed, rest_s)
            return not self._closed


def waited(future: Future[R]) -> R:
    """Wait so that signals are served meanwhile; raises what was raised."""
    while True:
        try:
            return future.result(timeout=0.5)
        except TimeoutError:
            if future.done():
                raise
