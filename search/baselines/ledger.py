"""What was proposed and what became of it: the memory that all baselines share, and their rule what to ship."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from search.adaptive.graph import Ints
from search.adaptive.judge import Rivals
from search.adaptive.memory import key_of
from search.baselines.task import Task

SCAN = 5000
"""Configurations beyond the limits that are passed over before the search ends."""
MARGIN = 0.02
"""By so much a further resource may be exceeded on paper before a configuration is not measured."""
PENALTY = 2.0
"""What one relative violation costs, in shares of the best accuracy (or of the slowest latency)."""


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured of one configuration."""

    config: tuple[int, ...]
    latencies_s: tuple[float, ...]
    accuracy: float
    """As the host says; NaN where it is not known."""
    excess: Mapping[str, float]
    """Constraint beside latency -> relative violation."""

    @property
    def latency_s(self) -> float:
        return statistics.median(self.latencies_s)

    @property
    def picks(self) -> Ints:
        return np.array(self.config, np.int64)


class Ledger:
    """Remembers configurations and judges them.

    Args:
        task: gives the budget and the order of goodness.
        options: of every site, what may be proposed.
    """

    def __init__(self, task: Task, options: Sequence[Sequence[int]]) -> None:
        self.task, self._options = task, options
        self.results: dict[bytes, Result] = {}
        self._taken: set[bytes] = set()

    def take(self, config: Ints) -> None:
        """Never propose this again."""
        self._taken.add(key_of(config))

    def tell(self, config: Ints, latency_s: float, accuracy: float, excess: Mapping[str, float]) -> Result:
        """Take in a measurement; return all that is known of the configuration."""
        key = key_of(config)
        before = self.results[key].latencies_s if key in self.results else ()
        self._taken.add(key)
        found = Result(tuple(int(o) for o in config), (*before, latency_s), accuracy, dict(excess))
        self.results[key] = found
        return found

    def fresh(self, configs: Ints) -> NDArray[np.bool_]:
        """Tell which configurations were neither proposed nor told, and may keep within further limits."""
        known = np.array([key_of(config) in self._taken for config in configs], bool)
        return ~known & self.fits(configs)

    def fits(self, configs: Ints) -> NDArray[np.bool_]:
        """Tell which configurations may keep within the limits that need no board, the size say."""
        found = np.ones(len(configs), bool)
        for resource in self.task.limits():
            found &= resource.tables.total(configs) <= resource.limit * (1 + MARGIN)
        return found

    def constraints(self, result: Result) -> dict[str, float]:
        """Return constraint -> relative violation; one holds when it is at most 0."""
        budget = self.task.budget_s
        latency = {} if budget is None else {"latency": result.latency_s / budget - 1}
        return latency | dict(result.excess)

    def feasible(self, result: Result) -> bool:
        """Tell whether everything holds; what has no accuracy is no answer."""
        return math.isfinite(result.accuracy) and all(v <= 0 for v in self.constraints(result).values())

    def worth(self, result: Result) -> float:
        """Return what is maximised: the accuracy, or minus the latency in seconds."""
        return -result.latency_s if self.task.fastest else result.accuracy

    def merit(self, result: Result) -> float:
        """Return one figure for searchers that know no constraints: higher is better, at most 1.

        The accuracy as a share of the best one (or what was saved of the slowest's latency, where the fastest is asked
        for), less a penalty on violations; an accuracy that is not known is none.
        """
        known = math.isfinite(result.accuracy)
        if self.task.fastest:
            share = 1.0 - result.latency_s / max(r.latency_s for r in self.results.values()) if known else -1.0
        else:
            top = max((abs(r.accuracy) for r in self.results.values() if math.isfinite(r.accuracy)), default=1.0)
            share = result.accuracy / (top or 1.0) if known else 0.0
        return share - PENALTY * sum(max(v, 0.0) for v in self.constraints(result).values())

    def best(self) -> Result | None:
        """Return the best result: feasible before nearest, ties to the faster. None when nothing was measured."""
        results = [r for r in self.results.values() if math.isfinite(r.accuracy)]
        feasible = [r for r in results if self.feasible(r)]
        if feasible:
            top = max(map(self.worth, feasible))
            margin = 0.0 if self.task.fastest else self.task.tie + 1e-12
            return min((r for r in feasible if self.worth(r) >= top - margin), key=lambda r: r.latency_s)
        if not results:
            return None
        return min(results, key=lambda r: (max(self.constraints(r).values(), default=0.0), r.latency_s))

    def offers(self) -> Rivals:
        """Return what meets everything."""
        found = [r for r in self.results.values() if self.feasible(r)]
        return Rivals(np.array([r.latency_s for r in found]), np.array([r.accuracy for r in found]))

    def choice(self) -> Ints | None:
        """Return the best that met everything in the median of its readings; None when nothing did."""
        best = self.best()
        return best.picks if best is not None and self.feasible(best) else None

    def any_left(self) -> Ints | None:
        """Return the first configuration that is fresh; None when there is none."""
        every = islice(self.task.graph.among(self._options), len(self._taken) + SCAN)
        return next((config for config in every if self.fresh(config[None])[0]), None)
