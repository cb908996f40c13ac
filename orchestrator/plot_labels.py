"""Names beside points, placed so that they cover neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 9
_RADII = (9.0, 16.0, 26.0, 38.0, 52.0, 70.0, 90.0)
"""Distances that are tried, in points (1/72 inch)."""
_DIRECTIONS = 16
_LEADER = 12.0
"""From this distance on a line leads from the name to its point."""
_MARGIN = 3.0
"""Free pixels around a name."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


@dataclass(frozen=True, slots=True)
class Name:
    """A text and the point it belongs to, in the axes' units."""

    text: str
    x: float
    y: float
    colour: str
    bold: bool = False


def place_names(axes: Axes, names: Sequence[Name], points: Sequence[tuple[float, float]]) -> None:
    """Write names into a picture whose limits are set, the first ones with the best places.

    Args:
        axes: where to write.
        names: what to write.
        points: what should stay visible.

    The picture must have been laid out, e.g. by `Figure.draw_without_rendering`.
    """
    scale = axes.figure.dpi / 72.0
    frame = axes.get_window_extent()
    inside = Box(frame.x0, frame.y0, frame.x1, frame.y1)
    marks = [Box(x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale)
             for x, y in (axes.transData.transform(point) for point in points)]
    taken: list[Box] = []
    for name in names:
        weight = "bold" if name.bold else "normal"
        probe = axes.text(0, 0, name.text, fontsize=_SIZE, fontweight=weight, parse_math=False)
        size = probe.get_window_extent()
        probe.remove()
        x, y = axes.transData.transform((name.x, name.y))
        best: tuple[float, float, float, float] | None = None
        for radius in _RADII:
            for step in range(_DIRECTIONS):
                angle = 2 * math.pi * step / _DIRECTIONS
                dx, dy = radius * math.cos(angle), radius * math.sin(angle)
                box = _box(x + dx * scale, y + dy * scale, size.width, size.height, dx, dy)
                cost = (20 * sum(box.overlap(other) for other in taken) + 3 * sum(box.overlap(m) for m in marks)
                        + 50 * (box.area - box.overlap(inside)) + radius * size.height * 0.15)
                if best is None or cost < best[0]:
                    best = (cost, radius, dx, dy)
        if best is None:
            continue
        _, radius, dx, dy = best
        taken.append(_box(x + dx * scale, y + dy * scale, size.width, size.height, dx, dy))
        arrow = {"arrowstyle": "-", "color": name.colour, "lw": 0.6, "shrinkA": 0, "shrinkB": 3}
        horizontal, vertical = _alignment(dx, dy)
        axes.annotate(name.text, (name.x, name.y), (dx, dy), textcoords="offset points", color=name.colour,
                      ha=horizontal, va=vertical, zorder=6, arrowprops=arrow if radius >= _LEADER else None,
                      fontsize=_SIZE, fontweight=weight, parse_math=False)


def _alignment(dx: float, dy: float) -> tuple[str, str]:
    horizontal = "left" if dx > abs(dy) * 0.5 else "right" if dx < -abs(dy) * 0.5 else "center"
    vertical = "bottom" if dy > abs(dx) * 0.5 else "top" if dy < -abs(dx) * 0.5 else "center"
    return horizontal, vertical


def _box(x: float, y: float, width: float, height: float, dx: float, dy: float) -> Box:
    horizontal, vertical = _alignment(dx, dy)
    left = x - {"left": 0.0, "center": width / 2, "right": width}[horizontal]
    bottom = y - {"bottom": 0.0, "center": height / 2, "top": height}[vertical]
    return Box(left - _MARGIN, bottom - _MARGIN, left + width + _MARGIN, bottom + height + _MARGIN)
