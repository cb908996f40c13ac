"""How far a long job over a known number of things is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

PLAIN_S = 10.0
"""Where there is no terminal, a line this often."""
Tell = Callable[[int, str], None]
"""Takes how many things are done, and what was done last."""


@contextmanager
def bar(device: str, total: int | None, things: str) -> Iterator[Tell]:
    """Show a bar on a terminal, a line now and then elsewhere; both on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last = time.monotonic()

        def line(done: int, what: str) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_S:
                last = time.monotonic()
                typer.echo(f"{device}: {done}{f' of {total}' if total else ''} {things}, last {what}", err=True)

        yield line
        return
    with Progress(TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
                  TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(device, total=total)
        yield lambda done, what: progress.update(task, completed=done, description=f"{device}: {what}")
