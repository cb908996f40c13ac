"""One search over several spaces: who gets the measurements, for every sampler, aim and kind of difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from search.baselines.wiring import make_searcher
from search.candidate import Candidate
from search.goal import Evidence, Front, Goal
from search.oracle import Estimate
from search.proposers.base import Proposer
from search.proposers.graph import GraphProposer
from search.proposers.several import LITTLE, WINDOW, Several
from search.proposers.stopping import Stopping, Why
from search.recipes import UNIFORM, uniforms
from search.samplers import SAMPLERS
from search.sites import Sites
from search.space import SearchSpace
from tests.search.adaptive_spaces import chain, flat_prior, proposer
from tests.search.proposer_contract import ProposerContract
from tests.search.spaces import AdditiveBoard, wide_space

QUALITY = Goal("top1", latency_budget_s=0.0014)
FASTEST = Goal("top1", minimum={"top1": 0.87})
FRONT = Goal("top1", front=Front(0.88))
GOALS = {"accurate": QUALITY, "fastest": FASTEST, "front": FRONT}
FRONTS = [name for name, sampler in SAMPLERS.items() if sampler.fronts]
SOME = ("adaptive", "tpe", "random", "hawq")
"""One of each kind: what takes long is not tried with all of them."""


@dataclass(frozen=True)
class Side:
    """One compiler: its space, and how its candidates differ from an additive board's."""

    compiler: str
    slower: float = 1.0
    worse: float = 0.0
    runs: bool = True
    lossy: float = 0.0
    """Accuracy that everything loses, float32 too."""

    @property
    def space(self) -> SearchSpace:
        return replace(wide_space(8), compiler=self.compiler)

    def evidence(self, candidate: Candidate) -> Evidence:
        """Return the truth, with the share of accuracy that this compiler loses more."""
        found = AdditiveBoard(self.space).evidence(candidate)
        loss = (0.9 - found.metrics["top1"]) * (1 + self.worse)
        return Evidence(found.latency_s * self.slower, found.size_bytes, {"top1": 0.9 - loss - self.lossy})


