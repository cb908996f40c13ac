"""What a search tells a person while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orchestrator.loop import Found
    from search.goal import Goal


class Progress(Protocol):
    """Takes events; shows them as it likes."""

    def phase(self, text: str) -> None:
        """A new part of the work begins."""

    def plan(self, measurements: int, done: int) -> None:
        """Say how many candidates may be timed, and how many an earlier controller has timed."""

    def goal(self, goal: Goal, statistic: str) -> None:
        """Say what is looked for, now that the baselines are known."""

    def best(self, found: Found, feasible: bool) -> None:
        """A candidate is the best so far."""

    def trial(self, found: Found) -> None:
        """A candidate is finished."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """Shows nothing."""

    def phase(self, text: str) -> None:
        """Do nothing."""

    def plan(self, measurements: int, done: int) -> None:
        """Do nothing."""

    def goal(self, goal: Goal, statistic: str) -> None:
        """Do nothing."""

    def best(self, found: Found, feasible: bool) -> None:
        """Do nothing."""

    def trial(self, found: Found) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


if TYPE_CHECKING:
    _: Progress = Silent()
