"""Measured layers and the cost models that are trained on them.

Revision 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"


_UNIQUE = {"sqlite": "uq_layer_measurement_point_board_runtime_runtime_version_threads",
           "postgresql": "uq_layer_measurement_point_where"}
"""A server's names end at 63 characters; 0006 gives SQLite the same one."""


def upgrade() -> None:
    op.create_table(
        "layer_measurement",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("point", sa.String(), nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("config", sa.String(), nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.Column("runtime_version", sa.String(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=True),
        sa.Column("agent_version", sa.String(), nullable=True),
        sa.Column("artifact_sha256", sa.String(), nullable=True),
        sa.Column("wall_ns", sa.LargeBinary(), nullable=True),
        sa.Column("fixed_s", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_layer_measurement"),
        sa.UniqueConstraint("point", "board", "runtime", "runtime_version", "threads",
                            name=_UNIQUE[op.get_bind().dialect.name])
    )
    op.create_index("ix_layer_measurement_kind", "layer_measurement", ["kind"])
    op.create_table(
        "cost_model",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("blob_sha256", sa.String(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("features_version", sa.Integer(), nullable=False),
        sa.Column("library", sa.String(), nullable=False),
        sa.Column("chosen", sa.String(), nullable=False),
        sa.Column("board_kinds", sa.JSON(), nullable=False),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cost_model"),
        sa.UniqueConstraint("scope", "version", name="uq_cost_model_scope_version")
    )


def downgrade() -> None:
    op.drop_table("cost_model")
    op.drop_index("ix_layer_measurement_kind", "layer_measurement")
    op.drop_table("layer_measurement")
