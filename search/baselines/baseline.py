"""A baseline: one published idea, made a searcher that never repeats, survives failures and ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from search.adaptive.graph import Floats, Ints
from search.adaptive.judge import Outlook, Rivals
from search.baselines.ledger import Ledger, Result
from search.baselines.ordinal import Scale

ATTEMPTS = 20
"""How often an idea may repeat itself until the search goes on without it."""


class Strategy(Protocol):
    """The idea of a baseline. It sees the ledger, which is told first."""

    def propose(self) -> Ints | None:
        """Return a legal configuration, fresh if it can; None when the idea is at its end."""

    def learn(self, config: Ints, result: Result | None) -> None:
        """Take what became of a configuration, proposed here or not; None: it was infeasible."""


@runtime_checkable
class SiteTable(Protocol):
    """What a strategy has beside, when it learns from the times of single sites."""

    def wants_profile(self, config: Ints) -> bool:
        """Tell whether the times of sites of this configuration would be of use."""

    def tell_profile(self, config: Ints, site_s: Floats) -> None:
        """Take seconds of every site, conversions counted where they are consumed: (sites,)."""


class Baseline:
    """A strategy as a searcher.

    Args:
        ledger: shared with the strategy.
        strategy: proposes.
        scale: where the search goes when the strategy has nothing fresh: steps from the best, then whatever is left.
        sites: what learns from the times of single sites, where the strategy does.
    """

    def __init__(self, ledger: Ledger, strategy: Strategy, scale: Scale, sites: SiteTable | None = None) -> None:
        self._ledger, self._strategy, self._scale, self.sites = ledger, strategy, scale, sites

    def propose(self) -> Ints | None:
        """See Searcher."""
        found = self._fresh()
        if found is None:
            found = self._scale.step(self._ledger)
        if found is None:
            found = self._ledger.any_left()
        if found is not None:
            self._ledger.take(found)
        return found

    def tell(self, config: Ints, latency_s: float, accuracy: float, excess: Mapping[str, float]) -> None:
        """See Searcher; every latency is believed."""
        self._strategy.learn(config, self._ledger.tell(config, latency_s, accuracy, excess))

    def tell_infeasible(self, config: Ints) -> None:
        """See Searcher."""
        self._ledger.take(config)
        self._strategy.learn(config, None)

    def notes(self) -> str | None:
        """Return nothing: no baseline keeps what it asked the host."""
        return None

    def learn(self, notes: str, same: bool) -> None:
        """See Searcher; there are none."""

    def choice(self) -> Ints | None:
        """See Searcher."""
        return self._ledger.choice()

    def offers(self) -> Rivals:
        """See Searcher."""
        return self._ledger.offers()

    def face(self, rivals: Rivals) -> None:
        """See Searcher: no baseline knows of other spaces."""

    def foresee(self) -> None:
        """See Searcher: there is nothing to renew."""

    def outlook(self) -> Outlook | None:
        """Return nothing: no baseline says what to expect."""
        return None

    def _fresh(self) -> Ints | None:
        for _ in range(ATTEMPTS):
            config = self._strategy.propose()
            if config is None:
                return None
            if self._ledger.fresh(config[None])[0]:
                return config
        return None
