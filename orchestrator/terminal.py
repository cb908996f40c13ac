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

    def plan(self, measurements: int) -> None:
        """Print a line."""
        self._line(f"at most {measurements} candidates are measured")

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
        self._best: str | None = None

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
        self._progress.update(self._task, description=f"{escape(self._board)}: {escape(text)}")

    def plan(self, measurements: int) -> None:
        """Set the bar's length."""
        self._progress.update(self._task, total=measurements)

    def trial(self, found: Found) -> None:
        """Advance the bar."""
        self._progress.console.print(describe(found), markup=False, highlight=False, soft_wrap=True)
        if found.measurement is not None:
            self._progress.advance(self._task)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def describe(found: Found) -> str:
    """Say in one line what became of a candidate."""
    name = found.name or found.candidate.id
    if found.evidence is None:
        return f"#{found.trial.number:<3} {name:<22} infeasible: {found.infeasible}"
    metrics = ", ".join(f"{k} {v:.4f}" for k, v in found.evidence.metrics.items())
    return (f"#{found.trial.number:<3} {name:<22} {show_seconds(found.evidence.latency_s):>8}  "
            f"{show_bytes(found.evidence.size_bytes):>9}  {metrics}")


if TYPE_CHECKING:
    _plain: ProgressProtocol = Plain(Console())
    _live: ProgressProtocol = Live(Console(), "")
