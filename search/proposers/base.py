"""The interface of a proposer."""

from __future__ import annotations

from typing import Protocol

from search.adaptive.judge import Outlook
from search.adaptive.reach import Reach
from search.candidate import Candidate
from search.goal import Evidence


class Proposer(Protocol):
    """Proposes candidates, learns from what became of them. One thread asks and tells."""

    def propose(self) -> Candidate | None:
        """Return a candidate that was neither proposed nor told before; None when there is none left."""

    def tell(self, candidate: Candidate, evidence: Evidence | None) -> None:
        """Take what became of a candidate, proposed here or not; None: it was infeasible."""

    def surprising(self, candidate: Candidate, latency_s: float) -> bool:
        """Tell whether a reading is so much slower than expected that it should be taken again before it is told."""

    def foresee(self) -> None:
        """Renew the outlook without preparing a measurement."""

    def outlook(self) -> Outlook | None:
        """Return what the last proposal was expected to bring; None where this proposer does not say."""

    def notes(self) -> str | None:
        """Return what the host found out since the last call, as text; None: nothing to keep."""

    def learn(self, notes: str) -> None:
        """Take what `notes` gave before, in an earlier process perhaps. Raises ValueError for another version's."""

    def reach(self) -> Reach | None:
        """Return what the board can reach at all; None without a latency budget, or before anything was told."""
