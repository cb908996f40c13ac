"""The database: how it is opened, migrated, locked, and what its errors mean."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from sqlalchemy import URL, Connection, Engine, column, create_engine, event, inspect, select, table
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from orchestrator.store import postgres
from orchestrator.store.errors import DiskFull, StoreBusy, StoreError, StoreTooNew, StoreUnusable
from orchestrator.store.places import DATABASE_NAME, StorePlace

HEAD = "0009"
"""The newest revision in migrations/versions (a test compares them)."""
VERSION_TABLE = "orchestrator_version"
BUSY_TIMEOUT_S = 30.0
_WRITES = "orchestrator_writes"


def open_engine(place: StorePlace, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """Connect to a store's database, whose tables are up to date."""
    if place.url is not None:
        return postgres.server_engine(place.url, _dump_json)
    return make_engine(place.folder / DATABASE_NAME, busy_timeout_s)


def make_engine(file: Path, busy_timeout_s: float = BUSY_TIMEOUT_S, foreign_keys: bool = True) -> Engine:
    """Connect to a SQLite file, creating it when absent.

    WAL lets others read while one writes. synchronous=FULL syncs the log at every commit: about
    4 ms on a laptop's disk, three times a trial, so that a power cut loses no trial either
    (NORMAL would survive the death of the process only).
    """
    engine = create_engine(URL.create("sqlite", database=str(file)), json_serializer=_dump_json,
                           connect_args={"timeout": busy_timeout_s})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # sqlite3 would begin late, and commit before DDL
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"foreign_keys={int(foreign_keys)}"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock first: a read lock that turns into a write lock cannot wait.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """Open a transaction that sees one state of the database. Raises StoreError."""
    with _meaning(engine), Session(engine) as session:
        if _is_server(engine):
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """Open a transaction that commits at the end, or not at all; there is one at a time. Raises StoreError."""
    with _meaning(engine) as stage, Session(engine) as session, session.begin():
        connection = session.connection(execution_options={_WRITES: True})
        if _is_server(engine):
            postgres.write_alone(connection)
        yield session
        session.flush()
        stage.committing = True


def reach(place: StorePlace) -> None:
    """Connect to the database of a store and change nothing. Raises StoreError."""
    engine = open_engine(place)
    try:
        with _meaning(engine), engine.connect() as connection:
            _revision(connection, str(place))
    finally:
        engine.dispose()


def migrate_server(place: StorePlace) -> None:
    """Create the tables in a PostgreSQL database or bring them up to date. Raises as `migrate`, StoreUnreachable."""
    engine = open_engine(place)
    try:
        with _meaning(engine), engine.connect() as connection:
            found = _revision(connection, str(place))
        if found != HEAD:
            with _meaning(engine), engine.connect() as connection, connection.begin():
                postgres.upgrade_alone(connection)
                _upgrade(connection, str(place), _revision(connection, str(place)))
    finally:
        engine.dispose()


def migrate(file: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """Create the tables or bring them up to date.

    Raises:
        StoreTooNew: the tables are of a revision that this version does not know.
        StoreUnusable: the file is not a store.
    """
    # Rebuilding a table drops the old one; with foreign keys on, that deletes what refers to it.
    engine = make_engine(file, busy_timeout_s, foreign_keys=False)
    try:
        with _first_opener(file.with_name("open.lock")), _meaning(engine):
            with engine.connect() as connection:
                found = _revision(connection, f"store {file.parent}")
            if found != HEAD:
                with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
                    _upgrade(connection, f"store {file.parent}", found)
    except PermissionError as error:
        raise StoreUnusable(f"store {file.parent}: no permission to write there; choose another with "
                            "--store") from error
    finally:
        engine.dispose()


def _upgrade(connection: Connection, place: str, found: str | None) -> None:
    # Imported here: 0.4 s, needed once in the life of a store.
    from alembic import command
    from alembic.script import ScriptDirectory

    from orchestrator.store.migrations.config import migration_config

    config = migration_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreTooNew(f"{place}: its tables have revision {found}, this version of orchestrator knows up to {HEAD};"
                          " upgrade hil-orchestrator, or choose another store with --store")
    command.upgrade(config, "head")


def _revision(connection: Connection, place: str) -> str | None:
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE in tables:
        found = connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))
        return None if found is None else str(found)
    if tables:
        raise StoreUnusable(f"{place}: a database of another program: expected the table {VERSION_TABLE}, "
                            f"found {', '.join(sorted(tables)[:5])}; choose another with --store")
    return None


@contextmanager
def _first_opener(lock: Path) -> Iterator[None]:
    # Switching a new file to WAL fails, without waiting, when another process does the same.
    try:
        file = lock.open("a")
    except OSError as error:
        raise StoreUnusable(f"store {lock.parent}: cannot be written ({error.strerror}), which even looking at it "
                            "needs; check the owner and the file system, or choose another with --store") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(slots=True)
class _Stage:
    """How far a transaction is."""

    committing: bool = False


@contextmanager
def _meaning(engine: Engine) -> Iterator[_Stage]:
    stage = _Stage()
    try:
        yield stage
    except DBAPIError as error:
        place = f"store {engine.url.database}"
        if _is_server(engine):
            place = f"store {engine.url.set(drivername='postgresql').render_as_string(hide_password=True)}"
        meant = postgres.meaning(error, place, stage.committing) if _is_server(engine) else _sqlite(error, place)
        if meant is None:
            raise
        raise meant from error


def _is_server(engine: Engine) -> bool:
    return engine.dialect.name == "postgresql"


def _sqlite(error: DBAPIError, place: str) -> StoreError | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(f"{place}: another process kept it locked for longer than we wait; see which processes "
                             "use it, then run the command again")
        case sqlite3.SQLITE_FULL:
            return DiskFull(f"{place}: no space left to write to; free some (orchestrator studies remove), then "
                            "continue with --resume")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreUnusable(f"{place}: cannot be opened for writing ({error.orig}); check its owner and its "
                                 "folder, or choose another with --store")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_IOERR:
            return StoreUnusable(f"{place}: cannot be read ({error.orig}); restore the folder from a copy, or choose "
                                 "another with --store")
    return None


def _dump_json(value: JsonValue) -> str:
    return json.dumps(value, allow_nan=False)
