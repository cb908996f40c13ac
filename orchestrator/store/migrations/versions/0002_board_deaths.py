"""Under which artifacts boards died.

Revision 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    op.create_table(
        "board_death",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("artifact_sha256", sa.String(), nullable=False),
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_board_death")
    )
    op.create_index("ix_board_death_artifact_sha256", "board_death", ["artifact_sha256"])


def downgrade() -> None:
    op.drop_index("ix_board_death_artifact_sha256", "board_death")
    op.drop_table("board_death")
