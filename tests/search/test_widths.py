"""Widths of groups: what a space declares, and how a candidate carries it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from search.candidate import Candidate, Recovery
from search.space import FLOAT32, PruneGroup, SearchSpace
from tests.search.spaces import INT8, small_space

TRUNK = PruneGroup("l0", 32, (32, 24, 16, 8), ("l0", "l1"), ("l1", "l2"))
INNER = PruneGroup("l1", 16, (16, 8), ("l1",), ("l2",))
CONFIGS = {"l0": INT8, "l1": FLOAT32, "l2": FLOAT32}


def pruned_space() -> SearchSpace:
    return replace(small_space(), groups=(TRUNK, INNER))


def candidate(widths: Mapping[str, int], recovery: Recovery | None = None) -> Candidate:
    return Candidate.of(pruned_space(), CONFIGS, 1, widths, recovery)


@pytest.mark.parametrize("widths", [{}, {"l0": 32}, {"l0": 32, "l1": 16}])
def test_an_unpruned_candidate_is_the_one_that_it_was_without_groups(widths: Mapping[str, int]) -> None:
    before = Candidate.of(small_space(), CONFIGS)
    assert candidate(widths) == before
    assert candidate(widths).canonical == before.canonical


def test_widths_stand_in_the_order_of_the_space_and_only_where_narrowed() -> None:
    assert candidate({"l1": 8, "l0": 16}).widths == (("l0", 16), ("l1", 8))
    assert candidate({"l1": 8, "l0": 32}).widths == (("l1", 8),)
    assert candidate({"l1": 8}).width_of == {"l1": 8}


def test_a_narrowed_candidate_is_reconstructed_unless_told_otherwise() -> None:
    assert candidate({}).recovery is Recovery.NONE
    assert candidate({"l0": 8}).recovery is Recovery.RECONSTRUCT
    assert candidate({"l0": 8}, Recovery.NONE).recovery is Recovery.NONE
    with pytest.raises(ValueError, match="nothing is pruned, so there is nothing to reconstruct"):
        candidate({}, Recovery.RECONSTRUCT)


def test_widths_and_recovery_make_different_candidates_that_are_read_back() -> None:
    space = pruned_space()
    drawn = [candidate({"l0": a, "l1": b}, level) for a in TRUNK.widths for b in INNER.widths
             for level in Recovery if a + b < 48 or level is Recovery.NONE]
    assert len({c.id for c in drawn}) == len(drawn) == 15
    assert [Candidate.from_json(space, c.canonical) for c in drawn] == drawn


def test_the_canonical_form_of_a_narrowed_candidate_is_what_stores_rely_on() -> None:
    assert candidate({"l0": 16}).canonical == (
        '{"compiler":"tflite","layers":{"l0":"static_w8a8","l1":"float32","l2":"float32"},'
        '"recovery":"reconstruct","threads":1,"widths":{"l0":16}}')


@pytest.mark.parametrize(("widths", "message"), [
    ({"l2": 8}, "no group is called 'l2'; groups of the space: l0, l1"),
    ({"l0": 12}, "group l0: 12 channels are not legal; legal: 32, 24, 16, 8"),
    ({"l0": 0}, "group l0: 0 channels are not legal"),
])
def test_what_no_group_allows_is_refused(widths: Mapping[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        candidate(widths)
    stored = json.loads(candidate({"l0": 16}).canonical)
    with pytest.raises(ValueError, match=message):
        Candidate.from_json(pruned_space(), json.dumps({**stored, "widths": widths}))


def test_a_space_without_groups_refuses_widths() -> None:
    with pytest.raises(ValueError, match=r"no group is called 'l0'; groups of the space: none \(pruning is off"):
        Candidate.of(small_space(), CONFIGS, 1, {"l0": 16})


@pytest.mark.parametrize(("changes", "message"), [
    ({"widths": (24, 16)}, r"the widest width is all 32 channels, got \[24, 16\]"),
    ({"widths": ()}, "the widest width is all 32 channels"),
    ({"widths": (32, 8, 16)}, "positive, distinct and sorted, widest first"),
    ({"widths": (32, 16, 16)}, "positive, distinct and sorted, widest first"),
    ({"widths": (32, 0)}, "positive, distinct and sorted, widest first"),
    ({"produced_by": ()}, "no layer produces its channels"),
])
def test_a_malformed_group_is_refused(changes: Mapping[str, tuple[int, ...]], message: str) -> None:
    values = {"widths": TRUNK.widths, "produced_by": TRUNK.produced_by, **changes}
    with pytest.raises(ValueError, match=f"group l0: .*{message}"):
        PruneGroup("l0", 32, values["widths"], values["produced_by"], TRUNK.read_by)  # type: ignore[arg-type]


def test_groups_have_names_of_their_own_and_layers_of_the_space() -> None:
    with pytest.raises(ValueError, match="group names must be unique, got twice: l0"):
        replace(small_space(), groups=(TRUNK, TRUNK))
    with pytest.raises(ValueError, match="group l0: no such layer in the space: gone"):
        replace(small_space(), groups=(replace(TRUNK, read_by=("gone",)),))


def test_groups_count_in_the_size_of_a_space() -> None:
    assert pruned_space().log10_size == pytest.approx(small_space().log10_size + math.log10(4 * 2))


def test_levels_have_an_order_by_price() -> None:
    assert [level.rank for level in (Recovery.NONE, Recovery.RECONSTRUCT)] == [0, 1]
