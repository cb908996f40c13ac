"""ASE-NAS-like: evokes a subspace among candidates, then searches within it.

Chen et al. 2022, Automatic Subspace Evoking for Efficient Neural Architecture Search (arXiv 2210.17180): a global step
chooses one of several candidate subspaces, each the surroundings of an architecture; a local step searches within;
well-designed architectures are the first candidates, and searched ones join them. There a policy network chooses,
trained over thousands of estimates; with some dozens of measurements an upper confidence bound does (Auer et al. 2002,
Machine Learning 47, section 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from search.adaptive.graph import Ints
from search.adaptive.memory import key_of
from search.baselines.ledger import Ledger, Result
from search.baselines.ohq import uniform_configs
from search.baselines.ordinal import Scale

RADIUS = 3
"""A subspace is what differs from its center in so many variables at most."""
CURIOSITY = 0.1
"""Weight of the confidence bound, in shares of the best accuracy."""
ATTEMPTS = 20


@dataclass
class Subspace:
    """The surroundings of a configuration."""

    center: Ints
    best: float
    """The highest merit found in it; infinite while nothing was."""
    visits: int = 0


class Ase:
    """Takes the subspace with the highest bound, and a fresh configuration within it."""

    def __init__(self, ledger: Ledger, scale: Scale) -> None:
        self._ledger, self._scale = ledger, scale
        schemes, levels = uniform_configs(scale.graph, ledger.task.int8)
        uniform = [config for config in [ledger.task.int8, *levels.values(), *schemes.values()]
                   if scale.encode(config) is not None]
        self._subspaces = {key_of(config): Subspace(config, math.inf) for config in uniform}
        self._asked: dict[bytes, bytes] = {}

    def propose(self) -> Ints | None:
        """See Strategy."""
        while self._subspaces:
            key, subspace = max(self._subspaces.items(), key=lambda pair: self._bound(pair[1]))
            found = self._within(subspace)
            if found is not None:
                subspace.visits += 1
                self._asked[key_of(found)] = key
                return found
            del self._subspaces[key]  # nothing fresh is left in it
        return None

    def learn(self, config: Ints, result: Result | None) -> None:
        """Credit the subspace, and make a good configuration the center of a new one."""
        key = key_of(config)
        home = self._subspaces.get(self._asked.pop(key, key))
        merit = -math.inf if result is None else self._ledger.merit(result)
        if home is not None:
            home.best = merit if home.best == math.inf else max(home.best, merit)
        best = self._ledger.best()
        if result is not None and best is not None and key_of(best.picks) == key and key not in self._subspaces:
            self._subspaces[key] = Subspace(config, merit)

    def _bound(self, subspace: Subspace) -> float:
        visits = sum(other.visits for other in self._subspaces.values())
        return subspace.best + CURIOSITY * math.sqrt(2 * math.log(1 + visits) / (1 + subspace.visits))

    def _within(self, subspace: Subspace) -> Ints | None:
        """Return the center while it is fresh, then changes of it; None when none was fresh."""
        if self._ledger.fresh(subspace.center[None])[0]:
            return subspace.center
        for attempt in range(ATTEMPTS):
            found = self._scale.mutate(subspace.center, 1 + attempt % RADIUS)
            if self._ledger.fresh(found[None])[0]:
                return found
        return None
