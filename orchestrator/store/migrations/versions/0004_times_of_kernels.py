"""What each kernel of a measured artifact takes.

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    op.add_column("measurement", sa.Column("kernels", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("measurement", "kernels")
