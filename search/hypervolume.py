"""How good a front is, as one figure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.goal import Evidence

Floats = NDArray[np.float64]


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
    """Return the area that a front dominates of its corner.

    Latency is counted in shares of the corner's, so that the area is in the unit of the objective.
    """
    points = list(front)
    shares = np.array([e.latency_s / corner.latency_s for e in points])
    return area(shares, np.array([e.metrics[objective] for e in points]), 1.0, corner.accuracy)


def area(costs: Floats, values: Floats, most: float, least: float) -> float:
    """Return the area between points and their reference point (Zitzler and Thiele 1998, S metric).

    Args:
        costs: of the points, lower is better.
        values: of the points, higher is better.
        most: cost of the reference point.
        least: value of the reference point.
    """
    order = np.argsort(costs, kind="stable")
    costs, values = np.minimum(costs[order], most), np.maximum(values[order], least)
    ends = np.append(costs[1:], most)[:len(costs)]
    return float(((ends - costs) * (np.maximum.accumulate(values) - least)).sum())
