"""The units that the command line and files use: `10ms`, `0.6x:int8`, `80KB`, `30m`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import UsageError
from search.recipes import UNIFORM

_DURATION = re.compile(r"^([0-9]*\.?[0-9]+)\s*(ns|us|ms|s|m|min|h)$")
_SIZE = re.compile(r"^([0-9]*\.?[0-9]+)\s*(B|KB|KiB|MB|MiB)$")
_FACTOR = re.compile(r"^([0-9]*\.?[0-9]+)x(?::([a-z0-9_]+))?$")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_LONG = ("m", "min", "h")
"""No latency is counted in these: `5m` as a budget is a slip."""
_BYTES = {"B": 1, "KB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2}


@dataclass(frozen=True, slots=True)
class Budget:
    """An absolute limit, or a share of a baseline's own value."""

    text: str
    absolute: float | None
    """Seconds or bytes; None for a share."""
    factor: float | None
    baseline: str | None
    """A uniform recipe's name; None: float32."""

    @property
    def needs(self) -> str | None:
        """The baseline that must be measured, if any."""
        return None if self.factor is None else self.baseline or "float32"

    def resolve(self, value: float | None) -> float:
        """Return the limit, given the baseline's value where the budget is a share of it."""
        if self.absolute is not None:
            return self.absolute
        if self.factor is None or value is None:
            raise ValueError(f"budget {self.text}: the baseline {self.needs} has no value")
        return self.factor * value


def parse_seconds(text: str) -> float:
    """Read `10ms`, `30m`. Raises UsageError that does not say where the text stands."""
    found = _quantity(_DURATION, text, _SECONDS)
    if found is None:
        raise UsageError(f"expected a positive time such as 90s, 30m or 2h, got {text!r}")
    return found


def parse_budget(text: str) -> Budget:
    """Read `10ms`, `0.5x` (of float32) or `0.6x:int8`. Raises UsageError that does not say where the text stands."""
    share = _share(text)
    if share is not None:
        return share
    match = _DURATION.match(text.strip())
    if match is not None and match[2] in _LONG:
        raise UsageError(f"expected a latency in ns, us, ms or s, such as 10ms, got {text!r} "
                         f"({'hours' if match[2] == 'h' else 'minutes'}); how long to search is --time")
    found = _quantity(_DURATION, text, _SECONDS)
    if found is None:
        raise UsageError("expected a positive latency such as 10ms, or a share of a baseline's such as 0.5x (of "
                         f"float32) or 0.6x:int8, got {text!r}")
    return Budget(text, found, None, None)


def parse_size_budget(text: str) -> Budget:
    """Read `80KB` or `0.8x:int8`. Raises UsageError that does not say where the text stands."""
    share = _share(text)
    if share is not None:
        return share
    found = _quantity(_SIZE, text, _BYTES)
    if found is None:
        raise UsageError("expected a positive size such as 80KB (80,000 bytes), 1.5MB or 64KiB, or a share of a "
                         f"baseline's such as 0.5x (of float32) or 0.8x:int8, got {text!r}")
    return Budget(text, found, None, None)


def _quantity(pattern: re.Pattern[str], text: str, units: Mapping[str, float]) -> float | None:
    """Return a positive, finite number in the base unit; None for anything else."""
    match = pattern.match(text.strip())
    value = 0.0 if match is None else float(match[1]) * units[match[2]]
    return value if 0 < value < math.inf else None


def _share(text: str) -> Budget | None:
    match = _FACTOR.match(text.strip())
    if match is None or not 0 < float(match[1]) < math.inf:
        return None
    if match[2] is not None and match[2] not in UNIFORM:
        raise UsageError(f"no baseline {match[2]!r}; there are {', '.join(UNIFORM)}; got {text!r}")
    return Budget(text, None, float(match[1]), match[2])


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: `1 layer`, `3 layers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def show_seconds(value: float) -> str:
    """Print a latency with three digits: `153 us`, `1.24 ms`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= 0.9995 * scale:  # what would be printed as 1000 of the smaller unit
            return f"{value / scale:.3g} {unit}" if value / scale < 999.5 else f"{value / scale:.0f} {unit}"
    return f"{value * 1e9:.3g} ns"


def show_bytes(value: float) -> str:
    """Print a size: `81.2 KB`."""
    for unit in ("MB", "KB"):
        if value >= _BYTES[unit]:
            return f"{value / _BYTES[unit]:.1f} {unit}"
    return f"{value:.0f} B"
