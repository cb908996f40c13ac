"""Boards that nobody may lease.

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


def downgrade() -> None:
    with op.batch_alter_table("board_lease") as batch:
        batch.drop_column("failures")
        batch.drop_column("quarantined_for")
        batch.drop_column("quarantined_s")
