"""How good a front is, as one figure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from search.goal import Evidence


@dataclass(frozen=True, slots=True)
class Corner:
    """The reference point of a hypervolume: what every point of a front should beat."""

    latency_s: float
    accuracy: float


def corner_of(found: Iterable[Evidence], objective: str) -> Corner:
    """Return the latency of the slowest and the accuracy of the least accurate."""
    known = list(found)
    return Corner(max(e.latency_s for e in known), min(e.metrics[objective] for e in known))


def hypervolume(front: Iterable[Evidence], corner: Corner, objective: str) -> float:
    """Return the area that a front dominates of its corner (Zitzler and Thiele 1998, S metric).

    Latency is counted in shares of the corner's, so that the area is in the unit of the objective.
    """
    points = sorted((e.latency_s / corner.latency_s, e.metrics[objective]) for e in front)
    area, reached = 0.0, corner.accuracy
    for share, value in points:
        if share < 1 and value > reached:
            area += (1 - share) * (value - reached)
            reached = value
    return area
