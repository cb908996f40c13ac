"""When a search ends early: little is expected of one more measurement, or the budget is out of reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from search.proposers.base import Proposer

PATIENCE = 8
"""Proposals in a row of which little must be expected: the host finds new candidates with every one, so that one low
reading proves nothing. On 16 random networks with 1 % of noise, 8 of them gave away 0.04 points in the mean, 4 gave
away 0.11, one 0.27 (decision 8)."""
LOST = 4
"""Proposals in a row at which the budget must be out of reach."""
UNREACHABLE = 0.01
"""A budget is out of reach while nothing keeps within it with at least this probability."""


class Why(StrEnum):
    """Why a search proposes nothing more."""

    ALLOWANCE = "allowance"
    """As many candidates as were allowed are measured."""
    TIME = "time"
    INTERRUPTED = "interrupted"
    OUTLOOK = "outlook"
    """Hardly anything is expected of one more measurement."""
    UNREACHABLE = "unreachable"
    """No configuration keeps within the latency budget."""
    EXHAUSTED = "exhausted"
    """The sampler finds nothing new."""


@dataclass
class Stopping:
    """Watches a proposer.

    Args:
        below: the search ends when one more measurement improves the result with less than this probability; 0: never.
    """

    below: float
    _low: int = field(default=0, init=False)
    _lost: int = field(default=0, init=False)

    def look(self, proposer: Proposer, met: bool) -> Why | None:
        """Say whether the search is over; to be asked after every proposal.

        Args:
            proposer: which has just proposed.
            met: something that was measured meets the goal. While nothing does, only a budget that is out of reach
                ends the search.
        """
        outlook = proposer.outlook() if met else None
        self._low = self._low + 1 if outlook is not None and outlook.probability < self.below else 0
        found = None if met else proposer.reach()
        self._lost = self._lost + 1 if found is not None and found.probability < UNREACHABLE else 0
        if self._low >= PATIENCE:
            return Why.OUTLOOK
        return Why.UNREACHABLE if self._lost >= LOST else None
