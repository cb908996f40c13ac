"""What a searcher is given, and what it must do: the level at which all searchers are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from search.adaptive.graph import Extra, Floats, Graph, Ints, Tables
from search.adaptive.judge import Aim, Outlook, Rivals
from search.adaptive.luck import Close
from search.adaptive.quality import Divergence

Accuracy = Callable[[Ints], Floats]
"""(configurations, sites) -> the objective on the host: (configurations,); NaN where a configuration is infeasible."""
Scores = Callable[[Ints], Mapping[str, Floats]]
"""(configurations, sites) -> metric -> its values on the host; NaN where a configuration does not run."""


@dataclass(frozen=True)
class Metrics:
    """Every metric that the goal speaks of, the objective first."""

    scores: Scores
    least: Mapping[str, float | None]
    """Metric -> its least allowed value; None: there is none."""


@dataclass(frozen=True)
class Task:
    """One search over the options of a graph."""

    prior: Tables
    """Seconds of every option and conversion, in proportion."""
    divergence: Divergence
    """From float32, on the calibration inputs; cheap."""
    accuracy: Accuracy
    """May be an estimate."""
    budget_s: float | None
    """The latency that must not be exceeded; None: there is no such limit."""
    floating: Ints
    """The configuration that is float32."""
    int8: Ints
    """The uniform int8 configuration."""
    ladder: tuple[tuple[int, ...], ...]
    """Of every site: the options that a searcher on an ordinal scale sees, widest first."""
    seed: int
    metrics: Metrics
    aim: Aim = Aim.ACCURATE
    """Where the least latency is looked for, it is among what `accuracy` does not call NaN."""
    limits: Callable[[], tuple[Extra, ...]] = field(default=tuple)
    """Returns further resources with their limits, as they are known by now."""
    dearer: tuple[Accuracy, ...] = ()
    """The levels above `accuracy`, cheapest first; the last one is as it is told after a measurement."""
    closeness: Callable[[Ints], Sequence[Close | None]] | None = None
    """To float32, of configurations whose accuracy is known; None where it is not."""
    tie: float = 0.0
    """Accuracies no further apart than this are a tie, which the faster configuration wins."""

    def __post_init__(self) -> None:
        if len(self.ladder) != self.graph.length or not all(self.ladder):
            raise ValueError(f"ladder: expected at least one option for each of the {self.graph.length} sites, got "
                             f"{[len(options) for options in self.ladder]}")

    @property
    def graph(self) -> Graph:
        return self.prior.graph

    @property
    def fastest(self) -> bool:
        """Whether the least latency is looked for."""
        return self.aim is Aim.FASTEST


class Searcher(Protocol):
    """Proposes configurations, learns from what became of them. One thread asks and tells."""

    def propose(self) -> Ints | None:
        """Return a legal configuration that was neither proposed nor told before; None when there is none left."""

    def tell(self, config: Ints, latency_s: float, accuracy: float, excess: Mapping[str, float]) -> None:
        """Take a measurement of a configuration, proposed here or not, the first or a repeated one.

        Args:
            config: (sites,).
            latency_s: as the board says.
            accuracy: as the host says; NaN where it is not known.
            excess: constraint -> relative violation, of those beside latency; one holds when it is at most 0.
        """

    def tell_infeasible(self, config: Ints) -> None:
        """Take that a configuration can never be measured."""

    def notes(self) -> str | None:
        """Return what the host found out since the last call, as text; None: nothing to keep."""

    def learn(self, notes: str, same: bool) -> None:
        """Take what `notes` gave before.

        Args:
            notes: all of it, oldest first.
            same: the constraints were the same then; else accuracies may have been called NaN that no longer are.
        """

    def choice(self) -> Ints | None:
        """Return what it would ship now; None while nothing that was measured meets the goal."""

    def offers(self) -> Rivals:
        """Return what was measured within the goal: what searchers of other spaces must beat."""

    def face(self, rivals: Rivals) -> None:
        """Take what searchers of other spaces offer, and renew the outlook with it; the host is asked nothing."""

    def foresee(self) -> None:
        """Renew the outlook without preparing a measurement: nothing is taken for proposed, nothing is built."""

    def outlook(self) -> Outlook | None:
        """Return what the last proposal was expected to bring; None where this searcher does not say."""
