"""Which cores a session is pinned to."""

from __future__ import annotations

import os
from collections.abc import Iterable

from profilers.agent.sensors import number, text


def fastest(threads: int, allowed: Iterable[int], root: str = "/") -> list[int]:
    """Return as many cores as there are threads, the fastest ones; of equals the last ones.

    Interrupts are served by the first core, by default.

    Args:
        threads: of the runtime.
        allowed: cores on which this process may run.
        root: of the file system, for tests.
    """
    ordered = sorted(allowed, key=lambda core: (_capacity(core, root), core), reverse=True)
    return sorted(ordered[:threads])


def _capacity(core: int, root: str) -> tuple[float, float]:
    """Return a core's relative speed (Arm) and its highest frequency; 0 where the system does not say."""
    folder = os.path.join(root, f"sys/devices/system/cpu/cpu{core}")
    capacity = number(text(os.path.join(folder, "cpu_capacity")))
    frequency = number(text(os.path.join(folder, "cpufreq/cpuinfo_max_freq")))
    return capacity or 0.0, frequency or 0.0


def pin(wanted: object, threads: int) -> list[int] | None:
    """Pin this process, as a request says; return the cores, None where nothing was pinned.

    Args:
        wanted: `fastest`, a list of cores, or None: not pinned.
        threads: of the runtime.
    """
    allowed = os.sched_getaffinity(0)
    if wanted is None:
        return None
    chosen = fastest(threads, allowed) if wanted == "fastest" else sorted(set(wanted) & allowed)  # type: ignore[call-overload]
    if not chosen:
        return None
    os.sched_setaffinity(0, chosen)
    return chosen
