"""The units that the command line and files use: `10ms`, `0.6x:int8`, `80KB`, `30m`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.errors import UsageError
from search.recipes import UNIFORM

_DURATION = re.compile(r"^([0-9]*\.?[0-9]+)\s*(ns|us|ms|s|m|min|h)$")
_SIZE = re.compile(r"^([0-9]*\.?[0-9]+)\s*(B|KB|KiB|MB|MiB)$")
_FACTOR = re.compile(r"^([0-9]*\.?[0-9]+)x(?::([a-z0-9_]+))?$")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
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


def parse_seconds(text: str, option: str) -> float:
    """Read `10ms`, `30m`. Raises UsageError."""
    match = _DURATION.match(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{option} {text!r}: expected a positive time such as 500us, 10ms, 2s, 30m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def parse_budget(text: str, option: str = "--budget") -> Budget:
    """Read `10ms`, `0.5x` (of float32) or `0.6x:int8`. Raises UsageError."""
    return _budget(text, option, "a time such as 10ms") or Budget(text, parse_seconds(text, option), None, None)


def parse_size_budget(text: str, option: str = "--size-budget") -> Budget:
    """Read `80KB` or `0.8x:int8`. Raises UsageError."""
    found = _budget(text, option, "a size such as 80KB")
    if found is not None:
        return found
    match = _SIZE.match(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{option} {text!r}: expected a size such as 80KB (1,000 bytes), 1.5MB or 64KiB, or a "
                         "share such as 0.8x:int8")
    return Budget(text, float(match[1]) * _BYTES[match[2]], None, None)


def _budget(text: str, option: str, other: str) -> Budget | None:
    match = _FACTOR.match(text.strip())
    if match is None:
        return None
    if match[2] is not None and match[2] not in UNIFORM:
        raise UsageError(f"{option} {text!r}: no baseline {match[2]!r}; there are {', '.join(UNIFORM)}")
    if float(match[1]) <= 0:
        raise UsageError(f"{option} {text!r}: expected a positive share or {other}")
    return Budget(text, None, float(match[1]), match[2])


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
