"""What else happened while it was measured.

Revision 0009, after 0008.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"


def upgrade() -> None:
    with op.batch_alter_table("measurement") as batch:
        batch.add_column(sa.Column("conditions", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("measurement") as batch:
        batch.alter_column("conditions", existing_type=sa.JSON(), existing_nullable=False, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("measurement") as batch:
        batch.drop_column("conditions")
