"""Chance on the reduced scale: learns nothing, so what it finds is what every searcher must beat."""

from __future__ import annotations

from search.adaptive.graph import Ints
from search.baselines.ledger import Result
from search.baselines.ordinal import Scale


class Chance:
    """Draws every variable of the scale, each value as likely as the others (Bergstra and Bengio 2012, JMLR 13)."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale

    def propose(self) -> Ints | None:
        """See Strategy."""
        return self._scale.chance()

    def learn(self, config: Ints, result: Result | None) -> None:
        """See Strategy."""
