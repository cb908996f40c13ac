"""What `orchestrator init` prints."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from orchestrator.schemas.strict import strict


@strict
class InitDocument(TypedDict):
    """`orchestrator init`."""

    schema: Literal[1]
    files: list[str]
    """What was written."""
    next: str
    """The command that tries it."""
