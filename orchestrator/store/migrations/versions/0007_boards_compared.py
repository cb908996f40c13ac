"""What a board's times are multiplied by before others stand beside them.

Revision 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    with op.batch_alter_table("measurement") as batch:
        batch.add_column(sa.Column("scale", sa.Float(), nullable=False, server_default="1"))
    with op.batch_alter_table("measurement") as batch:
        batch.alter_column("scale", existing_type=sa.Float(), existing_nullable=False, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("measurement") as batch:
        batch.drop_column("scale")
