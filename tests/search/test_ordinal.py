"""Searchers on the ordinal scale behind the proposer's interface, and the choices that they see."""

from __future__ import annotations

import statistics

import pytest

from search.candidate import Candidate
from search.goal import Evidence, Goal
from search.proposers.graph import GraphProposer
from search.proposers.reduced import reduced_choices
from search.space import FLOAT32, LayerConfig, SearchSpace
from tests.search.adaptive_spaces import proposer
from tests.search.proposer_contract import BUDGET
from tests.search.spaces import (
    DYNAMIC,
    FP16,
    INT4,
    INT8,
    WEIGHT_ONLY,
    AdditiveBoard,
    mixed_space,
    small_space,
    wide_space,
)

SAMPLERS = ("tpe", "nsga2", "gp", "random")


def reduced(space: SearchSpace, choices: dict[str, tuple[LayerConfig, ...]], sampler: str = "tpe") -> GraphProposer:
    return proposer(space, BUDGET, sampler, choices=choices)


def weight_bytes(space: SearchSpace, candidate: Candidate) -> float:
    return sum(layer.weights * candidate.config_of[layer.name].weight_bits / 8 for layer in space.layers)


def best_within(sampler: str, seed: int, budget: Goal, count: int) -> float:
    """Accuracy of the best feasible candidate of `count`."""
    space = wide_space()
    board = AdditiveBoard(space)
    found = []
    asked = proposer(space, budget, sampler, seed)
    for _ in range(count):
        candidate = asked.propose()
        assert candidate is not None
        evidence = board.evidence(candidate)
        asked.tell(candidate, evidence)
        found.append(evidence)
    return max((e.metrics["top1"] for e in found if budget.feasible(e)), default=0.0)


def test_tpe_learns_where_chance_does_not() -> None:
    tight = Goal("top1", latency_budget_s=0.0011)
    tpe, chance = ([best_within(sampler, seed, tight, 30) for seed in range(5)] for sampler in ("tpe", "random"))
    assert all(a > b for a, b in zip(tpe, chance, strict=True)), (tpe, chance)
    assert statistics.median(tpe) > statistics.median(chance) + 0.03


def test_the_samplers_own_proposals_get_better() -> None:
    """Every other proposal is a step from the best one; those in between are the sampler's."""
    space = wide_space()
    board = AdditiveBoard(space)

    def own(sampler: str) -> float:
        asked, found = proposer(space, Goal("top1", minimum={}), sampler), []
        for _ in range(50):
            candidate = asked.propose()
            assert candidate is not None
            found.append(board.evidence(candidate).latency_s)
            asked.tell(candidate, board.evidence(candidate))
        return statistics.mean(found[20::2])

    assert own("tpe") < 0.85 * own("random")


@pytest.mark.parametrize(("sampler", "same"), [("random", True), ("tpe", False)])
def test_chance_does_not_heed_what_it_is_told(sampler: str, same: bool) -> None:
    space = wide_space()

    def sequence(sign: int) -> list[str]:
        asked, found = proposer(space, Goal("top1", minimum={}), sampler), []
        for _ in range(20):
            candidate = asked.propose()
            assert candidate is not None
            narrow = sum(config.weight_bits for _, config in candidate.layers)
            asked.tell(candidate, Evidence(1 + sign * narrow * 1e-3, 100, {"top1": 0.9}))
            found.append(candidate.id)
        return found

    assert (sequence(1) == sequence(-1)) is same


def test_what_is_surely_too_large_is_not_proposed() -> None:
    """Sizes are additive: after a few candidates the overhead is known."""
    space = wide_space()
    goal = Goal("top1", size_budget_bytes=11_000)
    for sampler in SAMPLERS:
        asked = proposer(space, goal, sampler)
        for position in range(25):
            candidate = asked.propose()
            assert candidate is not None
            evidence = Evidence(1e-3, 500 + int(weight_bytes(space, candidate)), {"top1": 0.9})
            assert position == 0 or evidence.size_bytes <= 11_000 * 1.02
            asked.tell(candidate, evidence)


def test_only_the_reduced_choices_are_proposed() -> None:
    space = mixed_space()
    choices = {layer.name: layer.choices[:1] for layer in space.layers} | {"head": (FLOAT32, INT8)}
    asked = reduced(space, choices)
    found = []
    while (candidate := asked.propose()) is not None:
        found.append(candidate)
        asked.tell(candidate, AdditiveBoard(space).evidence(candidate))
    assert {c.config_of["head"] for c in found} == {FLOAT32, INT8}
    assert len(found) == 2


