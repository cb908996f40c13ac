"""What `orchestrator tune` prints."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from orchestrator.schemas.search import RuntimeDocument
from orchestrator.schemas.strict import strict


@strict
class TileDocument(TypedDict):
    """What a kernel sums up in registers at a time."""

    pixels: int
    """Of one row of the output."""
    vectors: int
    """Of output channels."""
    weights_stay: bool
    """All pixels with some channels' weights, then the next channels; else all channels of some pixels."""


@strict
class TunedKernel(TypedDict):
    """One kernel on one kind of board."""

    kernel: str
    """Digest of its shape, scheme and instructions."""
    title: str
    board: str
    """The one that measured it."""
    default_s: float | None
    """With the tile that is taken where nothing is known, with the clock's own time of a microsecond or less."""
    tuned_s: float | None
    tiles: int
    """How many were measured."""
    tile: TileDocument
    """The fastest."""
    code_bytes: int
    reason: str | None
    """Why it does not run there."""


@strict
class TuneDocument(TypedDict):
    """`orchestrator tune`: the fastest tile of every kernel of a network on a kind of board."""

    schema: Literal[1]
    device: str
    kind: str
    boards: list[str]
    runtime: RuntimeDocument
    model: str
    dry_run: bool
    planned: int
    """Kernels that a candidate of the network may call."""
    known: int
    """Of them, those that the store knew."""
    measured: int
    infeasible: int
    wall_s: float
    interrupted: bool
    kernels: list[TunedKernel]
    """Of the network, as far as they are known, the cheapest first."""
