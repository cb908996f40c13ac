"""After a search: keep the document and the winner's bundle."""

from __future__ import annotations

from orchestrator.document import Document, search_document
from orchestrator.store.store import Store
from orchestrator.study_run import Outcome


def conclude(store: Store, outcome: Outcome) -> Document:
    """Write the winner's bundle and the final document into the store, and return the document."""
    document = search_document(outcome, None)
    store.set_document(outcome.study.id, document)
    return document
