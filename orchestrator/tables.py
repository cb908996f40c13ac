"""Tables that fit a terminal: names break behind their own separators or not at all."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

SIMULATED = "[yellow]Latencies are simulated (a roofline model), not measured.[/]"
_PIECE = re.compile(r"[^-_.:+/ ]*[-_.:+/ ]+|[^-_.:+/ ]+")
_GAP = 2
_LEAST = 12
"""Columns that a shortened text keeps."""


class Name:
    """A name in a cell: `int8:weighted+SOFTMAX` breaks behind `:` or `+`, and within a word only as a last resort."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pieces: list[str] = _PIECE.findall(text)

    def lines(self, width: int) -> list[str]:
        """Return the name in lines of at most `width` columns."""
        lines = [""]
        for piece in self._pieces:
            while len(piece) > width:
                room = width - len(lines[-1])
                lines[-1] += piece[:room]
                piece = piece[room:]
                lines.append("")
            if len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
        return [line for line in lines if line]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Say how narrow and how wide the cell may be."""
        least = max(map(len, self._pieces), default=0)
        return Measurement(min(least, options.max_width), min(len(self._text), options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the cell."""
        yield Text("\n".join(self.lines(options.max_width)))


def figures_table(texts: Iterable[str], figures: Iterable[str], title: str | None = None) -> Table:
    """Make a table: names fold, figures stand on one line at the right."""
    table = Table(title=title and escape(title), title_justify="left", show_edge=False, pad_edge=False)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(escape(name), justify="right", no_wrap=True)
    return table


def print_listing(console: Console, head: Sequence[str], rows: Iterable[Sequence[str]], *,
                  figures: Collection[str] = (), shortened: Collection[str] = ()) -> None:
    """Print one line for each row; what stands first is never broken, because it is what one types next.

    Where the terminal is too narrow, the columns in `shortened` lose their beginnings; where that is not enough,
    a long text of the first column has a line of its own.

    Args:
        console: where to print.
        head: the columns' names.
        rows: as many texts each.
        figures: the columns that stand at the right.
        shortened: the columns that matter least.
    """
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    least = [min(width, _LEAST) if name in shortened else width for name, width in zip(head, widths, strict=True)]
    room = console.width - sum(least[1:]) - _GAP * (len(head) - 1)
    widths[0] = max((len(row[0]) for row in cells if len(row[0]) <= room), default=0)
    for column in (head.index(name) for name in shortened):
        excess = sum(widths) + _GAP * (len(head) - 1) - console.width
        widths[column] = max(least[column], widths[column] - max(0, excess))
    for number, row in enumerate(cells):
        alone = len(row[0]) > widths[0]
        shown = [_short(text, width) for text, width in zip(["" if alone else row[0], *row[1:]], widths, strict=True)]
        line = (" " * _GAP).join(text.rjust(width) if name in figures else text.ljust(width)
                                 for name, text, width in zip(head, shown, widths, strict=True)).rstrip()
        console.print(f"{row[0]}\n{line}" if alone else line, style="bold" if number == 0 else "", markup=False,
                      highlight=False, soft_wrap=True)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"...{text[3 - width:]}"
