"""Who has which board, who waits, and what happened to it.

Revision 0006, after 0005.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"


_LONG, _SHORT = "uq_layer_measurement_point_board_runtime_runtime_version_threads", "uq_layer_measurement_point_where"


def _rename(old: str, new: str) -> None:
    """A server has had the short name from the first."""
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("layer_measurement") as batch:
            batch.drop_constraint(old, type_="unique")
            batch.create_unique_constraint(new, ["point", "board", "runtime", "runtime_version", "threads"])


def upgrade() -> None:
    _rename(_LONG, _SHORT)
    identity = op.create_table(
        "store_identity",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_store_identity"),
    )
    op.bulk_insert(identity, [{"id": uuid.uuid4()}])
    with op.batch_alter_table("kernel_schedule") as batch:  # a server's integers end at 2.1 s
        for name in ("default_ns", "best_ns", "code_bytes"):
            batch.alter_column(name, existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False)
    op.create_table(
        "board_lease",
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("ticket", sa.BigInteger(), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("purpose", sa.String(), nullable=True),
        sa.Column("granted_s", sa.Float(), nullable=True),
        sa.Column("expires_s", sa.Float(), nullable=True),
        sa.Column("reserved_by", sa.String(), nullable=True),
        sa.Column("reserved_for", sa.String(), nullable=True),
        sa.Column("reserved_until_s", sa.Float(), nullable=True),
        sa.Column("reserved_ticket", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("board", name="pk_board_lease"),
    )
    op.create_table(
        "lease_request",
        sa.Column("ticket", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("boards", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("asked_s", sa.Float(), nullable=False),
        sa.Column("expires_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("ticket", name="pk_lease_request"),
        sa.UniqueConstraint("key", name="uq_lease_request_key"),
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
    _rename(_SHORT, _LONG)
    with op.batch_alter_table("kernel_schedule") as batch:
        for name in ("default_ns", "best_ns", "code_bytes"):
            batch.alter_column(name, existing_type=sa.BigInteger(), type_=sa.Integer(), existing_nullable=False)
    op.drop_table("store_identity")
    op.drop_table("board_event")
    op.drop_table("lease_request")
    op.drop_table("board_lease")