@dataclass
class Host:
    """Knows a side's accuracies, and counts the work; implements search.HostOracle."""

    side: Side
    asked: int = 0

    def divergences(self, candidates: Sequence[Candidate]) -> list[float | None]:
        self.asked += len(candidates)
        return [0.9 - self.side.evidence(c).metrics["top1"] for c in candidates]

    def estimates(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        self.asked += len(candidates)
        found = [self.side.evidence(c) for c in candidates]
        return [Estimate(e.size_bytes, e.metrics) if self.side.runs else None for e in found]

    def builds(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        return self.estimates(candidates)


@dataclass
class Race:
    """A search over some sides; the uniform recipes of all are measured first."""

    sides: tuple[Side, ...]
    goal: Goal
    sampler: str = "adaptive"
    seed: int = 0
    allowance: int = 24
    """Beside the recipes."""
    found: list[Candidate] = field(default_factory=list)
    """Proposed, in order."""
    told: list[tuple[Candidate, Evidence | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hosts = {side.compiler: Host(side) for side in self.sides}
        self.proposer = Several({side.compiler: self.contender(side) for side in self.sides}, self.goal,
                                lambda: self.allowance - len(self.found))

    def contender(self, side: Side) -> GraphProposer:
        graph = chain(side.space)
        return GraphProposer(Sites(side.space, graph), flat_prior(side.space, graph), self.hosts[side.compiler],
                             self.goal, lambda task: make_searcher(self.sampler, task), self.seed, 1)

    def tell(self, candidate: Candidate) -> None:
        side = next(side for side in self.sides if side.compiler == candidate.compiler)
        self.told.append((candidate, side.evidence(candidate) if side.runs else None))
        self.proposer.tell(*self.told[-1])

    def run(self) -> Race:
        for side in self.sides:
            for named in uniforms(side.space, UNIFORM, 1)[0]:
                self.tell(named.candidate)
        self.go_on(self.allowance)
        return self

    def go_on(self, count: int) -> None:
        for _ in range(count):
            candidate = self.proposer.propose()
            if candidate is None:
                return
            self.found.append(candidate)
            self.tell(candidate)

    @property
    def turns(self) -> Counter[str]:
        return Counter(candidate.compiler for candidate in self.found)

    def best(self) -> tuple[Candidate, Evidence]:
        known = {c.id: (c, e) for c, e in self.told if e is not None}
        name = self.goal.best((i, e) for i, (_, e) in known.items())
        assert name is not None
        return known[name]


def sides(slower: float = 1.0, worse: float = 0.0, runs: bool = True, lossy: float = 0.0) -> tuple[Side, ...]:
    """Return two compilers, of which the second is as it is said."""
    return Side("tflite"), Side("tvm", slower, worse, runs, lossy)


@pytest.mark.parametrize("sampler", SOME)
class TestOneSpaceIsSearchedAsBefore(ProposerContract):
    @pytest.fixture(autouse=True)
    def named(self, sampler: str) -> None:
        self.sampler, self.chance = sampler, sampler not in {"hawq", "ohq", "mixdq"}

    def make(self, space: SearchSpace, goal: Goal, seed: int = 0, threads: int = 1) -> Proposer:
        return Several({space.compiler: proposer(space, goal, self.sampler, seed, threads)}, goal, lambda: 48)


@pytest.mark.parametrize("goal", ["accurate", "fastest"])
@pytest.mark.parametrize("sampler", SOME)
def test_the_better_compiler_wins_and_gets_most_measurements(sampler: str, goal: str) -> None:
    """tvm takes a third of the time; nothing of tflite can be the winner but by chance."""
    race = Race(sides(slower=0.33, worse=-0.5), GOALS[goal], sampler, allowance=30).run()
    assert race.best()[0].compiler == "tvm"
    assert race.turns["tvm"] >= 30 - LITTLE - WINDOW
    alone = Race(sides(slower=0.33, worse=-0.5)[1:], GOALS[goal], sampler, allowance=race.turns["tvm"]).run()
    assert race.goal.score(race.best()[1]) == pytest.approx(race.goal.score(alone.best()[1]), rel=0.01)


@pytest.mark.parametrize("order", [1, -1])
def test_adaptive_gives_the_loser_hardly_anything(order: int) -> None:
    for goal in (QUALITY, FASTEST):
        race = Race(sides(slower=0.33, worse=-0.5)[::order], goal, allowance=16).run()
        assert race.turns["tflite"] <= 3, goal
        assert race.best()[0].compiler == "tvm"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_compiler_that_cannot_keep_within_the_budget_costs_neither_measurements_nor_host_work(sampler: str) -> None:
    race = Race(sides(slower=4.0), QUALITY, sampler, allowance=6).run()
    assert race.turns == {"tflite": 6}
    assert race.hosts["tvm"].asked == 0
    assert race.goal.feasible(race.best()[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_compiler_of_which_nothing_runs_does_not_hold_up_the_other(sampler: str) -> None:
    race = Race(sides(runs=False), QUALITY, sampler, allowance=8).run()
    assert race.best()[0].compiler == "tflite"
    assert race.turns["tflite"] >= 4
    assert race.turns["tvm"] > 0, "nothing is known of it: it has its turn"


def test_a_compiler_of_which_nothing_runs_is_given_up() -> None:
    race = Race(sides(runs=False), QUALITY, "random", allowance=40).run()
    recipes = len(race.told) - 40
    assert race.turns["tvm"] == LITTLE + WINDOW - recipes // 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_alike_compilers_share(sampler: str) -> None:
    race = Race(sides(), QUALITY, sampler, allowance=8).run()
    assert min(race.turns.values()) >= 2
    assert sum(race.turns.values()) == 8


@pytest.mark.parametrize("sampler", FRONTS)
def test_a_front_has_points_of_both(sampler: str) -> None:
    """tvm is faster and always loses a point: slow and accurate candidates are tflite's, fast ones tvm's."""
    race = Race(sides(slower=0.7, lossy=0.01), FRONT, sampler, allowance=30).run()
    known = {c.id: (c, e) for c, e in race.told if e is not None}
    front = [known[i][0].compiler for i in FRONT.pareto((i, e) for i, (_, e) in known.items())]
    assert set(front) == {"tflite", "tvm"}
    assert min(race.turns.values()) >= 6


def test_both_are_held_against_one_incumbent() -> None:
    """Nothing is expected of tvm once tflite has found better than all of tvm, though its own best could improve."""
    goal = Goal("top1", latency_budget_s=0.0009)
    race = Race(sides(lossy=0.02), goal, allowance=10).run()
    alone = Race(sides(lossy=0.02)[1:], goal, allowance=race.turns["tvm"]).run()
    said, own = race.proposer._contenders["tvm"].outlook(), alone.proposer.outlook()
    assert said is not None and own is not None
    assert said.probability < 0.05 < own.probability
    assert race.best()[0].compiler == "tflite"
    assert race.turns["tvm"] < race.turns["tflite"]


def test_the_search_ends_when_nobody_expects_anything() -> None:
    race, stopping = Race(sides(), Goal("top1", latency_budget_s=0.0009), allowance=0).run(), Stopping(0.05)
    over: Why | None = None
    while over is None and len(race.found) < 150:
        race.go_on(1)
        over = stopping.look(race.proposer, True)
    assert over is Why.OUTLOOK
    assert min(race.turns.values()) >= 2


@pytest.mark.parametrize("sampler", ["adaptive", "random"])
def test_a_budget_that_no_compiler_reaches_ends_it(sampler: str) -> None:
    race = Race(sides(slower=1.1), Goal("top1", latency_budget_s=1e-4), sampler, allowance=0).run()
    stopping, over = Stopping(0.05), None
    for _ in range(8):
        race.go_on(1)
        over = over or stopping.look(race.proposer, False)
    assert over is Why.UNREACHABLE
    found = race.proposer.reach()
    assert found is not None and found.latency_s > 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides_and_nothing_else(sampler: str) -> None:
    one, two = (Race(sides(slower=0.8), QUALITY, sampler, seed=3, allowance=6).run() for _ in range(2))
    assert [c.canonical for c in one.found] == [c.canonical for c in two.found]


def test_a_resumed_search_goes_on_as_it_would_have() -> None:
    whole, first = (Race(sides(slower=0.8), QUALITY, allowance=count) for count in (12, 8))
    for race in (whole, first):
        race.run()
    notes = first.proposer.notes()
    assert notes is not None
    second = Race(sides(slower=0.8), QUALITY)
    second.proposer.learn(notes)
    for candidate, evidence in first.told:
        second.proposer.tell(candidate, evidence)
    second.go_on(4)
    assert [c.id for c in second.found] == [c.id for c in whole.found[8:]]
    asked = sum(host.asked for host in second.hosts.values())
    assert asked < sum(host.asked for host in first.hosts.values()), "what the host found out is not asked again"


def test_candidates_of_a_compiler_that_is_not_searched_count_for_nobody() -> None:
    race = Race(sides()[:1], QUALITY, allowance=4).run()
    other = Candidate.of(sides()[1].space, {layer.name: layer.choices[0] for layer in sides()[1].space.layers})
    race.proposer.tell(other, Evidence(1e-9, 1, {"top1": 1.0}))
    assert not race.proposer.surprising(other, 1.0)
    race.go_on(2)
    assert race.turns == {"tflite": 6}
