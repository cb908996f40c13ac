"""Ranges of activations from histograms: the methods of calibration that clip what is rare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.ports import Array

BINS = 2048
"""Of a tensor's histogram, between its least and its greatest value."""
CLIPPED = 1e-4
"""Share of a tensor's values that the percentile method clips on either side."""
SHRUNK = np.linspace(0.2, 1.0, 81)
"""Shares of a tensor's range that the squared error is compared at."""
MASKED = 1e30
"""Greater values are no activations, but say which ones count not (a causal mask)."""
STEPS = 255
"""Of 8-bit activations."""


@dataclass(frozen=True)
class Histogram:
    """How often values occur: zero is always within the range, for integers must be able to say it."""

    low: float
    high: float
    counts: NDArray[np.float64]
    """(BINS,)."""

    @classmethod
    def between(cls, low: float, high: float) -> Histogram:
        return cls(min(low, 0.0), max(high, 0.0), np.zeros(BINS))

    def add(self, values: Array) -> None:
        if self.high > self.low:
            self.counts[:] += np.histogram(values, BINS, (self.low, self.high))[0]

    def percentile(self) -> tuple[float, float]:
        """Return the range without the rarest values."""
        edges, passed = np.linspace(self.low, self.high, BINS + 1), np.cumsum(self.counts)
        if not passed[-1]:
            return self.low, self.high
        first = int(np.searchsorted(passed, CLIPPED * passed[-1]))
        last = int(np.searchsorted(passed, (1 - CLIPPED) * passed[-1]))
        return min(float(edges[first]), 0.0), max(float(edges[min(last, BINS - 1) + 1]), 0.0)

    def mse(self) -> tuple[float, float]:
        """Return the range with the least squared error, both ends shrunk alike."""
        edges = np.linspace(self.low, self.high, BINS + 1)
        middle = (edges[1:] + edges[:-1]) / 2

        def error(share: float) -> float:
            step = share * (self.high - self.low) / STEPS
            least = np.round(share * self.low / step)
            kept = (np.clip(np.round(middle / step), least, least + STEPS)) * step
            return float(self.counts @ (kept - middle) ** 2)

        if not self.counts.any():
            return self.low, self.high
        best = min(SHRUNK[::-1], key=error)
        return float(best * self.low), float(best * self.high)
