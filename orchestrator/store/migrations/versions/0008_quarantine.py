"""Boards that nobody may lease; how fast boards run their references.

Revision 0008, after 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    with op.batch_alter_table("board_lease") as batch:
        batch.add_column(sa.Column("quarantined_s", sa.Float(), nullable=True))
        batch.add_column(sa.Column("quarantined_for", sa.Text(), nullable=True))
        batch.add_column(sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("board_lease") as batch:
        batch.alter_column("failures", existing_type=sa.Integer(), existing_nullable=False, server_default=None)
    op.create_table(
        "reference_reading",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("artifact_sha256", sa.String(), nullable=False),
        sa.Column("runtime", sa.String(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("happened_s", sa.Float(), nullable=False),
        sa.Column("latency_s", sa.Float(), nullable=False),
    )
    op.create_index("ix_reference_reading_board", "reference_reading", ["board"])


def downgrade() -> None:
    op.drop_table("reference_reading")
    with op.batch_alter_table("board_lease") as batch:
        batch.drop_column("failures")
        batch.drop_column("quarantined_for")
        batch.drop_column("quarantined_s")
