"""Search engine: space, candidates, goals, proposers. Pure: no torch, no input or output."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.adaptive.graph import Graph, Option, Site, Tables
    from search.adaptive.judge import Aim
    from search.sampler import AdaptiveSampler

__all__ = ["AdaptiveSampler", "Aim", "Graph", "Option", "Site", "Tables"]

_PLACES = {
    "AdaptiveSampler": "search.sampler",
    "Aim": "search.adaptive.judge",
    "Graph": "search.adaptive.graph",
    "Option": "search.adaptive.graph",
    "Site": "search.adaptive.graph",
    "Tables": "search.adaptive.graph",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _PLACES:
        raise AttributeError(f"module 'search' has no attribute {name!r}; public: {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)