def test_a_space_without_a_choice_has_one_candidate() -> None:
    space = small_space()
    asked = reduced(space, {layer.name: (FLOAT32,) for layer in space.layers})
    only = asked.propose()
    assert only is not None
    asked.tell(only, AdditiveBoard(space).evidence(only))
    assert asked.propose() is None


def test_candidates_outside_the_reduced_space_are_known_but_not_learnt() -> None:
    space = small_space()
    asked = reduced(space, {layer.name: (FLOAT32, INT8) for layer in space.layers})
    outside = Candidate.of(space, {"l0": DYNAMIC, "l1": FLOAT32, "l2": FLOAT32})
    asked.tell(outside, Evidence(1e-9, 1, {"top1": 1.0}))
    found = set()
    while (candidate := asked.propose()) is not None:
        found.add(candidate.id)
        asked.tell(candidate, AdditiveBoard(space).evidence(candidate))
    inside = {Candidate.of(space, {f"l{i}": (FLOAT32, INT8)[bits >> i & 1] for i in range(3)}).id for bits in range(8)}
    assert inside <= found
    assert outside.id not in found


def test_a_told_infeasible_candidate_does_not_count_as_a_result() -> None:
    """An infeasible best-looking candidate must not attract the sampler: the rest is still found."""
    space = wide_space(4)
    asked = proposer(space, Goal("top1", minimum={"top1": 0.0}), "tpe")
    board = AdditiveBoard(space)
    found = []
    for _ in range(40):
        candidate = asked.propose()
        assert candidate is not None
        broken = candidate.config_of["b1"] == INT4
        asked.tell(candidate, None if broken else board.evidence(candidate))
        if not broken:
            found.append(board.evidence(candidate).latency_s)
    least = min(board.evidence(Candidate.of(space, {f"b{i}": INT4 for i in range(4)} | {"b1": INT8})).latency_s, 1)
    assert min(found) == pytest.approx(least, rel=0.1)


# reduced_choices

SPEED = Goal("top1", minimum={"top1": 0.8})
SIZE = Goal("top1", size_budget_bytes=1e6)


def test_what_was_not_measured_is_not_offered() -> None:
    choices = reduced_choices(mixed_space(), {FLOAT32: Evidence(1, 10, {"top1": 0.9})}, {}, SPEED)
    assert choices["stem"] == (FLOAT32,)
    assert choices["soft"] == (FLOAT32, INT8)


def test_a_dominated_configuration_is_left_out() -> None:
    measured = {
        FLOAT32: Evidence(1.0, 100, {"top1": 0.900}),
        FP16: Evidence(1.0, 50, {"top1": 0.900}),
        WEIGHT_ONLY: Evidence(1.1, 25, {"top1": 0.900}),
        DYNAMIC: Evidence(2.0, 25, {"top1": 0.899}),
        INT8: Evidence(0.5, 26, {"top1": 0.880}),
    }
    assert reduced_choices(mixed_space(), measured, {}, SPEED)["stem"] == (FLOAT32, FP16, INT8)
    with_size = reduced_choices(mixed_space(), measured, {}, SIZE)["stem"]
    assert with_size == (FLOAT32, FP16, WEIGHT_ONLY, INT8)


def test_domination_needs_a_clear_gain_and_no_loss() -> None:
    def kept(other: Evidence) -> bool:
        found = reduced_choices(mixed_space(), {FLOAT32: Evidence(1.0, 9, {"top1": 0.9}), DYNAMIC: other,
                                                INT8: Evidence(0.5, 9, {"top1": 0.85})}, {}, SPEED)
        return DYNAMIC in found["head"]

    assert not kept(Evidence(1.03, 9, {"top1": 0.9}))
    assert kept(Evidence(1.01, 9, {"top1": 0.9}))
    assert kept(Evidence(1.5, 9, {"top1": 0.91}))


def test_float32_stays_even_where_it_is_dominated() -> None:
    measured = {FLOAT32: Evidence(1.0, 9, {"top1": 0.9}), INT8: Evidence(0.5, 5, {"top1": 0.95})}
    assert reduced_choices(mixed_space(), measured, {}, SPEED)["stem"] == (FLOAT32, INT8)


def test_a_kind_without_weights_that_slows_down_stays_float() -> None:
    measured = {FLOAT32: Evidence(1.0, 9, {"top1": 0.9}), INT8: Evidence(0.5, 5, {"top1": 0.9})}
    weightless = {"SOFTMAX": Evidence(0.52, 5, {"top1": 0.9}), "MEAN+RSQRT": Evidence(0.505, 5, {"top1": 0.9})}
    choices = reduced_choices(mixed_space(), measured, weightless, SPEED)
    assert choices["soft"] == (FLOAT32,)
    assert choices["norm"] == (FLOAT32, INT8)
