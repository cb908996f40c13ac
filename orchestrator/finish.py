"""The end of a search: finalists are confirmed in turn, the winner is evaluated on the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from orchestrator.confirm import Sessions, confirm, is_clear, probability_met
from orchestrator.loop import Found, Loop
from orchestrator.store.records import Split, TrialRole
from orchestrator.units import Budget
from orchestrator.workbench import Workbench, result_of
from profilers.accuracy import Score, evaluate
from profilers.statistics import summarise
from search.errors import InfeasibleCandidate
from search.goal import Goal

FINALISTS = 3
"""Of the best."""
SHIPPABLE = 2
"""Of a front, beside its ends: every one more costs as much time as the others."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the confirmation came to."""

    winner: Found | None
    """The winner, or the nearest candidate when the goal is not met."""
    goal_met: bool
    probability: float | None
    """P(latency budget met); None without a budget."""
    sessions: Sessions


def confirm_finalists(bench: Workbench, loop: Loop, goal: Goal, budget: Budget | None,
                      stop: Callable[[], bool]) -> Verdict:
    """Confirm the best candidate beside float32 and the fastest baseline; where it fails, the next one of `finalists`.

    Args:
        bench: the open workbench.
        loop: what was measured.
        goal: the constraints, as the search resolved them.
        budget: the latency budget as it was asked for: a share is taken of the baseline measured beside.
        stop: the user says enough.
    """
    bench.progress.phase("confirming the result")
    baselines = {f.name: f for f in loop.found.values() if f.role is TrialRole.BASELINE and f.evidence is not None}
    fastest = min(baselines.values(), key=lambda f: f.evidence.latency_s if f.evidence else 0.0)
    named = baselines.get(budget.needs) if budget and budget.needs else None
    anchors = {f.candidate.id: f for f in (baselines["float32"], fastest, named) if f is not None}
    sessions: Sessions = {}

    def chance(found: Sessions, candidate: str) -> float | None:
        if budget is None:
            return None
        return probability_met(found, candidate, bench.config.latency_stat, budget.absolute,
                               named.candidate.id if named else None, budget.factor)

    def settled(found: Sessions, candidate: str) -> bool:
        probability = chance(found, candidate)
        return probability is None or is_clear(probability, bench.config.confidence)

    if goal.front is not None:
        return _front(bench, loop, goal, anchors, sessions, chance, stop)
    if not goal.maximises_quality:
        return _fastest(bench, loop, goal, anchors, sessions, stop)
    nearest: Verdict | None = None
    for best in finalists(goal, loop):
        finalist = loop.found[best]
        feasible = finalist.evidence is not None and goal.feasible(finalist.evidence)
        if nearest is not None and not feasible:
            break
        for entry in (finalist, *anchors.values()):
            rebuild(loop, entry)
        confirm(bench.store, bench.crew, {best: finalist}, anchors, sessions, partial(settled, candidate=best), stop)
        if not sessions.get(best):
            continue
        probability = chance(sessions, best)
        if feasible and (probability is None or probability >= bench.config.confidence):
            return Verdict(finalist, True, probability, sessions)
        nearest = nearest or Verdict(finalist, False, probability, sessions)
        if stop() or not feasible:
            break
    return nearest or Verdict(None, False, None, sessions)


def finalists(goal: Goal, loop: Loop) -> list[str]:
    """Return the ids of the best candidates, best first, and behind them the fastest that meets the goal.

    The most accurate lie near the limit: where they miss it, what has most room may still meet it.
    """
    best = ranked(goal, loop, FINALISTS)
    others = {i: f.evidence.latency_s for i, f in loop.found.items()
              if i not in best and f.evidence is not None and goal.feasible(f.evidence)}
    return [*best, *([min(others, key=lambda i: others[i])] if others else [])]


def ranked(goal: Goal, loop: Loop, count: int) -> list[str]:
    """Return the ids of the best candidates of the search, best first."""
    left = {i: f.evidence for i, f in loop.found.items() if f.evidence is not None}
    order: list[str] = []
    while len(order) < count and (best := goal.best(left.items())) is not None:
        order.append(best)
        del left[best]
    return order


