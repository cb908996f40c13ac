"""The one failure that is a result: the candidate's own fault."""

from __future__ import annotations


class InfeasibleCandidate(Exception):
    """A candidate cannot be built or run: stored with its reason and told to the proposer.

    Raised for a candidate that does not compile, whose artifact is not what was asked, that
    crashes or hangs the runtime, that returns NaN, or that needs more memory than the board has.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
