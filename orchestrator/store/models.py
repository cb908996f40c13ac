"""The tables. Only this package sees them; `rows.py` turns them into records and back.

Values from the database are not validated here (table models never are): `rows.py` does that.
Enumerations are stored as text, so that a new value needs no migration of a column's type.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar

from pydantic import JsonValue
from sqlalchemy import JSON, BigInteger, Integer, MetaData, Text, UniqueConstraint
from sqlmodel import Field, SQLModel, UTCDateTime

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Without names, SQLite's constraints could never be changed by a migration."""


class Base(SQLModel):
    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMES)


class Study(Base, table=True):
    id: uuid.UUID = Field(primary_key=True)
    name: str = Field(unique=True)
    created_at: datetime = Field(sa_type=UTCDateTime)
    status: str
    seed: int = Field(sa_type=BigInteger)
    config: dict[str, JsonValue] = Field(sa_type=JSON)
    config_digest: str
    model_digest: str
    space: dict[str, JsonValue] = Field(sa_type=JSON)
    space_digest: str
    tool_versions: dict[str, JsonValue] = Field(sa_type=JSON)
    document: dict[str, JsonValue] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    holder_host: str | None = None
    holder_boot: str | None = None
    holder_pid: int | None = None
    holder_started: int | None = Field(default=None, sa_type=BigInteger)
    holder_token: uuid.UUID | None = None
    heartbeat_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class Trial(Base, table=True):
    __table_args__ = (UniqueConstraint("study_id", "number"), UniqueConstraint("study_id", "candidate_id"))

    id: uuid.UUID = Field(primary_key=True)
    study_id: uuid.UUID = Field(foreign_key="study.id", ondelete="CASCADE")
    number: int
    candidate_id: str
    candidate: str = Field(sa_type=Text)
    role: str
    label: str | None = None
    state: str
    reason: str | None = Field(default=None, sa_type=Text)
    artifact_sha256: str | None = Field(default=None, index=True)
    size_bytes: int | None = Field(default=None, sa_type=BigInteger)
    created_at: datetime = Field(sa_type=UTCDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    widened: list[str] = Field(sa_type=JSON)


class EvaluationRow(Base, table=True):
    __tablename__ = "evaluation"
    __table_args__ = (UniqueConstraint("trial_id", "split", "metric", "where"),)

    id: uuid.UUID = Field(primary_key=True)
    trial_id: uuid.UUID = Field(foreign_key="trial.id", ondelete="CASCADE")
    split: str
    metric: str
    value: float
    examples: int = Field(sa_type=BigInteger)
    where: str
    runtime: str


class MeasurementRow(Base, table=True):
    """One column for each field of profilers.measurement.Measurement (a test compares them)."""

    __tablename__ = "measurement"
    __table_args__ = (UniqueConstraint("trial_id", "purpose", "session", "board"),)

    id: uuid.UUID = Field(primary_key=True)
    trial_id: uuid.UUID = Field(foreign_key="trial.id", ondelete="CASCADE")
    purpose: str
    session: int
    finished_at: datetime = Field(sa_type=UTCDateTime)
    artifact_sha256: str
    board: str = Field(index=True)
    kind: str
    boot_id: str
    runtime: str
    runtime_version: str
    agent_version: str
    threads: int
    wall_ns: bytes
    """See samples.py, as cpu_ns."""
    cpu_ns: bytes
    warmup_runs: int
    load_s: float
    before: dict[str, JsonValue] = Field(sa_type=JSON)
    after: dict[str, JsonValue] = Field(sa_type=JSON)
    peak_rss_bytes: int | None = Field(default=None, sa_type=BigInteger)
    simulated: bool
    session_s: float
    kernels: list[JsonValue] = Field(default_factory=list, sa_type=JSON)
    """[kernel, layer, nanoseconds] of every call."""
    conditions: dict[str, JsonValue] = Field(default_factory=dict, sa_type=JSON)
    scale: float = 1.0


class BoardDeath(Base, table=True):
    """A board that died while it ran an artifact; kept when studies go, so that it is never sent again."""

    __tablename__ = "board_death"

    id: uuid.UUID = Field(primary_key=True)
    artifact_sha256: str = Field(index=True)
    board: str
    kind: str
    what: str
    happened_at: datetime = Field(sa_type=UTCDateTime)


class LayerMeasurementRow(Base, table=True):
    """One layer on one board: what cost models learn from."""

    __tablename__ = "layer_measurement"
    __table_args__ = (UniqueConstraint("point", "board", "runtime", "runtime_version", "threads",
                                       name="uq_layer_measurement_point_where"),)

    id: uuid.UUID = Field(primary_key=True)
    point: str
    """Digest of the layer's shape and format."""
    shape: dict[str, JsonValue] = Field(sa_type=JSON)
    config: str
    """Label of the layer's configuration."""
    copies: int
    board: str
    kind: str = Field(index=True)
    runtime: str
    runtime_version: str
    threads: int
    simulated: bool
    boot_id: str | None = None
    agent_version: str | None = None
    artifact_sha256: str | None = None
    wall_ns: bytes | None = None
    """Of all copies together, see samples.py."""
    fixed_s: float | None = None
    """What an inference costs in any case, as measured last before."""
    reason: str | None = Field(default=None, sa_type=Text)
    """Why it is infeasible; then nothing was measured."""
    measured_at: datetime = Field(sa_type=UTCDateTime)


class KernelScheduleRow(Base, table=True):
    """Which tile of a kernel is the fastest on a kind of board: `orchestrator tune`."""

    __tablename__ = "kernel_schedule"
    __table_args__ = (UniqueConstraint("kernel", "kind", "runtime_version", "templates"),)

    id: uuid.UUID = Field(primary_key=True)
    kernel: str
    """Digest of the kernel's shape, scheme and instructions."""
    title: str
    kind: str
    """Of the board."""
    board: str
    """The one that measured it."""
    runtime_version: str
    """TVM's."""
    templates: str
    """Digest of what kernels are written by."""
    tile: list[int] = Field(sa_type=JSON)
    """Pixels, vectors, whether the weights stay."""
    default_ns: int = Field(sa_type=BigInteger)
    best_ns: int = Field(sa_type=BigInteger)
    tiles: int
    """How many were measured."""
    code_bytes: int = Field(sa_type=BigInteger)
    """Of the kernel with this tile."""
    reason: str | None = Field(default=None, sa_type=Text)
    """Why it does not run there; then nothing was measured."""
    measured_at: datetime = Field(sa_type=UTCDateTime)


class CostModelRow(Base, table=True):
    """A trained cost model; its file is a blob."""

    __tablename__ = "cost_model"
    __table_args__ = (UniqueConstraint("scope", "version"),)

    id: uuid.UUID = Field(primary_key=True)
    scope: str
    """Kind of board whose rows it was trained with, or `*`: all that were measured."""
    version: int
    created_at: datetime = Field(sa_type=UTCDateTime)
    blob_sha256: str
    rows: int
    features_version: int
    library: str
    chosen: str
    """The prior with the least held-out error."""
    board_kinds: list[str] = Field(sa_type=JSON)
    errors: dict[str, float] = Field(sa_type=JSON)


class Step(Base, table=True):
    key: str = Field(primary_key=True)
    name: str
    outputs: dict[str, JsonValue] = Field(sa_type=JSON)
    tool_versions: dict[str, JsonValue] = Field(sa_type=JSON)
    created_at: datetime = Field(sa_type=UTCDateTime)


class StudyStep(Base, table=True):
    """Which study has used which step: what no study uses goes with the last one that did."""

    __tablename__ = "study_step"

    study_id: uuid.UUID = Field(primary_key=True, foreign_key="study.id", ondelete="CASCADE")
    step_key: str = Field(primary_key=True, foreign_key="step.key", ondelete="CASCADE", index=True)


class StoreIdentity(Base, table=True):
    """One row: which database this is."""

    __tablename__ = "store_identity"

    id: uuid.UUID = Field(primary_key=True)


class BoardLease(Base, table=True):
    """Who has a board; the row stays when nobody has it, for its token."""

    __tablename__ = "board_lease"

    board: str = Field(primary_key=True)
    token: int = Field(sa_type=BigInteger)
    ticket: int | None = Field(default=None, sa_type=BigInteger)
    """Of the request that led to the lease."""
    owner: str | None = None
    purpose: str | None = None
    granted_s: float | None = None
    """Seconds since 1970 by the database's clock, as the others."""
    expires_s: float | None = None
    reserved_by: str | None = None
    """Who alone may lease it until then."""
    reserved_for: str | None = None
    reserved_until_s: float | None = None
    reserved_ticket: int | None = Field(default=None, sa_type=BigInteger)
    quarantined_s: float | None = None
    quarantined_for: str | None = Field(default=None, sa_type=Text)
    """Why nobody may lease it."""
    failures: int = 0
    """Quarantines within a day of the last one."""


class BoardEventRow(Base, table=True):
    """Something that happened to a board."""

    __tablename__ = "board_event"

    id: int | None = Field(default=None, sa_type=BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    board: str = Field(index=True)
    happened_s: float = Field(index=True)
    """Seconds since 1970 by the database's clock."""
    what: str
    who: str
    detail: str = Field(sa_type=Text)


class ReferenceReading(Base, table=True):
    """How long a board took for an artifact that it runs again and again."""

    __tablename__ = "reference_reading"

    id: int | None = Field(default=None, sa_type=BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    board: str = Field(index=True)
    artifact_sha256: str
    runtime: str
    """Name and version."""
    threads: int
    happened_s: float
    """Seconds since 1970 by the database's clock."""
    latency_s: float
    """Median of a session."""


class LeaseRequest(Base, table=True):
    """Somebody waits for a board."""

    __tablename__ = "lease_request"
    __table_args__: ClassVar[dict[str, bool]] = {"sqlite_autoincrement": True}

    ticket: int | None = Field(default=None, sa_type=BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    key: uuid.UUID = Field(unique=True)
    boards: list[str] = Field(sa_type=JSON)
    owner: str
    purpose: str
    priority: int
    asked_s: float
    expires_s: float
