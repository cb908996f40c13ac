"""Requirements, constraints, which candidate is best, and the Pareto front."""

from __future__ import annotations

import numpy as np
import pytest

from search.goal import TIE, Evidence, Front, Goal, Requirement, pareto_front, resolve_minimum
from search.hypervolume import Corner, corner_of, hypervolume


def ev(latency_ms: float, top1: float, size: int = 1000, **metrics: float) -> Evidence:
    return Evidence(latency_ms * 1e-3, size, {"top1": top1, **metrics})


@pytest.mark.parametrize(("text", "expected"), [
    ("recall_6 >= -0.01", Requirement("recall_6", -0.01)),
    ("top5>=0.97 abs", Requirement("top5", 0.97, absolute=True)),
    ("  mAP@0.5 >= +1e-2  ", Requirement("mAP@0.5", 0.01)),
    ("f1 >= .5abs", Requirement("f1", 0.5, absolute=True)),
    ("f1 >= 1.", Requirement("f1", 1.0)),
    ("top1 >= -0.01", Requirement("top1", -0.01)),
    ("top-5 >= 0", Requirement("top-5", 0.0)),
    ("précision >= 0", Requirement("précision", 0.0)),
])
def test_requirements_are_read(text: str, expected: Requirement) -> None:
    assert Requirement.parse(text) == expected


@pytest.mark.parametrize("text", ["", "top1", "top1 > 0.9", "top1 <= 0.9", "top1 >= ", "top1 >= x", ">= 0.9",
                                  "top1 >= 1.2.3", "top1 >= .", "top1 >= 0.9 rel", "a b >= 1", "top1 >= nan",
                                  "top1 >= inf", "top1 >= 1e400", "1top >= 0"])
def test_other_text_is_refused_showing_both_forms(text: str) -> None:
    with pytest.raises(ValueError, match="relative to float32") as caught:
        Requirement.parse(text)
    assert repr(text) in str(caught.value)
    assert "abs" in str(caught.value)


def test_constraints_are_relative_violations() -> None:
    goal = Goal("top1", 0.010, 2000, {"top1": 0.9, "recall": 0.5})
    found = goal.constraints(ev(12, 0.88, 1500, recall=0.6))
    assert found == pytest.approx({"latency": 0.2, "size": -0.25, "quality:top1": 0.02, "quality:recall": -0.1})
    assert Goal("top1").constraints(ev(12, 0.88)) == {}


def test_a_limit_is_met_exactly() -> None:
    goal = Goal("top1", 0.010, 1000, {"top1": 0.9})
    assert goal.feasible(ev(10, 0.9, 1000))
    for evidence in (ev(10.001, 0.9, 1000), ev(10, 0.8999, 1000), ev(10, 0.9, 1001)):
        assert not goal.feasible(evidence)


def test_with_a_budget_the_most_accurate_within_it_wins() -> None:
    goal = Goal("top1", latency_budget_s=0.010)
    assert goal.best([("slow", ev(11, 0.99)), ("good", ev(9.9, 0.95)), ("fast", ev(1, 0.90))]) == "good"
    assert Goal("top1", size_budget_bytes=900).best([("big", ev(1, 0.99)), ("small", ev(5, 0.9, 900))]) == "small"


def test_without_a_budget_the_fastest_within_the_drop_wins() -> None:
    goal = Goal("top1", minimum={"top1": 0.94})
    assert goal.best([("bad", ev(1, 0.9)), ("fast", ev(5, 0.941)), ("good", ev(9, 0.99))]) == "fast"


def test_a_tie_in_quality_goes_to_the_faster_then_to_the_smaller() -> None:
    goal = Goal("top1", latency_budget_s=0.010)
    near, far = 0.95 - TIE * 0.9, 0.95 - TIE * 1.1
    assert goal.best([("a", ev(9, 0.95)), ("b", ev(5, near)), ("c", ev(1, far))]) == "b"
    assert goal.best([("a", ev(5, 0.95, 999)), ("b", ev(5, 0.95, 998))]) == "b"


def test_speed_knows_no_tie() -> None:
    goal = Goal("top1", minimum={"top1": 0.5})
    assert goal.best([("a", ev(5, 0.9)), ("b", ev(4.9999, 0.6))]) == "b"


def test_where_nothing_is_feasible_the_nearest_is_named() -> None:
    goal = Goal("top1", 0.010, minimum={"top1": 0.9})
    assert goal.best([("slow", ev(20, 0.95)), ("near", ev(10.5, 0.95)), ("dull", ev(5, 0.7))]) == "near"
    assert goal.best([]) is None


