"""What one more measurement is expected to bring to a front of latency and accuracy."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from search.adaptive.engine import Engine
from search.adaptive.graph import Floats
from search.adaptive.judge import Outlook
from search.adaptive.memory import key_of
from search.goal import TIE

FASTER = 0.01
"""A point that is as accurate as another and this share faster extends the front."""


def front_outlook(engine: Engine) -> Outlook:
    """Return what the best that the host knows would add to what is measured.

    A configuration extends the front when it is more than `FASTER` faster than everything measured that is as accurate
    to within `TIE` (epsilon-dominance: Laumanns et al. 2002, Evolutionary Computation 10, definition 3).

    Returns:
        The points of accuracy that it would gain over what is as fast, and the probability that it extends the front.
        An infinite gain while nothing measured keeps within the budget.
    """
    judge = engine.judge()
    values = np.array([engine.memory.accuracy.get(key_of(c), np.nan) for c in judge.measured])
    usable = np.isfinite(values)
    if usable.any():
        usable &= judge.probability(judge.measured) >= 0.5
    pool, accuracy = engine.memory.known()
    kept = np.array([key_of(c) not in engine.measured and key_of(c) not in engine.blocked for c in pool], bool)
    pool, accuracy = pool[kept & np.isfinite(accuracy)], accuracy[kept & np.isfinite(accuracy)]
    if not usable.any() or not len(pool):
        return Outlook(float("inf"), 1.0)
    times_s, values = judge.posterior.predict(judge.measured[usable])[0], values[usable]
    mean, deviation = judge.posterior.predict(pool)
    within = judge.probability(pool)
    rivals = np.where(values[None] >= accuracy[:, None] - TIE, times_s[None], np.inf).min(1)
    faster: Floats = norm.cdf((np.where(np.isinf(rivals), 1.0, (1 - FASTER) * rivals) - mean) / deviation)
    extends = np.where(np.isinf(rivals), within, np.minimum(faster, within))
    as_fast = np.where(times_s[None] <= mean[:, None], values[None], -np.inf).max(1)
    gains = np.where(np.isfinite(as_fast), np.maximum(accuracy - as_fast, 0.0), 0.0) * extends
    return Outlook(float(gains.max()), float(extends.max()))
