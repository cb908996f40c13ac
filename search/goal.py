"""What the user wants: an objective, constraints, and which of two candidates is better."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TIE = 0.001
"""Objective values no further apart than this (0.1 points) are a tie, which the faster candidate wins."""

METRIC_NAME = r"[^\W\d][\w.@-]*"
"""A letter or `_`, then letters, digits, `_`, `.`, `@` and `-`: top1, recall_6, mAP@0.5."""
_REQUIREMENT = re.compile(
    rf"^\s*({METRIC_NAME})\s*>=\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(abs)?\s*$")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A lower bound for one quality metric."""

    metric: str
    bound: float
    absolute: bool = False
    """False: relative to float32's own value, so -0.01 allows a loss of one point."""

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read `recall_6 >= -0.01` or `top5 >= 0.97 abs`. Raises ValueError showing both forms."""
        match = _REQUIREMENT.match(text)
        if match is None or not math.isfinite(float(match[2])):
            raise ValueError("expected 'METRIC >= NUMBER' (relative to float32) or 'METRIC >= NUMBER abs', e.g. "
                             f"'recall_6 >= -0.01' or 'top5 >= 0.97 abs', got {text!r}")
        return cls(match[1], float(match[2]), match[3] is not None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one candidate: its artifact's size and accuracy, a board's latency."""

    latency_s: float
    """The statistic that the goal names."""
    size_bytes: int
    metrics: Mapping[str, float]
    """On the validation split; higher is better."""


@dataclass(frozen=True, slots=True)
class Front:
    """Several objectives: quality and latency."""

    least: float
    """What is shipped of the front is the fastest candidate with at least this quality."""
    size: bool = False
    """The size counts too: a candidate that is smaller than another is not beaten by it."""


@dataclass(frozen=True)
class Goal:
    """An objective metric, and the constraints that are absolute once float32 is measured."""

    objective: str
    latency_budget_s: float | None = None
    size_budget_bytes: float | None = None
    minimum: Mapping[str, float] | None = None
    """Metric -> its least allowed value."""
    front: Front | None = None
    """None: one best candidate is looked for."""

    def constraints(self, evidence: Evidence) -> dict[str, float]:
        """Return name -> relative violation; a constraint holds when its value is at most 0."""
        found: dict[str, float] = {}
        if self.latency_budget_s is not None:
            found["latency"] = evidence.latency_s / self.latency_budget_s - 1
        if self.size_budget_bytes is not None:
            found["size"] = evidence.size_bytes / self.size_budget_bytes - 1
        for metric, least in (self.minimum or {}).items():
            found[f"quality:{metric}"] = least - evidence.metrics[metric]
        return found

    def feasible(self, evidence: Evidence) -> bool:
        """Tell whether every constraint holds."""
        return all(value <= 0 for value in self.constraints(evidence).values())

    @property
    def maximises_quality(self) -> bool:
        """With a latency or size budget the most accurate wins, else the fastest; a front has both."""
        return self.front is None and (self.latency_budget_s is not None or self.size_budget_bytes is not None)

    def score(self, evidence: Evidence) -> float:
        """Return what is maximised: the objective's value, or minus the latency in seconds."""
        return evidence.metrics[self.objective] if self.maximises_quality else -evidence.latency_s

    def best(self, found: Iterable[tuple[str, Evidence]]) -> str | None:
        """Return the id of the best candidate: feasible before nearest, ties to the faster.

        The nearest is the one whose largest relative violation is least. Of a front it is the fastest that is accurate
        enough to be shipped, else the most accurate.
        """
        pairs = list(found)
        feasible = [(name, e) for name, e in pairs if self.feasible(e)]
        if feasible and self.front is not None:
            least = min(self.front.least, max(e.metrics[self.objective] for _, e in feasible))
            enough = [(name, e) for name, e in feasible if e.metrics[self.objective] >= least]
            return min(enough, key=lambda pair: (pair[1].latency_s, pair[1].size_bytes))[0]
        if feasible:
            top = max(self.score(e) for _, e in feasible)
            margin = TIE + 1e-12 if self.maximises_quality else 0.0
            tied = [(name, e) for name, e in feasible if self.score(e) >= top - margin]
            return min(tied, key=lambda pair: (pair[1].latency_s, pair[1].size_bytes))[0]
        if not pairs:
            return None
        return min(pairs, key=lambda pair: (max(self.constraints(pair[1]).values()), pair[1].latency_s))[0]

    def pareto(self, found: Iterable[tuple[str, Evidence]], metric: str | None = None) -> list[str]:
        """Return the ids that no other beats, fastest first; of a front only what meets the constraints, if anything.

        Args:
            found: what was measured.
            metric: the quality to look at; None: the objective.
        """
        pairs = list(found)
        if self.front is not None:
            pairs = [(name, e) for name, e in pairs if self.feasible(e)] or pairs
        return pareto_front(pairs, metric or self.objective, self.front is not None and self.front.size)


def resolve_minimum(
    objective: str, max_drop: float | None, requirements: Iterable[Requirement], float32: Mapping[str, float]
) -> dict[str, float]:
    """Turn drops and requirements into least values, given float32's own metrics.

    Raises ValueError for a requirement on a metric that is not measured.
    """
    least: dict[str, float] = {}
    if max_drop is not None:
        least[objective] = float32[objective] - max_drop
    for requirement in requirements:
        if requirement.metric not in float32:
            raise ValueError(f"--require {requirement.metric!r}: no such metric; measured are "
                             f"{', '.join(sorted(float32))}")
        base = 0.0 if requirement.absolute else float32[requirement.metric]
        bound = base + requirement.bound
        least[requirement.metric] = max(bound, least.get(requirement.metric, bound))
    return least


def pareto_front(found: Iterable[tuple[str, Evidence]], objective: str, size: bool = False) -> list[str]:
    """Return the ids that no other beats in latency and objective, and in size if that counts; fastest first."""
    front: list[tuple[str, Evidence]] = []
    for name, evidence in sorted(found, key=lambda pair: (pair[1].latency_s, -pair[1].metrics[objective],
                                                          pair[1].size_bytes)):
        beaten = any(other.metrics[objective] >= evidence.metrics[objective]
                     and (not size or other.size_bytes <= evidence.size_bytes) for _, other in front)
        if not beaten:
            front.append((name, evidence))
    return [name for name, _ in front]
