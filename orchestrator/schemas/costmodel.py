"""What the `costmodel` verbs print."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from orchestrator.schemas.dry_run import DryRunBoard
from orchestrator.schemas.strict import strict


@strict
class CostmodelCollected(TypedDict):
    """`orchestrator costmodel collect`: layers that were measured on a board."""

    schema: Literal[1]
    board: DryRunBoard
    threads: int
    seed: int
    """Of the sweep: the same one names the same points."""
    dry_run: bool
    points: int | None
    """Asked for."""
    points_absent_because: NotRequired[str]
    known: int
    """Of them measured before, and not again."""
    measured: int
    infeasible: int
    """Refused by the quantiser or the runtime, crashed, or wrong on the golden inputs."""
    rows: int
    """Points that the store now holds of this board."""
    wall_s: float
    interrupted: bool
    simulated: bool


@strict
class PriorErrors(TypedDict):
    """How far a prior is from held-out measurements."""

    median_relative_error: float
    """Median of |predicted / measured - 1|, after the best scale for each kind of board."""
    rank_correlation: float
    """Spearman's."""


@strict
class NetworkErrors(TypedDict):
    """The priors on the whole candidates that a study measured; studies are never trained with."""

    study: str
    model: str
    board_kind: str
    candidates: int
    """How many were measured."""
    priors: dict[str, PriorErrors]


@strict
class CostmodelEvaluated(TypedDict):
    """`orchestrator costmodel evaluate`: the priors on layers that they were not trained with."""

    schema: Literal[1]
    scope: str
    """The kind of board whose rows were used, or `*`: all that were measured."""
    board_kinds: list[str]
    rows: int
    held_out_families: dict[str, PriorErrors]
    """Prior -> its errors on families of shapes that were held out."""
    held_out_board_kinds: dict[str, PriorErrors] | None
    """Prior -> its errors on kinds of boards that were held out."""
    held_out_board_kinds_absent_because: NotRequired[str]
    networks: list[NetworkErrors]
    """Of the studies in the store, with a model that was trained with all rows of the scope."""
    chosen: str
    """The prior with the least error on held-out families: roofline, xgboost or both."""


@strict
class CostmodelTrained(TypedDict):
    """`orchestrator costmodel train`: a new version of a cost model."""

    schema: Literal[1]
    scope: str
    """The kind of board whose rows it was trained with, or `*`: all that were measured."""
    version: int
    created_at: str
    """UTC, ISO 8601."""
    features_version: int
    library: str
    sha256: str
    """Of the model's file in the store's blobs."""
    evaluation: CostmodelEvaluated
