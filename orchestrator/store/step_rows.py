"""The memo of build steps, within a transaction."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlmodel import Session, col, select

from orchestrator.store.models import Step, StudyStep
from orchestrator.store.records import StepRecord
from orchestrator.store.rows import step_record
from recipes.blobs import BlobMissing, BlobStore


def get(session: Session, key: str, blobs: BlobStore) -> StepRecord | None:
    """Return a finished step whose blobs are all there, else None."""
    row = session.get(Step, key)
    if row is None:
        return None
    step = step_record(row)
    return step if all(blobs.has(sha256) for sha256 in step.outputs.values()) else None


def of_study(session: Session, study_id: uuid.UUID) -> tuple[StepRecord, ...]:
    """Return the steps on a study's list, oldest first."""
    query = select(Step).join(StudyStep).where(StudyStep.study_id == study_id).order_by(col(Step.created_at))
    return tuple(step_record(row) for row in session.exec(query))


def is_used(session: Session, key: str, study_id: uuid.UUID) -> bool:
    """Say whether the step is on the study's list."""
    return session.get(StudyStep, (study_id, key)) is not None


def use(session: Session, key: str, study_id: uuid.UUID) -> None:
    """Put the step on the study's list, so that its blobs live as long as the study."""
    if not is_used(session, key, study_id):
        session.add(StudyStep(study_id=study_id, step_key=key))


def put(session: Session, step: StepRecord, blobs: BlobStore, now: datetime) -> StepRecord:
    """Store a step and return the stored one: the first of two builders wins.

    Raises BlobMissing when one of its outputs is not (or no longer) in the store.
    """
    lost = [name for name, sha256 in step.outputs.items() if not blobs.has(sha256)]
    if lost:
        raise BlobMissing(f"step {step.name}: its output {', '.join(lost)} is not in {blobs.root}; put the "
                          "blobs first, and build the step again when a study was deleted meanwhile")
    first = get(session, step.key, blobs)
    if first is not None:
        return first
    session.merge(Step(key=step.key, name=step.name, outputs=dict(step.outputs),
                       tool_versions=dict(step.tool_versions), created_at=now))
    session.flush()
    return step
