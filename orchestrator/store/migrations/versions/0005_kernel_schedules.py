"""Which tile of a kernel is the fastest on a kind of board.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    op.create_table(
        "kernel_schedule",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kernel", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("runtime_version", sa.String(), nullable=False),
        sa.Column("templates", sa.String(), nullable=False),
        sa.Column("tile", sa.JSON(), nullable=False),
        sa.Column("default_ns", sa.Integer(), nullable=False),
        sa.Column("best_ns", sa.Integer(), nullable=False),
        sa.Column("tiles", sa.Integer(), nullable=False),
        sa.Column("code_bytes", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_kernel_schedule"),
        sa.UniqueConstraint("kernel", "kind", "runtime_version", "templates",
                            name="uq_kernel_schedule_kernel_kind_runtime_version_templates")
    )


def downgrade() -> None:
    op.drop_table("kernel_schedule")
