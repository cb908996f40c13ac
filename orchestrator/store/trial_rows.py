"""Adding and finishing trials, within a transaction."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select

from orchestrator.store.errors import CandidateExists, MeasurementExists, TrialFinished, TrialNotFound
from orchestrator.store.models import EvaluationRow, MeasurementRow, Trial
from orchestrator.store.records import (
    Evaluation,
    MeasurementRecord,
    Purpose,
    TrialHistory,
    TrialRecord,
    TrialRole,
    TrialState,
)
from orchestrator.store.rows import (
    evaluation_record,
    evaluation_row,
    measurement_record,
    measurement_row,
    trial_record,
)
from profilers.measurement import Measurement
from search.candidate import Candidate


def find(session: Session, trial_id: uuid.UUID) -> Trial:
    """Return a trial's row. Raises TrialNotFound."""
    row = session.get(Trial, trial_id)
    if row is None:
        raise TrialNotFound(f"no trial has the id {trial_id}: its study was deleted meanwhile")
    return row


def add(session: Session, study_id: uuid.UUID, candidate: Candidate, role: TrialRole, label: str | None,
        widened: Iterable[str], now: datetime) -> TrialRecord:
    """Insert a running trial with the next number. Raises CandidateExists."""
    same = session.exec(select(Trial).where(Trial.study_id == study_id,
                                            Trial.candidate_id == candidate.id)).first()
    if same is not None:
        raise CandidateExists(f"candidate {candidate.id} is trial {same.number} of this study already "
                              f"({same.state}); propose another, or continue that trial")
    last = session.exec(select(func.max(Trial.number)).where(col(Trial.study_id) == study_id)).one()
    row = Trial(id=uuid.uuid4(), study_id=study_id, number=0 if last is None else last + 1,
                candidate_id=candidate.id, candidate=candidate.canonical, role=role.value, label=label,
                state=TrialState.RUNNING.value, created_at=now, widened=list(widened))
    session.add(row)
    session.flush()
    return trial_record(row)


def finish(session: Session, row: Trial, state: TrialState, reason: str | None, now: datetime) -> TrialRecord:
    """Give a trial its end; its measurements and evaluations must be in the transaction already.

    A FAILED trial may be finished again: the farm's failures are no result. Raises TrialFinished;
    ValueError for a state without what it needs.
    """
    if state is TrialState.RUNNING:
        raise ValueError("a finished trial is COMPLETE, INFEASIBLE or FAILED, got RUNNING")
    if (reason is None) != (state is TrialState.COMPLETE):
        rule = "COMPLETE has no reason" if state is TrialState.COMPLETE else f"{state} needs a reason"
        raise ValueError(f"trial {row.number}: {rule}, got {reason!r}")
    if TrialState(row.state) in (TrialState.COMPLETE, TrialState.INFEASIBLE):
        raise TrialFinished(f"trial {row.number} is {row.state} since {row.finished_at:%Y-%m-%d %H:%M:%S} "
                            f"UTC: a second result ({state}) is refused")
    measured = session.exec(select(MeasurementRow.id).where(
        MeasurementRow.trial_id == row.id, MeasurementRow.purpose == Purpose.SEARCH.value)).first()
    if state is TrialState.COMPLETE and measured is None:
        raise ValueError(f"trial {row.number}: COMPLETE needs a measurement, got none")
    row.state, row.finished_at = state.value, now
    row.reason = None if reason is None else reason.replace("\0", "\ufffd")  # which a server's texts cannot hold
    return trial_record(row)


def put_evaluations(session: Session, row: Trial, evaluations: Iterable[Evaluation]) -> None:
    """Store evaluations; one of the same split, metric and place is replaced."""
    stored = {(old.split, old.metric, old.where): old for old in session.exec(
        select(EvaluationRow).where(EvaluationRow.trial_id == row.id))}
    for new in evaluations:
        old = stored.get((new.split.value, new.metric, new.where.value))
        if old is None:
            session.add(evaluation_row(row.id, new))
        else:
            old.value, old.examples, old.runtime = new.value, new.examples, new.runtime


def put_measurement(session: Session, row: Trial, measurement: Measurement, purpose: Purpose,
                    round_number: int, now: datetime) -> MeasurementRecord:
    """Store a measurement. Raises MeasurementExists; ValueError for another artifact's."""
    if row.artifact_sha256 is not None and measurement.artifact_sha256 != row.artifact_sha256:
        raise ValueError(f"trial {row.number} has artifact {row.artifact_sha256}, the measurement is of "
                         f"{measurement.artifact_sha256}")
    twin = session.exec(select(MeasurementRow.finished_at).where(
        MeasurementRow.trial_id == row.id, MeasurementRow.purpose == purpose.value,
        MeasurementRow.session == round_number, MeasurementRow.board == measurement.board)).first()
    if twin is not None:
        raise MeasurementExists(f"trial {row.number}: {purpose} session {round_number} on {measurement.board}"
                                f" was stored at {twin:%Y-%m-%d %H:%M:%S} UTC; a repeat is another session")
    new = measurement_row(row.id, measurement, purpose, round_number, now)
    session.add(new)
    return measurement_record(new)


def histories(session: Session, condition: ColumnElement[bool]) -> tuple[TrialHistory, ...]:
    """Return what is known of the trials that fulfil `condition` (on Trial), in order of number."""
    measurements: defaultdict[uuid.UUID, list[MeasurementRecord]] = defaultdict(list)
    for measured in session.exec(select(MeasurementRow).join(Trial).where(condition).order_by(
            col(MeasurementRow.finished_at), col(MeasurementRow.session))):
        measurements[measured.trial_id].append(measurement_record(measured))
    evaluations: defaultdict[uuid.UUID, list[Evaluation]] = defaultdict(list)
    for evaluated in session.exec(select(EvaluationRow).join(Trial).where(condition).order_by(
            col(EvaluationRow.metric), col(EvaluationRow.split), col(EvaluationRow.where))):
        evaluations[evaluated.trial_id].append(evaluation_record(evaluated))
    trials = session.exec(select(Trial).where(condition).order_by(col(Trial.number)))
    return tuple(TrialHistory(trial_record(row), tuple(measurements[row.id]), tuple(evaluations[row.id]))
                 for row in trials)
