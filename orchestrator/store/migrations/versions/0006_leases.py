"""Who has which board, who waits, and what happened to it.

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
        sa.Column("reserved_by", sa.String(), nullable=True),
        sa.Column("reserved_for", sa.String(), nullable=True),
        sa.Column("reserved_until_s", sa.Float(), nullable=True),
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
    op.create_table(
        "board_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("happened_s", sa.Float(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_board_event"),
    )
    op.create_index("ix_board_event_board", "board_event", ["board"])
    op.create_index("ix_board_event_happened_s", "board_event", ["happened_s"])


def downgrade() -> None:
    op.drop_table("board_event")
    op.drop_table("lease_request")
    op.drop_table("board_lease")
