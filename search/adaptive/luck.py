"""What is believed of accuracies when a part of them is luck, above all of those that were picked for being high.

    accuracy = float32's - k * divergence + own + luck

The divergence of all outputs has little noise, the accuracy on a few thousand examples has much. k is fitted through
float32; of what then remains, the share that luck explains is taken away (empirical Bayes: Efron and Morris 1973,
Journal of the American Statistical Association 68, section 2; luck is measured on halves of the examples).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEAST = 8
"""Fewer accuracies say too little."""
MOST = 100
"""Those with the least divergence are used: elsewhere the line need not be right."""


@dataclass(frozen=True, slots=True)
class Close:
    """One candidate beside float32, on the examples of its accuracy."""

    divergence: float
    """0 or more."""
    luck: float
    """One draw of the standard error of the difference of their accuracies, 0 or more."""


def believed(accuracy: Mapping[bytes, float], close: Mapping[bytes, Close],
             float32: float | None) -> dict[bytes, float]:
    """Return what accuracies are expected on other examples, nearer to the line the more luck there is.

    Args:
        accuracy: configuration -> accuracy; NaN where it is infeasible.
        close: of some of them; the others' accuracies stay as they are.
        float32: its accuracy; None: not known, and nothing is changed.
    """
    found = dict(accuracy)
    keys = sorted(k for k in close if np.isfinite(accuracy.get(k, np.nan)) and close[k].divergence > 0)
    keys = sorted(keys, key=lambda k: close[k].divergence)[:max(LEAST, min(MOST, len(keys) // 2))]
    if float32 is None or len(keys) < LEAST:
        return found
    divergence = np.array([close[k].divergence for k in keys])
    lost = np.array([float32 - accuracy[k] for k in keys])
    slope = float(divergence @ lost / (divergence @ divergence))
    if slope <= 0:
        return found
    rest = lost - slope * divergence
    luck = float(np.mean([close[k].luck ** 2 for k in keys]))
    own = max(float(rest @ rest) / (len(keys) - 1) - luck, 0.0)
    share = luck / (own + luck) if luck > 0 else 0.0
    for key, more in zip(keys, rest, strict=True):
        found[key] = accuracy[key] + share * float(more)
    return found
