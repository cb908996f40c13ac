"""What every proposer must do. Subclass it and give `make`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from search.candidate import Candidate
from search.goal import Goal
from search.proposers.base import Proposer
from search.space import SearchSpace
from tests.search.spaces import (
    AdditiveBoard,
    calibrated_space,
    every_candidate,
    mixed_space,
    small_space,
    tiny_space,
    wide_space,
)

BUDGET = Goal("top1", latency_budget_s=0.0014)
"""float32 on `wide_space` needs 1.9 ms, static int8 0.95 ms."""


class ProposerContract(ABC):
    chance = True
    """Whether chance has a part in what is proposed."""

    @abstractmethod
    def make(self, space: SearchSpace, goal: Goal, seed: int = 0, threads: int = 1) -> Proposer:
        """Return a proposer that may choose everything in `space`."""

    def drive(self, proposer: Proposer, space: SearchSpace, count: int) -> list[Candidate]:
        board = AdditiveBoard(space)
        found: list[Candidate] = []
        while len(found) < count and (candidate := proposer.propose()) is not None:
            proposer.tell(candidate, board.evidence(candidate))
            found.append(candidate)
        return found

    def test_proposes_every_candidate_once_and_then_none(self) -> None:
        proposer = self.make(small_space(), BUDGET)
        found = self.drive(proposer, small_space(), 1000)
        assert len(found) == len({c.id for c in found}) == 18
        assert proposer.propose() is None

    def test_choices_for_all_layers_are_candidates_only_where_they_change_one(self) -> None:
        space = calibrated_space(tiny_space())
        proposer = self.make(space, BUDGET)
        found = self.drive(proposer, space, 1000)
        assert len(found) == len(set(found)) == len({c.id for c in found})
        assert set(found) == every_candidate(space)
        assert proposer.propose() is None

    def test_exhausts_a_space_in_which_nothing_works(self) -> None:
        proposer = self.make(small_space(), BUDGET)
        found = set()
        while (candidate := proposer.propose()) is not None:
            assert candidate.id not in found
            found.add(candidate.id)
            proposer.tell(candidate, None)
        assert len(found) == 18

    def test_proposes_nothing_that_was_told(self) -> None:
        space = small_space()
        told = self.drive(self.make(space, BUDGET, seed=1), space, 8)
        second = self.make(space, BUDGET, seed=1)
        for position, candidate in enumerate(told):
            second.tell(candidate, None if position % 3 == 0 else AdditiveBoard(space).evidence(candidate))
        rest = self.drive(second, space, 1000)
        assert not {c.id for c in told} & {c.id for c in rest}
        assert len(rest) == 18 - 8

    def test_may_be_asked_ahead_of_the_answers(self) -> None:
        space = wide_space()
        proposer = self.make(space, BUDGET)
        board = AdditiveBoard(space)
        ahead = [proposer.propose() for _ in range(5)]
        asked = [c for c in ahead if c is not None]
        assert len({c.id for c in asked}) == 5
        for candidate in reversed(asked):
            proposer.tell(candidate, board.evidence(candidate))
        following = proposer.propose()
        assert following is not None
        assert following.id not in {c.id for c in asked}

    def test_candidates_are_legal_and_have_the_threads_asked_for(self) -> None:
        space = mixed_space()
        for candidate in self.drive(self.make(space, BUDGET, threads=3), space, 30):
            assert Candidate.from_json(space, candidate.canonical) == candidate
            assert candidate.threads == 3

    def test_the_seed_decides(self) -> None:
        space = wide_space()
        first, same, other = (self.drive(self.make(space, BUDGET, seed), space, 12) for seed in (5, 5, 6))
        assert [c.id for c in first] == [c.id for c in same]
        assert ([c.id for c in first] != [c.id for c in other]) is self.chance

    def test_goes_on_while_everything_fails(self) -> None:
        proposer = self.make(wide_space(), BUDGET)
        for _ in range(20):
            candidate = proposer.propose()
            assert candidate is not None
            proposer.tell(candidate, None)

    def test_takes_candidates_from_elsewhere(self) -> None:
        space = wide_space()
        proposer = self.make(space, BUDGET)
        board = AdditiveBoard(space)
        for config in space.layers[0].choices:
            candidate = Candidate.of(space, {layer.name: config for layer in space.layers})
            proposer.tell(candidate, board.evidence(candidate))
        assert len(self.drive(proposer, space, 10)) == 10
