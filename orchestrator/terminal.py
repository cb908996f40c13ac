"""Live progress on a terminal; plain lines elsewhere. Everything goes to standard error."""

from __future__ import annotations

import textwrap
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from orchestrator.progress import Progress as ProgressProtocol
from orchestrator.units import counted, show_bytes, show_seconds

if TYPE_CHECKING:
    from orchestrator.loop import Found
    from search.goal import Goal


NOT_MEASURED = "latencies are simulated (a roofline model), not measured"


class Plain:
    """One line an event."""

    def __init__(self, console: Console, simulated: bool = False) -> None:
        self._console, self._simulated = console, simulated
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        """Say it first when latencies are simulated."""
        if self._simulated:
            self._line(NOT_MEASURED)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Do nothing."""

    def phase(self, text: str) -> None:
        """Print a line."""
        self._line(text)

    def plan(self, measurements: int, done: int) -> None:
        """Print a line."""
        before = f"; {done} were before" if done else ""
        self._line(f"measuring at most {counted(measurements, 'candidate')}{before}")

    def goal(self, goal: Goal, statistic: str) -> None:
        """Print what is looked for."""
        for line in describe_goal(goal, statistic, self._simulated, self._console.width - len(self._clock())):
            self._line(line)

    def best(self, found: Found, feasible: bool) -> None:
        """Print a line."""
        self._line(f"#{found.trial.number} is the best so far" + ("" if feasible else " (not within the constraints)"))

    def trial(self, found: Found) -> None:
        """Print a line."""
        for line in describe(found, self._console.width - len(self._clock())):
            self._line(line)

    def note(self, text: str) -> None:
        """Print a line."""
        self._line(text)

    def _line(self, text: str) -> None:
        self._console.print(self._clock() + text, markup=False, highlight=False, soft_wrap=True)

    def _clock(self) -> str:
        return f"[{time.monotonic() - self._started:6.1f} s] "


class Live:
    """A bar with the best candidate so far; finished candidates scroll above it."""

    def __init__(self, console: Console, board: str, simulated: bool = False) -> None:
        text = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
        self._progress = Progress(SpinnerColumn(), text, BarColumn(bar_width=12), MofNCompleteColumn(),
                                  TimeRemainingColumn(), console=console, transient=True, expand=True)
        self._task = self._progress.add_task(board, total=None)
        self._board, self._simulated = board, simulated
        self._best = ""
        self._phase = ""

    def __enter__(self) -> Self:
        """Start drawing; say it first when latencies are simulated."""
        self._progress.start()
        if self._simulated:
            self.note(NOT_MEASURED)
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
        for line in describe_goal(goal, statistic, self._simulated, self._progress.console.width):
            self.note(line)

    def best(self, found: Found, feasible: bool) -> None:
        """Show the best candidate so far beside the bar."""
        if found.evidence is not None:
            value = next(iter(found.evidence.metrics.values()))
            mark = "best" if feasible else "nearest"
            self._best = f"{mark} {show_seconds(found.evidence.latency_s)} {value:.4f}"
            self._describe()

    def trial(self, found: Found) -> None:
        """Advance the bar."""
        for line in describe(found, self._progress.console.width):
            self.note(line)
        if found.measurement is not None:
            self._progress.advance(self._task)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _describe(self) -> None:
        text = " | ".join(part for part in (self._best, self._phase) if part)
        self._progress.update(self._task, description=escape(f"{self._board}: {text}"))


def describe(found: Found, width: int) -> list[str]:
    """Say what became of a candidate: in one line, in two where its metrics need more than `width` columns."""
    start = f"#{found.trial.number:<3} {found.title or found.name or found.candidate.id:<18} "
    if found.evidence is None or found.measurement is None:
        return [f"{start}infeasible: {found.infeasible}"]
    simulated = " simulated" if found.measurement.simulated else ""
    start += f"{show_seconds(found.evidence.latency_s):>8}{simulated}  {show_bytes(found.evidence.size_bytes):>8}"
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in found.evidence.metrics.items())
    line = f"{start}  {metrics}"
    return [line] if len(line) <= width else [start, f"     {metrics}"]


def describe_goal(goal: Goal, statistic: str, simulated: bool, width: int) -> list[str]:
    """Say what is looked for, in lines of at most `width` columns."""
    parts, kind = [], "simulated " if simulated else ""
    if goal.latency_budget_s is not None:
        parts.append(f"{kind}{statistic} latency <= {show_seconds(goal.latency_budget_s)}")
    if goal.size_budget_bytes is not None:
        parts.append(f"size <= {show_bytes(goal.size_budget_bytes)}")
    parts += [f"{metric} >= {least:.4f}" for metric, least in (goal.minimum or {}).items()]
    aim = f"best {goal.objective}" if goal.maximises_quality else f"least {kind}latency"
    if goal.front is not None:
        aim = f"front of {goal.objective} and {kind}latency" + (" and size" if goal.front.size else "")
    text = f"looking for: {aim}" + (f" with {', '.join(parts)}" if parts else "")
    return textwrap.wrap(text, width, subsequent_indent="     ", break_long_words=False)


if TYPE_CHECKING:
    _plain: ProgressProtocol = Plain(Console())
    _live: ProgressProtocol = Live(Console(), "")
