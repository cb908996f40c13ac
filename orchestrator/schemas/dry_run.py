"""What `orchestrator search --dry-run` prints."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from orchestrator.schemas.search import RuntimeDocument
from orchestrator.schemas.strict import strict


@strict
class DryRunBoard(TypedDict):
    """The board that was asked."""

    name: str
    kind: str
    runtime: RuntimeDocument


@strict
class DryRunLayer(TypedDict):
    """One variable of the search space."""

    name: str
    kind: str
    """The operator in the runtime's words."""
    weights: int
    """Number of weights, without bias."""
    macs: int
    """Multiply-accumulates of one inference."""
    choices: list[str]
    """Legal configurations, widest first."""


@strict
class DryRunGroup(TypedDict):
    """Channels that are pruned together or not at all."""

    name: str
    channels: int
    widths: list[int]
    """Numbers of channels that may be kept, widest first."""
    produced_by: list[str]
    """Layers whose output channels they are."""
    read_by: list[str]
    """Layers whose input channels they are."""


@strict
class DryRunLeftOut(TypedDict):
    """Channels that cannot be pruned."""

    name: str | None
    """The first layer that produces them; null for the whole network."""
    reason: str


@strict
class Prices(TypedDict):
    """What one candidate costs, seconds."""

    build_s: float
    accuracy_s: float
    measurement_s: float


@strict
class DryRunFloat32(TypedDict):
    """The float32 baseline."""

    latency_s: float
    """Median."""
    size_bytes: int
    metrics: dict[str, float]
    """On the validation split."""


@strict
class DryRunCompiler(TypedDict):
    """One of several compilers."""

    name: str
    runtime: RuntimeDocument
    layers: list[DryRunLayer]
    groups: list[DryRunGroup]
    for_all: dict[str, list[str]]
    left_out: list[DryRunLeftOut]
    log10_candidates: float
    baselines: list[str]
    seeds: list[str]
    prices: Prices
    float32: DryRunFloat32


@strict
class DryRunDocument(TypedDict):
    """`orchestrator search --dry-run`: what a search would do, from one measurement of float32 with each compiler."""

    schema: Literal[1]
    dry_run: Literal[True]
    model: str
    board: DryRunBoard
    layers: list[DryRunLayer]
    groups: list[DryRunGroup]
    """Empty without --prune."""
    for_all: dict[str, list[str]]
    """What may be chosen for all layers together: `calibration`, `clipping`."""
    left_out: list[DryRunLeftOut]
    log10_candidates: float
    """Decimal logarithm of the number of candidates."""
    parameters: int
    """Of the network."""
    baselines: list[str]
    seeds: list[str]
    prices: Prices
    float32: DryRunFloat32
    compilers: NotRequired[list[DryRunCompiler]]
    """Where several are searched: each in the words of this document, whose own keys are of the first."""
    measurements: int
    estimate_s: float
    """Time that the search will take, after start-up."""
    simulated: bool
