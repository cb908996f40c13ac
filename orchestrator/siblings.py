"""What boards of one kind differ by, and how far they drift: told by one artifact that all of them run."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from orchestrator.bench import Job
from profilers.measurement import Measurement

READINGS = 3
"""Of the reference on every board; their median counts, and none does before there are so many."""
AGAIN_S = 600.0
"""A board's reference is read again after so long."""
DIFFERENT = 0.02
"""What is less (or less than the readings' own spread) is not corrected: it would add noise and mend nothing."""
DRIFT = 0.05
"""Against the siblings: reported."""
FOREIGN = 0.25
"""Boards of one kind that differ by more are reported."""


class Siblings:
    """Readings of the reference on the boards of a search. Threads may share it.

    Args:
        notice: takes what a person should know.
        clock: seconds, monotonic.
    """

    def __init__(self, notice: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._notice, self._clock = notice, clock
        self._lock = threading.Lock()
        self._reference: Job | None = None
        self._anchor_s = self._since = 0.0
        self._readings: defaultdict[str, list[float]] = defaultdict(list)
        self._read: dict[str, float] = {}
        self._told: set[str] = set()

    @property
    def reference(self) -> Job | None:
        """What is read; None before it is known."""
        return self._reference

    def set_anchor(self, reference: Job, latency_s: float) -> None:
        """Say what all boards are compared by: the study's own measurement of its reference."""
        with self._lock:
            if self._reference is None:
                self._reference, self._anchor_s, self._since = reference, latency_s, self._clock()

    def due(self, board: str, boards: int, watched: bool = False) -> int:
        """Return how often the reference is to be read now on one of so many boards; once at first if watched."""
        with self._lock:
            if self._reference is None:
                return 0
            if boards > 1 and len(self._readings[board]) < READINGS:
                return READINGS - len(self._readings[board])
            if watched and not self._readings[board]:
                return 1
            return int(self._clock() - self._read.get(board, self._since) > AGAIN_S)

    def add(self, measurement: Measurement) -> None:
        """Take a reading; a board that is no longer like its siblings is reported once."""
        with self._lock:
            readings = self._readings[measurement.board]
            readings.append(statistics.median(measurement.wall_ns) * 1e-9)
            self._read[measurement.board] = self._clock()
            said = self._drift(measurement.board) if len(readings) > READINGS else None
            if len(readings) == READINGS:
                said = self._foreign(measurement.board)
            if said is None or measurement.board in self._told:
                return
            self._told.add(measurement.board)
        self._notice(said)

    def comparable(self, measurement: Measurement) -> Measurement:
        """Return the measurement with what its times are multiplied by before others of the study stand beside it."""
        with self._lock:
            scale = self._scale(measurement.board)
        return replace(measurement, scale=scale)

    def _scale(self, board: str) -> float:
        last = self._readings[board][-READINGS:]
        if len(last) < READINGS:
            return 1.0
        ratio = self._anchor_s / statistics.median(last)
        spread = math.log(max(last) / min(last))
        return ratio if abs(math.log(ratio)) > max(DIFFERENT, spread) else 1.0

    def _change(self, board: str) -> float:
        """Return how much slower a board has become since its first readings, as a logarithm."""
        readings = self._readings[board]
        return math.log(statistics.median(readings[-READINGS:]) / statistics.median(readings[:READINGS]))

    def _drift(self, board: str) -> str | None:
        """Say that the last readings of a board, all of them, differ from the first ones more than its siblings' do."""
        others = [self._change(other) for other, found in self._readings.items()
                  if other != board and len(found) >= READINGS]
        change, beside = self._change(board), statistics.median(others) if others else 0.0
        first = statistics.median(self._readings[board][:READINGS])
        apart = [math.log(reading / first) - beside for reading in self._readings[board][-READINGS:]]
        if min(apart) <= DRIFT and max(apart) >= -DRIFT:
            return None
        siblings = f", its siblings {_percent(beside)}" if others else ""
        return (f"{board} drifts: the reference takes {_percent(change)} since the start{siblings}; its times are "
                f"corrected; see 'orchestrator devices check {board}'")

    def _foreign(self, board: str) -> str | None:
        ratio = math.log(statistics.median(self._readings[board]) / self._anchor_s)
        if abs(ratio) <= FOREIGN:
            return None
        return (f"{board} takes {_percent(ratio)} for the reference than where it was measured first: is it of the "
                f"same kind? See 'orchestrator devices check {board}'")


def _percent(change: float) -> str:
    share = math.exp(change) - 1
    return f"{abs(share):.0%} {'longer' if share >= 0 else 'less'}"
