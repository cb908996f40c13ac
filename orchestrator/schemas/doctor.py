"""What `orchestrator doctor` prints."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from orchestrator.schemas.strict import strict


@strict
class Check(TypedDict):
    """One thing that was looked at."""

    name: str
    level: Literal["ok", "warning", "error"]
    detail: str
    remedy: str | None


@strict
class DoctorDocument(TypedDict):
    """`orchestrator doctor`."""

    schema: Literal[1]
    ok: bool
    """No check is an error."""
    checks: list[Check]
