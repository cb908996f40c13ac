"""Measured layers and trained cost models, within a transaction."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import func
from sqlmodel import Session, col, select

from orchestrator.store.models import CostModelRow, LayerMeasurementRow
from orchestrator.store.records import CostModelRecord, LayerRecord, NewCostModel
from orchestrator.store.samples import pack, unpack
from profilers.cost_model_rows import Conditions
from recipes.blobs import BlobMissing, BlobStore
from recipes.compilers.shapes import LayerShape
from search.space import LayerConfig


def put(session: Session, record: LayerRecord, now: datetime) -> None:
    """Store a measured layer; the same point on the same board and runtime is replaced."""
    where = record.where
    old = session.exec(select(LayerMeasurementRow).where(
        LayerMeasurementRow.point == record.point, LayerMeasurementRow.board == record.board,
        LayerMeasurementRow.runtime == where.runtime, LayerMeasurementRow.runtime_version == where.runtime_version,
        LayerMeasurementRow.threads == where.threads)).first()
    if old is not None:
        session.delete(old)
        session.flush()
    session.add(LayerMeasurementRow(
        id=uuid.uuid4(), point=record.point, shape=record.shape.to_json(), config=record.config.label,
        copies=record.copies, board=record.board, kind=where.board_kind, runtime=where.runtime,
        runtime_version=where.runtime_version, threads=where.threads, simulated=record.simulated,
        boot_id=record.boot_id, agent_version=record.agent_version, artifact_sha256=record.artifact_sha256,
        wall_ns=None if record.wall_ns is None else pack(record.wall_ns), fixed_s=record.fixed_s,
        reason=record.reason, measured_at=now))


def find(session: Session, board: str | None, kind: str | None) -> tuple[LayerRecord, ...]:
    """Return measured layers, oldest first. Raises ValueError for damaged samples."""
    query = select(LayerMeasurementRow).order_by(col(LayerMeasurementRow.measured_at), col(LayerMeasurementRow.point))
    if board is not None:
        query = query.where(LayerMeasurementRow.board == board)
    if kind is not None:
        query = query.where(LayerMeasurementRow.kind == kind)
    return tuple(LayerRecord(
        shape=LayerShape.from_json(row.shape), config=LayerConfig.from_label(row.config), copies=row.copies,
        board=row.board, where=Conditions(row.kind, row.runtime, row.runtime_version, row.threads),
        simulated=row.simulated, boot_id=row.boot_id, agent_version=row.agent_version,
        artifact_sha256=row.artifact_sha256, wall_ns=None if row.wall_ns is None else unpack(row.wall_ns),
        fixed_s=row.fixed_s, reason=row.reason) for row in session.exec(query))


def add_model(session: Session, new: NewCostModel, blobs: BlobStore, now: datetime) -> CostModelRecord:
    """Insert a model with the next version of its scope. Raises BlobMissing."""
    if not blobs.has(new.blob_sha256):
        raise BlobMissing(f"cost model of {new.scope}: {new.blob_sha256} is not in {blobs.root}; put it there first")
    last = session.exec(select(func.max(CostModelRow.version)).where(CostModelRow.scope == new.scope)).one()
    row = CostModelRow(
        id=uuid.uuid4(), scope=new.scope, version=1 if last is None else last + 1, created_at=now,
        blob_sha256=new.blob_sha256, rows=new.rows, features_version=new.features_version, library=new.library,
        chosen=new.chosen, board_kinds=list(new.board_kinds), errors=dict(new.errors))
    session.add(row)
    return _record(row)


def models(session: Session) -> tuple[CostModelRecord, ...]:
    """Return all models, oldest first."""
    order = select(CostModelRow).order_by(col(CostModelRow.created_at), col(CostModelRow.version))
    return tuple(_record(row) for row in session.exec(order))


def _record(row: CostModelRow) -> CostModelRecord:
    return CostModelRecord(NewCostModel(
        scope=row.scope, blob_sha256=row.blob_sha256, rows=row.rows, features_version=row.features_version,
        library=row.library, chosen=row.chosen, board_kinds=tuple(row.board_kinds), errors=dict(row.errors)),
        row.version, row.created_at)
