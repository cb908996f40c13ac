"""Run by Alembic for every command, with the connection that migration_config() was given."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from orchestrator.store.database import VERSION_TABLE
from orchestrator.store.models import Base

connection = context.config.attributes.get("connection")
if not isinstance(connection, Connection):
    raise TypeError("migrations run on an open connection: use migration_config(connection), got "
                    f"{type(connection).__name__}; docs/decisions/0003-the-store.md shows how")

context.configure(connection=connection, target_metadata=Base.metadata, version_table=VERSION_TABLE,
                  render_as_batch=True, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
