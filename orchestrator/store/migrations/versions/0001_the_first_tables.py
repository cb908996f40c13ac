"""The first tables.

Revision 0001, the first.

Written in SQLAlchemy's own types, so that a later SQLModel cannot change what it creates.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None


def upgrade() -> None:
    op.create_table(
        "step",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("tool_versions", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_step")
    )
    op.create_table(
        "study",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("config_digest", sa.String(), nullable=False),
        sa.Column("model_digest", sa.String(), nullable=False),
        sa.Column("space", sa.JSON(), nullable=False),
        sa.Column("space_digest", sa.String(), nullable=False),
        sa.Column("tool_versions", sa.JSON(), nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("holder_host", sa.String(), nullable=True),
        sa.Column("holder_boot", sa.String(), nullable=True),
        sa.Column("holder_pid", sa.Integer(), nullable=True),
        sa.Column("holder_started", sa.BigInteger(), nullable=True),
        sa.Column("holder_token", sa.Uuid(), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("name", name="uq_study_name")
    )
    op.create_table(
        "study_step",
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("step_key", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["step_key"], ["step.key"], name="fk_study_step_step_key_step",
                                ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_study_step_study_id_study",
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "step_key", name="pk_study_step")
    )
    op.create_index("ix_study_step_step_key", "study_step", ["step_key"])
    op.create_table(
        "trial",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("candidate_id", sa.String(), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("artifact_sha256", sa.String(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("widened", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_trial_study_id_study",
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_trial"),
        sa.UniqueConstraint("study_id", "candidate_id", name="uq_trial_study_id_candidate_id"),
        sa.UniqueConstraint("study_id", "number", name="uq_trial_study_id_number")
    )
    op.create_index("ix_trial_artifact_sha256", "trial", ["artifact_sha256"])
    op.create_table(
        "evaluation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("trial_id", sa.Uuid(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("examples", sa.BigInteger(), nullable=False),
        sa.Column("where", sa.String(), nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_evaluation_trial_id_trial",
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluation"),
        sa.UniqueConstraint("trial_id", "split", "metric", "where",
                            name="uq_evaluation_trial_id_split_metric_where")
    )
    op.create_table(
        "measurement",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("trial_id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("session", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("artifact_sha256", sa.String(), nullable=False),
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.Column("runtime_version", sa.String(), nullable=False),
        sa.Column("agent_version", sa.String(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("wall_ns", sa.LargeBinary(), nullable=False),
        sa.Column("cpu_ns", sa.LargeBinary(), nullable=False),
        sa.Column("warmup_runs", sa.Integer(), nullable=False),
        sa.Column("load_s", sa.Float(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("peak_rss_bytes", sa.BigInteger(), nullable=True),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("session_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_measurement_trial_id_trial",
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_measurement"),
        sa.UniqueConstraint("trial_id", "purpose", "session", "board",
                            name="uq_measurement_trial_id_purpose_session_board")
    )
    op.create_index("ix_measurement_board", "measurement", ["board"])


def downgrade() -> None:
    op.drop_index("ix_measurement_board", "measurement")
    op.drop_table("measurement")
    op.drop_table("evaluation")
    op.drop_index("ix_trial_artifact_sha256", "trial")
    op.drop_table("trial")
    op.drop_index("ix_study_step_step_key", "study_step")
    op.drop_table("study_step")
    op.drop_table("study")
    op.drop_table("step")
