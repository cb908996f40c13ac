"""FedSpine-like: a bandit over how much is pruned and how much is quantised; importance says where.

Yao et al. 2025, Efficient Deployment of Large Language Models on Resource-constrained Devices (arXiv 2501.02438): an
online multi-armed bandit sets pruning ratio and LoRA rank of every device from the rewards alone. Here a board is
such a device, and what it fine-tunes is left out: the arms are rectangles of (share of quantisation, share of
pruning), the upper confidence bound picks one, a point within it is tried, and a rectangle that was tried often
enough is halved. Which layers are quantised and pruned first follows from divergence per second saved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from search.adaptive.graph import Floats, Ints
from search.adaptive.memory import key_of
from search.adaptive.quality import measure_sensitivity
from search.baselines.ledger import Ledger, Result

HALVED = 2
"""A rectangle with so many rewards is halved."""
CURIOSITY = 0.2
"""Weight of the confidence bound, in shares of the best accuracy."""
ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Arm:
    """A rectangle of shares."""

    low: tuple[float, float]
    high: tuple[float, float]
    pulls: tuple[tuple[tuple[float, float], float], ...] = field(default=())
    """(point, reward)."""

    def holds(self, point: tuple[float, float]) -> bool:
        return all(a <= p < b for a, p, b in zip(self.low, point, self.high, strict=True))

    def halves(self, axes: int) -> tuple[Arm, Arm]:
        """Halve the longest side of the first `axes`; the pulls go where their points are."""
        axis = max(range(axes), key=lambda a: self.high[a] - self.low[a])
        middle = (self.low[axis] + self.high[axis]) / 2
        low, high = list(self.low), list(self.high)
        low[axis] = high[axis] = middle
        return self._part(self.low, (high[0], high[1])), self._part((low[0], low[1]), self.high)

    def _part(self, low: tuple[float, float], high: tuple[float, float]) -> Arm:
        empty = Arm(low, high)
        return Arm(low, high, tuple(pull for pull in self.pulls if empty.holds(pull[0])))


class FedSpine:
    """Pulls the arm with the highest bound."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self._ledger, self._task = ledger, ledger.task
        self._rng = np.random.default_rng([seed, 3])
        graph = self._task.graph
        self._axes = 2 if len({o.level for site in graph.sites for o in site.options}) > 1 else 1
        self._arms = [Arm((0.0, 0.0), (1.0, 1.0))]
        self._asked: dict[bytes, tuple[float, float]] = {}
        numbers: dict[str, int] = {}
        self._schemes = np.zeros((graph.length, graph.width), np.int64)
        for s, site in enumerate(graph.sites):
            for o, option in enumerate(site.options):
                self._schemes[s, o] = numbers.setdefault(option.scheme, len(numbers))

    @cached_property
    def _loss(self) -> Floats:
        return measure_sensitivity(self._task.graph, self._task.divergence, self._task.floating, least=0.0).table

    @cached_property
    def _quantising(self) -> tuple[Ints, ...]:
        return self._path(self._task.floating, self._task.graph.levels)

    def propose(self) -> Ints | None:
        """See Strategy."""
        total = 1 + sum(len(arm.pulls) for arm in self._arms)
        order = sorted(self._arms, key=lambda arm: self._bound(arm, total), reverse=True)
        for arm in order:
            for _ in range(ATTEMPTS):
                x, y = (float(self._rng.uniform(a, b)) for a, b in zip(arm.low, arm.high, strict=True))
                config = self.compressed(x, y)
                if self._ledger.fresh(config[None])[0]:
                    self._asked[key_of(config)] = (x, y)
                    return config
        return None

    def learn(self, config: Ints, result: Result | None) -> None:
        """Reward the arm."""
        point = self._asked.pop(key_of(config), None)
        if point is None:
            return
        reward = -1.0 if result is None else max(self._ledger.merit(result), -1.0)
        place = next(i for i, arm in enumerate(self._arms) if arm.holds(point))
        arm = self._arms[place]
        arm = Arm(arm.low, arm.high, (*arm.pulls, (point, reward)))
        self._arms[place:place + 1] = [arm] if len(arm.pulls) < HALVED else arm.halves(self._axes)

    def compressed(self, quantised: float, pruned: float) -> Ints:
        """Return the configuration at two shares of the ways to all quantised, and from there to all pruned."""
        start = self._quantising[round(quantised * (len(self._quantising) - 1))]
        if self._axes == 1:
            return start
        way = self._path(start, self._schemes)
        return way[round(pruned * (len(way) - 1))]

    def _bound(self, arm: Arm, total: int) -> float:
        if not arm.pulls:
            return math.inf
        mean = sum(reward for _, reward in arm.pulls) / len(arm.pulls)
        return mean + CURIOSITY * math.sqrt(2 * math.log(total) / len(arm.pulls))

    def _path(self, start: Ints, kept: Ints) -> tuple[Ints, ...]:
        """Return the configurations on the way to the fastest, each saving the most time per divergence.

        Args:
            start: where the way begins.
            kept: of every option, what no step may change: (sites, width).
        """
        graph, sites = self._task.graph, np.arange(self._task.graph.length)
        way, config = [start], start
        while True:
            near = graph.neighbours(config)
            near = near[(kept[sites, near] == kept[sites, config]).all(1)]
            saved = self._task.prior.total(config[None])[0] - self._task.prior.total(near)
            if not (saved > 0).any():
                return tuple(way)
            lost = (self._loss[sites, near] - self._loss[sites, config]).sum(1)
            price = np.where(saved > 0, np.maximum(lost, 1e-12) / np.maximum(saved, 1e-15), np.inf)
            config = near[int(np.argmin(price))]
            way.append(config)
