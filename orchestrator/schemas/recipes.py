"""What `orchestrator recipes` prints."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from orchestrator.schemas.search import Accuracy
from orchestrator.schemas.strict import strict


@strict
class RecipeSummary(TypedDict):
    """The winner of a study."""

    study: str
    model: str
    device: str
    latency_s: float
    """The statistic that the goal names."""
    accuracy: Accuracy
    size_bytes: int
    goal_met: bool
    simulated: bool
    path: str | None
    """Folder of the bundle."""
    path_absent_because: NotRequired[str]


@strict
class RecipesList(TypedDict):
    """`orchestrator recipes list`."""

    schema: Literal[1]
    store: str
    recipes: list[RecipeSummary]


@strict
class RecipeExported(TypedDict):
    """`orchestrator recipes export`."""

    schema: Literal[1]
    study: str
    output: str
    files: int
    size_bytes: int


@strict
class VerifiedCheck(TypedDict):
    """One thing that was compared."""

    name: str
    """A file, or `source -> file` for a rebuild."""
    ok: bool
    detail: str
    expected: str | None
    """SHA-256."""
    got: str | None
    """SHA-256."""


@strict
class RecipeVerified(TypedDict):
    """`orchestrator recipes verify`."""

    schema: Literal[1]
    bundle: str
    ok: bool
    """Every check is."""
    checks: list[VerifiedCheck]
