"""When a search ends early: after enough low readings, never while nothing meets the goal, and when nothing can."""

from __future__ import annotations

import math
from itertools import product

import pytest

from search.adaptive.judge import Outlook
from search.adaptive.reach import Reach
from search.candidate import Candidate
from search.goal import Evidence, Front, Goal
from search.hypervolume import Corner, hypervolume
from search.proposers.stopping import LOST, PATIENCE, Stopping, Why
from search.space import FLOAT32, SearchSpace
from tests.search.adaptive_spaces import proposer
from tests.search.spaces import DYNAMIC, INT4, INT8, AdditiveBoard, wide_space

LOW, HIGH = Outlook(1e-5, 0.01), Outlook(1e-3, 0.3)
NEAR, FAR = Reach(0.001, 0.2), Reach(0.002, 0.001)


class Scripted:
    """A proposer that says what it was told to say."""

    def __init__(self, outlook: Outlook | None = None, reach: Reach | None = None) -> None:
        self.said, self.reached = outlook, reach

    def propose(self) -> Candidate | None:
        return None

    def foresee(self) -> None:
        """There is nothing to renew."""

    def surprising(self, candidate: Candidate, latency_s: float) -> bool:
        return False

    def tell(self, candidate: Candidate, evidence: Evidence | None) -> None:
        """Nothing."""

    def notes(self) -> str | None:
        raise AssertionError("it is only looked at")

    def learn(self, notes: str) -> None:
        raise AssertionError("it is only looked at")

    def outlook(self) -> Outlook | None:
        return self.said

    def reach(self) -> Reach | None:
        return self.reached


def looks(stopping: Stopping, proposer: Scripted, count: int, met: bool = True) -> list[Why | None]:
    return [stopping.look(proposer, met) for _ in range(count)]


def test_it_stops_after_so_many_low_readings_and_not_before() -> None:
    assert looks(Stopping(0.05), Scripted(LOW), PATIENCE) == [None] * (PATIENCE - 1) + [Why.OUTLOOK]


def test_a_high_reading_starts_the_count_again() -> None:
    stopping = Stopping(0.05)
    assert looks(stopping, Scripted(LOW), PATIENCE - 1) == [None] * (PATIENCE - 1)
    assert stopping.look(Scripted(HIGH), met=True) is None
    assert looks(stopping, Scripted(LOW), PATIENCE)[-2:] == [None, Why.OUTLOOK]


@pytest.mark.parametrize(("below", "said"), [(0.0, LOW), (0.05, HIGH), (0.05, None), (0.01, LOW)])
def test_it_goes_on_where_it_is_off_or_enough_is_expected_or_nothing_is_said(below: float,
                                                                             said: Outlook | None) -> None:
    assert looks(Stopping(below), Scripted(said), 3 * PATIENCE) == [None] * (3 * PATIENCE)


def test_it_never_stops_for_its_outlook_while_nothing_meets_the_goal() -> None:
    stopping = Stopping(0.05)
    assert looks(stopping, Scripted(LOW, NEAR), 3 * PATIENCE, met=False) == [None] * (3 * PATIENCE)
    assert looks(stopping, Scripted(LOW, NEAR), PATIENCE) == [None] * (PATIENCE - 1) + [Why.OUTLOOK]


def test_a_budget_out_of_reach_ends_it_while_nothing_meets_the_goal() -> None:
    assert looks(Stopping(0.0), Scripted(None, FAR), LOST, met=False) == [None] * (LOST - 1) + [Why.UNREACHABLE]
    assert looks(Stopping(0.0), Scripted(None, FAR), 3 * LOST) == [None] * (3 * LOST), "something met it already"


# What proposers say


def told(goal: Goal, sampler: str, count: int, seed: int = 0) -> tuple[list[Outlook | None], list[Reach | None]]:
    """Return what a sampler says after each of so many proposals."""
    space = wide_space(6)
    board, asked = AdditiveBoard(space), proposer(space, goal, sampler, seed)
    for config in (FLOAT32, INT8, DYNAMIC):
        whole = Candidate.of(space, {layer.name: config for layer in space.layers})
        asked.tell(whole, board.evidence(whole))
    outlooks, reaches = [], []
    for _ in range(count):
        candidate = asked.propose()
        assert candidate is not None
        outlooks.append(asked.outlook())
        reaches.append(asked.reach())
        asked.tell(candidate, board.evidence(candidate))
    return outlooks, reaches


