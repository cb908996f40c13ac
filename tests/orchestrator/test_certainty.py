"""The stated probability of meeting the budget is right for winners, a session's bias included."""

from __future__ import annotations

from benchmarks.certainty import simulate


def test_what_is_stated_at_95_percent_is_true_94_times_in_100_and_fast_winners_are_stated() -> None:
    found = simulate(600, bias=0.007, seed=0)
    assert found["right"] >= 0.94
    assert found["fast"] >= 0.9
