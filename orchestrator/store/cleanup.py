"""Deleting a study, and with it every file that nothing else in the store needs."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import func
from sqlmodel import Session, col, delete, select

from orchestrator.store.models import Step, Study, StudyStep, Trial
from orchestrator.store.records import Removed
from recipes.blobs import BlobStore


def remove_study(session: Session, study: Study, blobs: BlobStore, files: Iterable[Path]) -> Removed:
    """Delete a study, its trials, `files` and the blobs that no other study uses.

    The files go before the transaction commits: while it holds the lock nobody can start to use
    one of them, and when it is killed half-way the study is still there to be deleted again.
    """
    trials = session.exec(select(func.count()).where(col(Trial.study_id) == study.id)).one()
    unused = _blobs_of_trials(session, study.id)
    used = select(StudyStep.step_key).distinct()
    own_steps = set(session.exec(used.where(StudyStep.study_id == study.id)).all())
    session.delete(study)
    session.flush()
    orphans = own_steps - set(session.exec(used).all())
    for key in orphans:
        unused |= _outputs(session.get_one(Step, key))
        session.exec(delete(Step).where(col(Step.key) == key))
    for step in session.exec(select(Step)):
        unused -= _outputs(step)
    unused -= _blobs_of_trials(session)
    freed = [blobs.remove(sha256) for sha256 in sorted(unused)] + [_unlink(file) for file in files]
    return Removed(trials, sum(size > 0 for size in freed), sum(freed))


def _blobs_of_trials(session: Session, study_id: uuid.UUID | None = None) -> set[str]:
    query = select(Trial.artifact_sha256).distinct()
    if study_id is not None:
        query = query.where(Trial.study_id == study_id)
    return {sha256 for sha256 in session.exec(query) if sha256 is not None}


def _outputs(step: Step) -> set[str]:
    return {str(sha256) for sha256 in step.outputs.values()}


def _unlink(file: Path) -> int:
    try:
        size = file.lstat().st_size
        file.unlink()
    except FileNotFoundError:
        return 0
    return size
