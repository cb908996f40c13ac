"""Measured tiles of kernels, within a transaction."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlmodel import Session, col, select

from orchestrator.store.models import KernelScheduleRow
from orchestrator.store.records import KernelRecord


def put(session: Session, record: KernelRecord, now: datetime) -> None:
    """Store a measured kernel; the same one on the same kind of board is replaced."""
    old = session.exec(select(KernelScheduleRow).where(
        KernelScheduleRow.kernel == record.kernel, KernelScheduleRow.kind == record.kind,
        KernelScheduleRow.runtime_version == record.runtime_version,
        KernelScheduleRow.templates == record.templates)).first()
    if old is not None:
        session.delete(old)
        session.flush()
    session.add(KernelScheduleRow(
        id=uuid.uuid4(), kernel=record.kernel, title=record.title, kind=record.kind, board=record.board,
        runtime_version=record.runtime_version, templates=record.templates, tile=list(record.tile),
        default_ns=record.default_ns, best_ns=record.best_ns, tiles=record.tiles, code_bytes=record.code_bytes,
        reason=record.reason, measured_at=now))


def find(session: Session, kind: str, runtime_version: str, templates: str) -> tuple[KernelRecord, ...]:
    """Return the measured kernels of a kind of board, oldest first."""
    query = select(KernelScheduleRow).where(
        KernelScheduleRow.kind == kind, KernelScheduleRow.runtime_version == runtime_version,
        KernelScheduleRow.templates == templates).order_by(
            col(KernelScheduleRow.measured_at), col(KernelScheduleRow.kernel))
    return tuple(KernelRecord(
        kernel=row.kernel, title=row.title, kind=row.kind, board=row.board, runtime_version=row.runtime_version,
        templates=row.templates, tile=(row.tile[0], row.tile[1], row.tile[2]), default_ns=row.default_ns,
        best_ns=row.best_ns, tiles=row.tiles, code_bytes=row.code_bytes, reason=row.reason)
        for row in session.exec(query))
