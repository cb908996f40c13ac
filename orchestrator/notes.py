"""What a proposer's host work found out, kept with the study: a search that is resumed does not do it again."""

from __future__ import annotations

from orchestrator.progress import Progress
from orchestrator.store.records import StepRecord, StudyRecord, digest_of
from orchestrator.store.store import Store
from search.proposers.base import Proposer

NAME = "notes"
"""Of the step, and of its output."""


def keep_notes(store: Store, study: StudyRecord, proposer: Proposer) -> None:
    """Keep what was found out since the last call."""
    text = proposer.notes()
    if text is not None:
        sha256 = store.blobs.put_bytes(text.encode()).sha256
        key = digest_of({"study": str(study.id), NAME: sha256})
        store.put_step(study.id, StepRecord(key, NAME, {NAME: sha256}, {}))


def recall_notes(store: Store, study: StudyRecord, proposer: Proposer, progress: Progress) -> None:
    """Give a proposer all that its predecessors found out, oldest first; another version's notes are passed over."""
    for step in store.steps(study.id):
        if step.name == NAME:
            try:
                proposer.learn(store.blobs.path(step.outputs[NAME]).read_text("utf-8"))
            except ValueError as error:
                progress.note(f"{error}: the host does that work again")
                return