def test_feasible_always_beats_infeasible() -> None:
    rng = np.random.default_rng(1)
    goal = Goal("top1", 0.010, 1500, {"top1": 0.8})
    for _ in range(300):
        found = [(str(i), ev(rng.uniform(5, 15), rng.uniform(0.7, 1), int(rng.integers(1000, 2001)))) for i in range(6)]
        best = dict(found)[goal.best(found) or ""]
        feasible = [e for _, e in found if goal.feasible(e)]
        if feasible:
            assert goal.feasible(best)
            assert best.metrics["top1"] >= max(e.metrics["top1"] for e in feasible) - TIE
            assert not any(e.latency_s < best.latency_s and e.metrics["top1"] >= best.metrics["top1"]
                           for e in feasible)
        else:
            assert max(goal.constraints(best).values()) == min(max(goal.constraints(e).values()) for _, e in found)


def test_drops_and_requirements_become_least_values() -> None:
    float32 = {"top1": 0.9, "recall": 0.5}
    got = resolve_minimum("top1", 0.02, [Requirement("recall", -0.1), Requirement("recall", 0.45, absolute=True)],
                          float32)
    assert got == pytest.approx({"top1": 0.88, "recall": 0.45})
    assert resolve_minimum("top1", 0.02, [Requirement("top1", -0.01)], float32) == pytest.approx({"top1": 0.89})
    assert resolve_minimum("top1", 0.02, [Requirement("top1", -0.05)], float32) == pytest.approx({"top1": 0.88})
    assert resolve_minimum("top1", None, [], float32) == {}
    with pytest.raises(ValueError, match="'top5': no such metric; measured are recall, top1"):
        resolve_minimum("top1", None, [Requirement("top5", 0.1)], float32)


def test_the_pareto_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        found = [(str(i), ev(int(rng.integers(1, 9)), int(rng.integers(1, 9)) / 10)) for i in range(10)]
        front = pareto_front(found, "top1")
        values = dict(found)
        points = [(values[name].latency_s, values[name].metrics["top1"]) for name in front]
        assert points == sorted(points)
        assert len(set(points)) == len(points)

        def beaten(evidence: Evidence, by: list[tuple[float, float]]) -> bool:
            mine = (evidence.latency_s, evidence.metrics["top1"])
            return any(other != mine and other[0] <= mine[0] and other[1] >= mine[1] for other in by)

        everyone = [(e.latency_s, e.metrics["top1"]) for _, e in found]
        assert {p for p, (_, e) in zip(everyone, found, strict=True) if not beaten(e, everyone)} == set(points)
    assert pareto_front([], "top1") == []


# Fronts

FOUND = [("float32", ev(10, 0.90, 100)), ("wide", ev(8, 0.91, 90)), ("int8", ev(4, 0.895, 25)),
         ("small", ev(5, 0.89, 20)), ("int4", ev(2, 0.80, 15))]


def test_a_front_ships_the_fastest_that_is_accurate_enough() -> None:
    assert Goal("top1", front=Front(0.89)).best(FOUND) == "int8"
    assert Goal("top1", front=Front(0.80)).best(FOUND) == "int4"
    assert Goal("top1", front=Front(0.99)).best(FOUND) == "wide", "where nothing is, the most accurate"
    assert Goal("top1", latency_budget_s=0.003, front=Front(0.89)).best(FOUND) == "int4"
    assert Goal("top1", latency_budget_s=0.001, front=Front(0.89)).best(FOUND) == "int4", "the nearest"


def test_a_front_is_sought_within_its_constraints() -> None:
    assert Goal("top1", front=Front(0.89)).pareto(FOUND) == ["int4", "int8", "wide"]
    assert Goal("top1", latency_budget_s=0.006, front=Front(0.89)).pareto(FOUND) == ["int4", "int8"]
    assert Goal("top1", minimum={"top1": 0.85}, front=Front(0.89)).pareto(FOUND) == ["int8", "wide"]
    assert Goal("top1", latency_budget_s=0.001, front=Front(0.89)).pareto(FOUND) == ["int4", "int8", "wide"]
    assert Goal("top1", latency_budget_s=0.006).pareto(FOUND) == ["int4", "int8", "wide"], "no front was asked for"


def test_the_size_counts_where_it_is_an_objective() -> None:
    assert Goal("top1", front=Front(0.89, size=True)).pareto(FOUND) == ["int4", "int8", "small", "wide"]


def test_a_front_maximises_no_single_objective() -> None:
    assert not Goal("top1", latency_budget_s=0.006, front=Front(0.89)).maximises_quality


def test_the_hypervolume_is_the_area_below_the_front() -> None:
    corner = corner_of((e for _, e in FOUND), "top1")
    assert corner == Corner(0.010, 0.80)
    area = 0.6 * (0.895 - 0.80) + 0.2 * (0.91 - 0.895)
    assert hypervolume([FOUND[1][1], FOUND[2][1]], corner, "top1") == pytest.approx(area)
    assert hypervolume([e for _, e in FOUND], corner, "top1") == pytest.approx(area)
    assert hypervolume([ev(11, 0.95), ev(1, 0.7)], corner, "top1") == 0, "neither beats the corner"
