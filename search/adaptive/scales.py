"""How wrong a prior is, how loud a board, how much does not add up: what makes the evidence most likely.

Most corrections are of one width. A few are far wider (an operator that the runtime has no fast int8 kernel for takes
five times what its prior says), and must not make all others uncertain: they are found one by one, as outliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from scipy.linalg import solve_triangular

from search.adaptive.graph import Floats
from search.adaptive.posterior import Rows

WIDTHS = (1.0, 4.0, 16.0, 64.0)
"""Factors on the variance of the corrections."""
NOISES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3)
"""Relative standard deviation of one measurement."""
NOISE_PRIOR = (0.02, 0.5)
"""Its log-normal prior: median and spread."""
RESTS = (0.005, 0.02, 0.06)
"""Relative standard deviation of what does not add up."""
OUTLIER = 64.0
"""Factor on the variance of a correction that is an outlier."""
UNLIKELY = 4.0
"""What an outlier takes from the logarithm of the likelihood: one correction in fifty is one."""


@dataclass(frozen=True, slots=True)
class Scales:
    """What the evidence chose."""

    width: float = 1.0
    """Factor on the variance of the corrections."""
    noise: float = NOISE_PRIOR[0]
    rest: float = RESTS[0]
    outliers: tuple[int, ...] = ()
    """Numbers of corrections that are wider by `OUTLIER`, beside the width."""


@dataclass(frozen=True)
class Likelihood:
    """What scales are chosen for."""

    rows: Rows
    spikes: Floats
    """(rows,), seconds."""
    prior: Floats
    """(corrections,), their variance at width 1 without outliers."""
    fixed: int
    """How many corrections, the last ones, no width changes."""

    def of(self, scales: Scales, explained: Floats) -> float:
        """Return its logarithm without a constant; `explained` as with the outliers."""
        rows = self.rows
        loud = rows.variance(scales.noise, scales.rest, self.spikes)
        root = np.linalg.cholesky(explained * scales.width + self.apart + loud)
        white = solve_triangular(root, rows.missed, lower=True, check_finite=False)
        found = -0.5 * float(white @ white) - float(np.log(np.diag(root)).sum())
        found -= 0.5 * float(np.log(scales.noise / NOISE_PRIOR[0]) / NOISE_PRIOR[1]) ** 2
        return found - UNLIKELY * len(scales.outliers)

    def explained(self, outliers: Sequence[int]) -> Floats:
        """Return what the corrections explain together at width 1: (rows, rows)."""
        features = self.rows.features[:, :len(self.prior) - self.fixed]
        variance = widened(self.prior, outliers)[:features.shape[1]]
        found: Floats = (features * variance) @ features.T
        return found

    @cached_property
    def apart(self) -> Floats:
        """What the corrections explain that no width changes: (rows, rows)."""
        start = len(self.prior) - self.fixed
        features = self.rows.features[:, start:]
        found: Floats = (features * self.prior[start:]) @ features.T
        return found

    def grid(self, outliers: tuple[int, ...], widths: Sequence[float]) -> tuple[float, Scales]:
        """Return the largest likelihood and its scales."""
        explained = self.explained(outliers)
        tried = (Scales(*which, outliers) for which in product(widths, NOISES, RESTS))
        return max(((self.of(scales, explained), scales) for scales in tried), key=lambda found: found[0])


def likeliest(evidence: Likelihood, suspects: Sequence[int]) -> Scales:
    """Return the scales of the largest marginal likelihood.

    Args:
        evidence: the readings.
        suspects: numbers of corrections that may be outliers.
    """
    found, scales = evidence.grid((), WIDTHS[:1])
    best = max((found, scales), evidence.grid((), WIDTHS[1:]), key=lambda tried: tried[0])
    seen = [c for c in suspects if evidence.rows.features[:, c].any()]
    while further := [(evidence.of(wider, evidence.explained(wider.outliers)), wider) for wider in (
            replace(scales, outliers=(*scales.outliers, c)) for c in seen if c not in scales.outliers)]:
        likelihood, wider = max(further, key=lambda tried: tried[0])
        if likelihood <= found:
            break
        found, scales = likelihood, wider
    if scales.outliers:
        best = max(best, evidence.grid(scales.outliers, WIDTHS), key=lambda tried: tried[0])
    return best[1]


def widened(prior: Floats, outliers: Sequence[int]) -> Floats:
    """Return the variance of the corrections with outliers: (corrections,)."""
    found = prior.copy()
    found[list(outliers)] *= OUTLIER
    return found
