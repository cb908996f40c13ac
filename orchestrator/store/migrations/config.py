"""Alembic's configuration, without an alembic.ini: it must work from an installed package."""

from __future__ import annotations

from alembic.config import Config
from sqlalchemy import Connection


def migration_config(connection: Connection) -> Config:
    """Point Alembic at the migrations of this package and at an open connection."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "orchestrator.store:migrations")
    return config
