"""Hardware-in-the-loop mixed-precision search. The names below are the public API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.config import StudyConfig, load_config
    from orchestrator.document import search_document
    from orchestrator.outcome import Outcome
    from orchestrator.store.store import Store
    from orchestrator.study_run import StudyRun
    from search.sampler import AdaptiveSampler

__all__ = ["AdaptiveSampler", "Outcome", "Store", "StudyConfig", "StudyRun", "load_config", "search_document"]

_PLACES = {
    "AdaptiveSampler": "search.sampler",
    "Outcome": "orchestrator.outcome",
    "Store": "orchestrator.store.store",
    "StudyConfig": "orchestrator.config",
    "StudyRun": "orchestrator.study_run",
    "load_config": "orchestrator.config",
    "search_document": "orchestrator.document",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `orchestrator --help` stays fast."""
    if name not in _PLACES:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}; public: {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)
