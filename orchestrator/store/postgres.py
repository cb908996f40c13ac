"""The store's tables in a PostgreSQL database: how it is reached, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from orchestrator.store.errors import DiskFull, StoreBusy, StoreError, StoreUnreachable, StoreUnsupported, StoreUnusable

WAIT_S = 30
"""For another's transaction."""
SILENT_S = 15
"""A server that does not answer for so long is gone."""
_OPTIONS = (f"-c lock_timeout={WAIT_S}s -c idle_in_transaction_session_timeout=60s -c timezone=utc "
            "-c synchronous_commit=on")
"""One that is stopped within a transaction must not hold up the others for good; with synchronous_commit=off a crash of
the server gives a lease's token twice (measured: 23 of them)."""
_WRITER, _UPGRADE = 0x6F726368, 0x6F726369
"""Keys of advisory locks."""


def server_engine(url: URL, dump_json: Callable[[Any], str]) -> Engine:
    """Connect to a database of a server, at first use. Raises StoreUnsupported without psycopg."""
    if find_spec("psycopg") is None:
        raise StoreUnsupported("a store in PostgreSQL needs psycopg: pip install 'hil-orchestrator[postgres]'")
    return create_engine(
        url.set(drivername="postgresql+psycopg"), json_serializer=dump_json, pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "options": _OPTIONS, "application_name": "orchestrator",
                      "keepalives_idle": SILENT_S, "keepalives_interval": 5, "keepalives_count": 3,
                      "tcp_user_timeout": SILENT_S * 1000})


def write_alone(connection: Connection) -> None:
    """Let nobody else write until this transaction ends, as SQLite does: what was read stays true."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER})


def upgrade_alone(connection: Connection) -> None:
    """Let nobody else change the tables until this transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE})


def meaning(error: DBAPIError, place: str, committing: bool) -> StoreError | None:
    """Return what an error of the server means; None where it is a defect of ours."""
    state = getattr(error.orig, "sqlstate", None)
    said = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    lost = isinstance(error, OperationalError | InterfaceError) and (state is None or state[:2] in ("08", "57"))
    if lost or error.connection_invalidated or state == "25P03":
        return StoreUnreachable(f"{place}: no connection to the database ({said}); see whether the server runs, and "
                                "--store", uncertain=committing)
    if state in ("55P03", "40P01"):
        return StoreBusy(f"{place}: another process kept it locked for longer than {WAIT_S} s; see which processes "
                         "use it, then run the command again")
    if state == "53100":
        return DiskFull(f"{place}: the server has no space left to write to; free some, then continue with --resume")
    if state is not None and state[:2] in ("42", "25", "28", "3D"):
        return StoreUnusable(f"{place}: the database refuses ({said}); its user must own the tables, or be allowed to "
                             "create them")
    return None
