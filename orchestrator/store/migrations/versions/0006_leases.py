"""Who has which board, and who waits.

Revision 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"


def upgrade() -> None:
    op.create_table(
        "board_lease",
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("purpose", sa.String(), nullable=True),
        sa.Column("granted_s", sa.Float(), nullable=True),
        sa.Column("expires_s", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("board", name="pk_board_lease"),
    )
    op.create_table(
        "lease_request",
        sa.Column("ticket", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("boards", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("asked_s", sa.Float(), nullable=False),
        sa.Column("expires_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("ticket", name="pk_lease_request"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("lease_request")
    op.drop_table("board_lease")
