"""What every proposer must do, run over every sampler that can be asked for."""

from __future__ import annotations

import pytest

from search.goal import Goal
from search.proposers.base import Proposer
from search.samplers import SAMPLERS
from search.space import SearchSpace
from tests.search.adaptive_spaces import proposer
from tests.search.proposer_contract import ProposerContract

DETERMINISTIC = {"hawq", "ohq", "mixdq"}


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestEverySampler(ProposerContract):
    @pytest.fixture(autouse=True)
    def named(self, sampler: str) -> None:
        self.sampler, self.chance = sampler, sampler not in DETERMINISTIC

    def make(self, space: SearchSpace, goal: Goal, seed: int = 0, threads: int = 1) -> Proposer:
        return proposer(space, goal, self.sampler, seed, threads)
