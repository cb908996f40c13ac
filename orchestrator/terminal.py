"""Live progress on a terminal; plain lines elsewhere. Everything goes to standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from orchestrator.progress import Progress as ProgressProtocol
from orchestrator.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from orchestrator.loop import Found
    from search.goal import Goal


class Plain:
    """One line an event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Do nothing."""

    def phase(self, text: str) -> None:
        """Print a line."""
        self._line(text)

    def plan(self, measurements: int, done: int) -> None:
        """Print a line."""
        self._line(f"at most {measurements} candidates are measured" + (f"; {done} were before" if done else ""))

    def goal(self, goal: Goal, statistic: str) -> None:
        """Print a line."""
        self._line(f"looking for: {describe_goal(goal, statistic)}")

    def best(self, found: Found, feasible: bool) -> None:
        """Print a line."""
        self._line(f"#{found.trial.number} is the best so far" + ("" if feasible else " (not within the constraints)"))

    def trial(self, found: Found) -> None:
        """Print a line."""
        self._line(describe(found))

    def note(self, text: str) -> None:
        """Print a line."""
        self._line(text)

    def _line(self, text: str) -> None:
        self._console.print(f"[{time.monotonic() - self._started:6.1f} s] {text}", markup=False, highlight=False,
                            soft_wrap=True)


class Live:
    """A bar with the best candidate so far; finished candidates scroll above it."""

    def __init__(self, console: Console, board: str) -> None:
        self._progress = Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20),
                                  MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True)
        self._task = self._progress.add_task(board, total=None)
        self._board = board
        self._best = ""
        self._phase = ""

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Remove the bar."""
        self._progress.stop()

    def phase(self, text: str) -> None:
        """Describe what is being done."""
        self._phase = text
        self._describe()

    def plan(self, measurements: int, done: int) -> None:
        """Set the bar's length."""
        self._progress.update(self._task, total=measurements, completed=done)

    def goal(self, goal: Goal, statistic: str) -> None:
        """Print what is looked for."""
        self.note(f"looking for: {describe_goal(goal, statistic)}")

    def best(self, found: Found, feasible: bool) -> None:
        """Show the best candidate so far beside the bar."""
        if found.evidence is not None:
            value = next(iter(found.evidence.metrics.values()))
            mark = "best" if feasible else "nearest"
            self._best = f"{mark} {show_seconds(found.evidence.latency_s)} {value:.4f}"
            self._describe()

    def trial(self, found: Found) -> None:
        """Advance the bar."""
        self._progress.console.print(describe(found), markup=False, highlight=False, soft_wrap=True)
        if found.measurement is not None:
            self._progress.advance(self._task)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _describe(self) -> None:
        text = f"{self._board}: {self._phase}" + (f" | {self._best}" if self._best else "")
        self._progress.update(self._task, description=escape(text))


def describe(found: Found) -> str:
    """Say in one line what became of a candidate."""
    name = found.name or found.candidate.id
    if found.evidence is None:
        return f"#{found.trial.number:<3} {name:<22} infeasible: {found.infeasible}"
    metrics = ", ".join(f"{k} {v:.4f}" for k, v in found.evidence.metrics.items())
    return (f"#{found.trial.number:<3} {name:<22} {show_seconds(found.evidence.latency_s):>8}  "
            f"{show_bytes(found.evidence.size_bytes):>9}  {metrics}")


def describe_goal(goal: Goal, statistic: str) -> str:
    """Say in one line what is looked for."""
    parts = []
    if goal.latency_budget_s is not None:
        parts.append(f"{statistic} latency <= {show_seconds(goal.latency_budget_s)}")
    if goal.size_budget_bytes is not None:
        parts.append(f"size <= {show_bytes(goal.size_budget_bytes)}")
    parts += [f"{metric} >= {least:.4f}" for metric, least in (goal.minimum or {}).items()]
    aim = f"best {goal.objective}" if goal.maximises_quality else "least latency"
    return aim + (f" with {', '.join(parts)}" if parts else "")


if TYPE_CHECKING:
    _plain: ProgressProtocol = Plain(Console())
    _live: ProgressProtocol = Live(Console(), "")
