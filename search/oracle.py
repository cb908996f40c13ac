"""What the engine asks of the host: cheap estimates that steer, and the accuracy of an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from search.candidate import Candidate


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the host knows of a candidate without a board."""

    size_bytes: int | None
    """None: it was not built."""
    metrics: Mapping[str, float]
    """On the validation split; higher is better."""
    divergence: float | None = None
    """Of the outputs on the validation split from float32's, see `HostOracle.divergences`; None: not known."""
    luck: Mapping[str, float] = field(default_factory=dict)
    """Metric -> one draw of the standard error of its difference to float32's."""


class HostOracle(Protocol):
    """Answers in batches, for it may work on several candidates at once."""

    def divergences(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """Return how far the outputs on the calibration inputs are from float32's, 0 or more.

        The mean KL divergence (nats) of class scores; the normalised mean squared error of other outputs.
        None where a candidate is infeasible.
        """

    def estimates(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        """Return accuracy, nothing being converted: an estimate where widths are new; None: infeasible."""

    def builds(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        """Return size and accuracy of the artifacts; None where a candidate is infeasible."""