@pytest.mark.parametrize(("goal", "seed"), [
    (Goal("top1", latency_budget_s=0.0009), 0), (Goal("top1", minimum={"top1": 0.88}), 0),
    *((Goal("top1", front=Front(0.89)), seed) for seed in (0, 2, 4))])
def test_the_adaptive_sampler_expects_less_and_less(goal: Goal, seed: int) -> None:
    """Also on a front, where what is faster and worse than everything measured adds nothing, and more is left."""
    said = [outlook for outlook in told(goal, "adaptive", 60, seed)[0] if outlook is not None]
    assert max(outlook.probability for outlook in said[:6]) > 0.2
    assert min(outlook.probability for outlook in said[-6:]) < (0.05 if goal.front is None else 0.1)
    assert all(math.isfinite(outlook.gain) for outlook in said)
    if goal.latency_budget_s is not None:
        assert all(outlook.gain <= 0.001 for outlook in said if outlook.probability == 0), "0.1 points are a gain"


def test_nothing_is_said_while_nothing_meets_the_goal_and_by_baselines() -> None:
    assert told(Goal("top1", latency_budget_s=0.0001), "adaptive", 4)[0] == [None] * 4
    assert told(Goal("top1", latency_budget_s=0.0009), "tpe", 4)[0] == [None] * 4


@pytest.mark.parametrize("sampler", ["adaptive", "random"])
def test_what_can_be_reached_is_known_soon_whatever_the_sampler(sampler: str) -> None:
    least_s = 1e-4 * 0.45 * (1 + 2 + 3) * 2  # int4 everywhere
    hopeless = told(Goal("top1", latency_budget_s=0.5 * least_s), sampler, 6)[1]
    possible = told(Goal("top1", latency_budget_s=1.05 * least_s), sampler, 6)[1]
    assert hopeless[-1] is not None
    assert possible[-1] is not None
    assert hopeless[-1].probability < 0.01
    assert possible[-1].probability > 0.5
    assert hopeless[-1].latency_s == pytest.approx(least_s, rel=0.1)


def test_without_a_budget_there_is_nothing_to_reach() -> None:
    assert told(Goal("top1", minimum={"top1": 0.88}), "random", 2)[1] == [None, None]


def candidates_of(space: SearchSpace) -> list[Candidate]:
    """Return every candidate of a space."""
    names = [layer.name for layer in space.layers]
    return [Candidate.of(space, dict(zip(names, configs, strict=True)))
            for configs in product(*(layer.choices for layer in space.layers))]


@pytest.mark.parametrize("sampler", ["adaptive", "nsga2"])
def test_a_front_spreads_and_keeps_below_its_budget(sampler: str) -> None:
    space, goal = wide_space(6), Goal("top1", latency_budget_s=0.0011, front=Front(0.85))
    board, asked = AdditiveBoard(space), proposer(space, goal, sampler)
    found: list[tuple[str, Evidence]] = []
    for config in (FLOAT32, INT8, INT4):
        whole = Candidate.of(space, {layer.name: config for layer in space.layers})
        found.append((whole.id, board.evidence(whole)))
        asked.tell(whole, found[-1][1])
    for _ in range(30):
        candidate = asked.propose()
        assert candidate is not None
        found.append((candidate.id, board.evidence(candidate)))
        asked.tell(candidate, found[-1][1])
    front = [dict(found)[name] for name in goal.pareto(found)]
    corner = Corner(0.0012, 0.7)
    best = hypervolume([board.evidence(c) for c in candidates_of(space)], corner, "top1")
    assert all(goal.feasible(evidence) for evidence in front)
    assert len(front) >= 5
    assert front[-1].latency_s > 1.5 * front[0].latency_s
    assert hypervolume(front, corner, "top1") > 0.9 * best
