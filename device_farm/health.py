"""Words for a board's health, and what decides whether it may serve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from device_farm.check import Finding
from device_farm.errors import Unfit

FAILURES = 3
"""Quarantines in a day; then a board waits for a person."""
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A board that nobody may lease."""

    board: str
    since: datetime
    """By the database's clock."""
    reason: str
    failures: int
    """In the day before, this one included."""
    waits_for_person: bool
    """It does not come back by itself."""


def refuse_unfit(board: str, findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return the warnings among findings as texts. Raises Unfit where something is missing."""
    warnings = []
    for finding in findings:
        text = f"{board}: {finding.what}: {finding.detail}"
        if finding.level == "missing":
            raise Unfit(text + (f"; {finding.remedy}" if finding.remedy else ""))
        if finding.level == "warning":
            warnings.append(text)
    return tuple(warnings)
