"""The result is confirmed: finalist, float32 and the fastest baseline, interleaved, in fresh processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from orchestrator.crew import Crew
from orchestrator.loop import Found
from orchestrator.store.records import Purpose, TrialHistory
from orchestrator.store.store import Store
from profilers.statistics import probability_ratio_within, probability_within
from search.errors import InfeasibleCandidate

LOOKS = (5, 9, 15)
"""Rounds after which the probability is looked at; a sequential test stops at the first clear one."""
CLEAR = 0.02
SAMPLING_S = 0.4
BIAS = 0.007
"""What all rounds of one confirmation share, relative: a board is a little faster or slower from day to day. It cancels
where the budget is a share of a baseline that is measured beside."""

log = logging.getLogger(__name__)
Sessions = dict[str, list[tuple[int, ...]]]


def confirm(store: Store, crew: Crew, members: Mapping[str, Found], anchors: Mapping[str, Found],
            sessions: Sessions, clear: Callable[[Sessions], bool], stop: Callable[[], bool]) -> None:
    """Measure every member once a round, in turn, until the answer is clear or the rounds are over.

    Only rounds in which all members were measured count. Those that an earlier controller stored do too;
    a round that it did not finish is not continued, for its measurements would not be side by side.

    Args:
        store: every measurement is kept there, as a confirmation of its round.
        crew: the boards; all rounds run on the one that leads. Where that is lost, the next one begins anew.
        members: candidate id -> what is confirmed.
        anchors: candidate id -> what is measured beside it: float32 and other baselines.
        sessions: candidate id -> wall times (ns) of each round, () where it was not measured; filled here.
        clear: tells whether the sessions so far decide.
        stop: the user says enough.

    Raises:
        FarmError: the board is lost, or no longer runs what it ran before.
    """
    everyone = {**members, **anchors}
    settings = replace(crew.settings, max_sampling_s=min(SAMPLING_S, crew.settings.max_sampling_s))
    board = crew.lead.name
    for identity, member in everyone.items():
        if identity not in sessions:
            sessions[identity] = rounds_of(store.history(member.trial.id), board)
    while True:
        last = max(len(rounds) for rounds in sessions.values())
        complete = sum(all(len(sessions[i]) > r and sessions[i][r] for i in everyone) for r in range(last))
        if complete >= LOOKS[-1] or (complete in LOOKS and clear(sessions)):
            return
        for identity, member in everyone.items():
            try:
                measurement = crew.measure(member.job(), settings, lead=True)
            except InfeasibleCandidate as error:
                if identity in anchors:
                    raise crew.ill(str(member.name), error) from error
                log.warning("finalist %s fails in the confirmation: %s", identity, error)
                sessions[identity] = []
                return
            if measurement.board != board:
                log.warning("%s is lost: the confirmation begins anew on %s", board, measurement.board)
                board = measurement.board
                sessions.update({i: rounds_of(store.history(m.trial.id), board) for i, m in everyone.items()})
                break
            store.add_measurement(member.trial.id, measurement, Purpose.CONFIRM, last + 1)
            missed = last - len(sessions[identity])
            sessions[identity] += [()] * missed + [measurement.comparable_ns]
        else:
            if stop():
                return


def rounds_of(history: TrialHistory, board: str) -> list[tuple[int, ...]]:
    """Return the wall times (ns) of every round that was measured on a board, () where it was not."""
    found = {r.session: r.measurement.comparable_ns for r in history.measurements
             if r.purpose is Purpose.CONFIRM and r.measurement.board == board}
    return [found.get(round_, ()) for round_ in range(1, max(found, default=0) + 1)]


def probability_met(sessions: Sessions, candidate: str, statistic: str, absolute_s: float | None,
                    baseline: str | None, factor: float | None) -> float:
    """Return P(the candidate meets its budget): absolute, or a share of a baseline measured beside it."""
    if absolute_s is not None:
        return probability_within(sessions[candidate], absolute_s, statistic, BIAS)
    if baseline is None or factor is None:
        raise ValueError("a relative budget needs a baseline and a factor")
    return probability_ratio_within(sessions[candidate], sessions[baseline], factor, statistic)


def is_clear(probability: float, confidence: float) -> bool:
    """Tell whether more rounds would hardly change the verdict."""
    return probability >= confidence + (1 - confidence) * 0.5 or probability <= CLEAR or np.isnan(probability)
