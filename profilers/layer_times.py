"""What each layer takes, from the times of an artifact's kernels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from profilers.measurement import Measurement

BETWEEN = ""
"""Stands for kernels of which the compiler does not say whose they are."""


def layer_times(measurement: Measurement) -> Mapping[str, float]:
    """Return layer -> seconds of one inference, in the order of their first calls; empty where nothing was timed.

    Every kernel is timed with a callback around it, so that all together seem slower than the artifact is. What is too
    much is the same for every call, and is taken off: the sum is the artifact's median latency.
    """
    if not measurement.kernels:
        return {}
    clocked_ns = sum(call.ns for call in measurement.kernels)
    callback_ns = max(0.0, (clocked_ns - statistics.median(measurement.wall_ns)) / len(measurement.kernels))
    found: dict[str, float] = {}
    for call in measurement.kernels:
        found[call.layer] = found.get(call.layer, 0.0) + max(0.0, call.ns - callback_ns) * 1e-9
    return found