def _fastest(bench: Workbench, loop: Loop, goal: Goal, anchors: dict[str, Found], sessions: Sessions,
             stop: Callable[[], bool]) -> Verdict:
    """Confirm all finalists side by side: the one that is fastest there wins, not the one with a lucky reading."""
    names = ranked(goal, loop, FINALISTS)
    feasible = [n for n in names if (e := loop.found[n].evidence) is not None and goal.feasible(e)]
    members = {name: loop.found[name] for name in feasible or names[:1]}
    for entry in (*members.values(), *anchors.values()):
        rebuild(loop, entry)
    confirm(bench.store, bench.crew, members, anchors, sessions, lambda found: True, stop)
    timed = [name for name in members if sessions.get(name)]
    if not timed:
        return Verdict(None, False, None, sessions)
    statistic = bench.config.latency_stat
    winner = min(timed, key=lambda name: summarise(sessions[name], statistic).value(statistic))
    return Verdict(loop.found[winner], bool(feasible), None, sessions)


def _front(bench: Workbench, loop: Loop, goal: Goal, anchors: dict[str, Found], sessions: Sessions,
           chance: Callable[[Sessions, str], float | None], stop: Callable[[], bool]) -> Verdict:
    """Confirm the ends of the front and what may be shipped of it, side by side; ship the best that is sure enough."""
    names = ranked(goal, loop, SHIPPABLE)
    ends = goal.pareto((i, f.evidence) for i, f in loop.found.items() if f.evidence is not None)
    members = {name: loop.found[name] for name in (*names, ends[0], ends[-1])}
    for entry in (*members.values(), *anchors.values()):
        rebuild(loop, entry)

    def settled(found: Sessions) -> bool:
        probability = chance(found, names[0])
        return probability is None or is_clear(probability, bench.config.confidence)

    confirm(bench.store, bench.crew, members, anchors, sessions, settled, stop)
    timed = {name: replace(entry.evidence, latency_s=summarise(
        sessions[name], bench.config.latency_stat).value(bench.config.latency_stat))
        for name, entry in members.items() if sessions.get(name) and entry.evidence is not None}
    if not timed:
        return Verdict(None, False, None, sessions)
    chances = {name: chance(sessions, name) for name in timed}
    sure = {name: e for name, e in timed.items() if goal.feasible(e)
            and ((p := chances[name]) is None or p >= bench.config.confidence)}
    winner = goal.best((sure or timed).items())
    return Verdict(None if winner is None else loop.found[winner], bool(sure), chances.get(winner or ""), sessions)


def rebuild(loop: Loop, entry: Found) -> None:
    """Build again what an earlier controller built (after --resume): same inputs, same bytes."""
    if entry.report is None:
        entry.report = result_of(loop.build(entry))


def evaluate_on_test(bench: Workbench, loop: Loop, entries: Sequence[Found]) -> dict[str, dict[str, float]]:
    """Evaluate artifacts on the test split, which the search never saw; return candidate id -> metrics."""
    bench.progress.phase("evaluating on the test split")
    on_host = bench.first.evaluator.board_examples is None
    waiting: dict[str, tuple[Found, Future[Score]]] = {}
    for entry in entries:
        rebuild(loop, entry)
        if entry.report is not None and on_host:
            report, own = entry.report, loop.toolchains[entry.candidate.compiler]
            task = loop.pool.submit(evaluate, own.evaluator, report.on_host, report.built.ports, "test")
            waiting[entry.candidate.id] = (entry, task)
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        try:
            score = (result_of(waiting[entry.candidate.id][1]) if on_host
                     else loop.evaluate_on_board(entry, "test"))
        except InfeasibleCandidate as error:
            bench.progress.note(f"{entry.name or entry.candidate.id} could not be evaluated on the test split: {error}")
            continue
        found[entry.candidate.id] = dict(score.metrics)
        bench.store.add_evaluations(entry.trial.id, loop.evaluations(entry, Split.TEST, score))
    return found
