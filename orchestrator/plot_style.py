"""Colours and marks of the pictures, the same for matplotlib and plotly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.store.records import TrialRole

BIT_WIDTHS = (2, 4, 8, 16, 32)
BIT_COLOURS = {2: "#ffffcc", 4: "#c7e9b4", 8: "#41b6c4", 16: "#2c7fb8", 32: "#253494"}
FRONT, LIMIT, WINNER = "#009e73", "#aa3377", "#d55e00"


@dataclass(frozen=True, slots=True)
class RoleStyle:
    """How candidates of one role are drawn."""

    colour: str
    """Told apart by colour-blind readers too (Okabe and Ito 2008)."""
    marker: str
    """Matplotlib's name."""
    symbol: str
    """Plotly's name."""
    noun: str


ROLES: Mapping[TrialRole, RoleStyle] = {
    TrialRole.SEARCH: RoleStyle("#56b4e9", "o", "circle", "candidate"),
    TrialRole.SEED: RoleStyle("#0072b2", "s", "square", "seed"),
    TrialRole.BASELINE: RoleStyle("#444444", "D", "diamond", "baseline"),
}
