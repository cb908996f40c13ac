"""Leases of boards in the database: one transaction each, by the database's own clock."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Engine, func, literal_column
from sqlmodel import Session, col, delete, select

from device_farm.errors import LeaseLost
from device_farm.health import DAY_S, FAILURES, Quarantine
from device_farm.leases import (
    REQUEST_TTL_S,
    TTL_S,
    BoardEvent,
    Lease,
    Request,
    Reservation,
    Wanted,
    assigned,
    in_order,
)
from orchestrator.store.database import reading, writing
from orchestrator.store.lasting import lasting
from orchestrator.store.models import BoardEventRow, BoardLease, LeaseRequest, ReferenceReading
from profilers.measurement import Measurement

_CLOCKS = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())::double precision",
}
"""Seconds since 1970. SQLite before 3.42 has no unixepoch('subsec')."""
QUARANTINED, RETURNED, BY_ITSELF = "quarantined", "returned", "by itself"
LAST_READINGS = 30
REMEMBERED_S = 180 * 86400.0
"""Older events are forgotten."""


@partial(lasting, repeatable=True)
class LeaseBook:
    """A `LeaseStore` in a database. Threads and processes may share it.

    Every method may be called again when its answer was lost.
    """

    def __init__(self, engine: Engine, ttl_s: float = TTL_S, request_ttl_s: float = REQUEST_TTL_S) -> None:
        self._engine, self._ttl_s, self._request_ttl_s = engine, ttl_s, request_ttl_s

    def ask(self, wanted: Wanted) -> int:
        """Begin to wait; return the ticket."""
        with writing(self._engine) as session:
            now = _now(session)
            before = session.exec(select(LeaseRequest.ticket).where(LeaseRequest.key == wanted.key)).first()
            if before is not None:
                return before
            row = LeaseRequest(key=wanted.key, boards=list(wanted.boards), owner=wanted.owner, purpose=wanted.purpose,
                               priority=wanted.priority, asked_s=now, expires_s=now + self._request_ttl_s)
            session.add(row)
            session.flush()
            return row.ticket or 0

    def take(self, ticket: int) -> Lease | None:
        """Return a lease when it is this waiter's turn; else it waits on. Raises LeaseLost for a forgotten ticket."""
        with writing(self._engine) as session:
            before = session.exec(select(BoardLease).where(BoardLease.ticket == ticket)).first()
            if before is not None and before.owner is not None:  # the answer was lost
                return _lease(before)
            found = self._turn(session, ticket)
            if found is None:
                return None
            lease, wanted, now = found
            lease.ticket = ticket
            if lease.owner is not None:
                _note(session, lease.board, now, "lapsed", lease.owner, lease.purpose or "")
            lease.token = max(lease.token + 1, int(now * 1000))  # rises also when the store was made anew
            lease.owner, lease.purpose = wanted.owner, wanted.purpose
            lease.granted_s, lease.expires_s = now, now + self._ttl_s
            _note(session, lease.board, now, "leased", wanted.owner, wanted.purpose)
            return _lease(lease)

    def reserve(self, ticket: int, seconds: float) -> Reservation | None:
        """As `take`, but keep the board for its owner's leases, for so long."""
        with writing(self._engine) as session:
            before = session.exec(select(BoardLease).where(BoardLease.reserved_ticket == ticket)).first()
            if before is not None and before.reserved_by is not None:  # the answer was lost
                return _reservation(before)
            found = self._turn(session, ticket)
            if found is None:
                return None
            row, wanted, now = found
            row.reserved_ticket = ticket
            row.reserved_by, row.reserved_for, row.reserved_until_s = wanted.owner, wanted.purpose, now + seconds
            _note(session, row.board, now, "reserved", wanted.owner, wanted.purpose)
            return _reservation(row)

    def _turn(self, session: Session, ticket: int) -> tuple[BoardLease, Wanted, float] | None:
        """Return the board whose turn it is for a waiter, who then waits no more. Raises LeaseLost."""
        now = _now(session)
        row = session.get(LeaseRequest, ticket)
        if row is None:
            raise LeaseLost(f"the request {ticket} is forgotten: it was not repeated for {self._request_ttl_s:g} s; "
                            "ask again")
        if row.expires_s - now < self._request_ttl_s / 2:  # not every time: a commit with nothing in it costs nothing
            row.expires_s = now + self._request_ttl_s
        waiting = in_order(_requests(session, now))
        boards = {board.board: board for board in session.exec(select(BoardLease))}
        free = {request.ticket: [name for name in request.wanted.boards
                                 if name not in boards or _is_free(boards[name], request.wanted.owner, now)]
                for request in waiting}
        name = assigned(waiting, free).get(ticket)
        if name is None:
            return None
        wanted = Wanted(tuple(row.boards), row.owner, row.purpose, row.priority, row.key)
        session.delete(row)
        board = boards.get(name) or BoardLease(board=name, token=0)
        session.add(board)
        return board, wanted, now

    def withdraw(self, ticket: int) -> None:
        """Wait no more."""
        with writing(self._engine) as session:
            row = session.get(LeaseRequest, ticket)
            if row is not None:
                session.delete(row)

    def renew(self, lease: Lease) -> Lease:
        """Keep a lease for another time. Raises LeaseLost when another has the board, or it was released."""
        with writing(self._engine) as session:
            row = _own(session, lease)
            if row is None:
                raise LeaseLost(f"{lease.board} is no longer leased to {lease.owner}: {_instead(session, lease)}")
            row.expires_s = _now(session) + self._ttl_s
            return _lease(row)

    def release(self, lease: Lease) -> None:
        """Give a board back; nothing happens when it is another's by now."""
        with writing(self._engine) as session:
            row = _own(session, lease)
            if row is not None:
                _note(session, row.board, _now(session), "released", lease.owner, lease.purpose)
                row.owner = row.purpose = row.granted_s = row.expires_s = None

    def unreserve(self, board: str) -> Reservation | None:
        """End a board's reservation and return it; None where there is none."""
        with writing(self._engine) as session:
            row, now = session.get(BoardLease, board), _now(session)
            if row is None or not _is_reserved(row, now):
                return None
            ended = _reservation(row)
            _note(session, board, now, "freed", ended.owner, ended.purpose)
            row.reserved_by = row.reserved_for = row.reserved_until_s = None
            return ended

    def quarantine(self, board: str, reason: str) -> Quarantine:
        """Let nobody lease a board from now on; who has it keeps it. A third time in a day it waits for a person."""
        with writing(self._engine) as session:
            now = _now(session)
            row = session.get(BoardLease, board) or BoardLease(board=board, token=0)
            session.add(row)
            lately = session.exec(select(func.count()).select_from(BoardEventRow).where(
                BoardEventRow.board == board, BoardEventRow.what == QUARANTINED,
                col(BoardEventRow.happened_s) > max(now - DAY_S, _mended(session, board)))).one()
            if row.quarantined_for is None:  # else it is one and the same failure
                row.quarantined_s, row.failures = now, lately + 1
                _note(session, board, now, QUARANTINED, "", reason)
            row.quarantined_for = reason
            return _quarantine(row)

    def restore(self, board: str, who: str) -> bool:
        """Let a board be leased again; False where it was not in quarantine."""
        with writing(self._engine) as session:
            row = session.get(BoardLease, board)
            if row is None or row.quarantined_for is None:
                return False
            _note(session, board, _now(session), RETURNED, who, "")
            row.quarantined_for = row.quarantined_s = None
            return True

    def quarantines(self) -> tuple[Quarantine, ...]:
        """Return the boards that nobody may lease, by name."""
        with reading(self._engine) as session:
            rows = session.exec(select(BoardLease).where(col(BoardLease.quarantined_for).is_not(None)).order_by(
                col(BoardLease.board)))
            return tuple(map(_quarantine, rows))

    def add_reading(self, board: str, found: Measurement) -> None:
        """Remember how long a board took for its reference."""
        with writing(self._engine) as session:
            session.add(ReferenceReading(
                board=board, artifact_sha256=found.artifact_sha256, runtime=_runtime(found),
                threads=found.threads, happened_s=_now(session), latency_s=found.median_s))

    def readings(self, board: str, like: Measurement) -> tuple[float, ...]:
        """Return a board's last readings of the same reference in seconds, since a person last looked at it."""
        with reading(self._engine) as session:
            rows = session.exec(select(ReferenceReading.latency_s).where(
                ReferenceReading.board == board, ReferenceReading.artifact_sha256 == like.artifact_sha256,
                ReferenceReading.runtime == _runtime(like), ReferenceReading.threads == like.threads,
                col(ReferenceReading.happened_s) > _mended(session, board),
            ).order_by(col(ReferenceReading.id).desc()).limit(LAST_READINGS))
            return tuple(rows)

    def leases(self) -> tuple[Lease, ...]:
        """Return all that have not expired, by board."""
        with reading(self._engine) as session:
            now = _now(session)
            rows = session.exec(select(BoardLease).order_by(col(BoardLease.board)))
            return tuple(_lease(row) for row in rows if _is_leased(row, now))

    def reservations(self) -> tuple[Reservation, ...]:
        """Return all that are not over, by board."""
        with reading(self._engine) as session:
            now = _now(session)
            rows = session.exec(select(BoardLease).order_by(col(BoardLease.board)))
            return tuple(_reservation(row) for row in rows if _is_reserved(row, now))

    def requests(self) -> tuple[Request, ...]:
        """Return who waits, the next one first."""
        with reading(self._engine) as session:
            return tuple(in_order(_requests(session, _now(session), forget=False)))

    def events(self, board: str, limit: int) -> tuple[BoardEvent, ...]:
        """Return the last events of a board, oldest first."""
        with reading(self._engine) as session:
            rows = session.exec(select(BoardEventRow).where(BoardEventRow.board == board).order_by(
                col(BoardEventRow.id).desc()).limit(limit)).all()
            return tuple(BoardEvent(row.board, _time(row.happened_s), row.what, row.who, row.detail)
                         for row in reversed(rows))

    def note(self, board: str, what: str, who: str, detail: str) -> None:
        """Remember that something happened to a board."""
        with writing(self._engine) as session:
            _note(session, board, _now(session), what, who, detail)


def _runtime(found: Measurement) -> str:
    return f"{found.runtime} {found.runtime_version}"


def _is_leased(row: BoardLease, now: float) -> bool:
    return row.owner is not None and (row.expires_s or 0.0) > now


def _is_reserved(row: BoardLease, now: float) -> bool:
    return row.reserved_by is not None and (row.reserved_until_s or 0.0) > now


def _is_free(row: BoardLease, owner: str, now: float) -> bool:
    return (not _is_leased(row, now) and row.quarantined_for is None
            and not (_is_reserved(row, now) and row.reserved_by != owner))


def _mended(session: Session, board: str) -> float:
    """Return when a person last said that the board is well."""
    found = session.exec(select(func.max(BoardEventRow.happened_s)).where(
        BoardEventRow.board == board, BoardEventRow.what == RETURNED, BoardEventRow.who != BY_ITSELF)).one()
    return found or 0.0


def _now(session: Session) -> float:
    clock = _CLOCKS[session.get_bind().dialect.name]
    return float(session.connection().execute(select(literal_column(clock))).scalar_one())


def _requests(session: Session, now: float, forget: bool = True) -> list[Request]:
    """Return the living requests; the others are deleted where that is asked for."""
    found = []
    for row in session.exec(select(LeaseRequest)):
        if row.expires_s <= now:
            if forget:
                session.delete(row)
            continue
        wanted = Wanted(tuple(row.boards), row.owner, row.purpose, row.priority, row.key)
        found.append(Request(row.ticket or 0, wanted, _time(row.asked_s)))
    return found


def _own(session: Session, lease: Lease) -> BoardLease | None:
    return session.exec(select(BoardLease).where(BoardLease.board == lease.board, BoardLease.token == lease.token,
                                                 col(BoardLease.owner).is_not(None))).first()


def _instead(session: Session, lease: Lease) -> str:
    row = session.get(BoardLease, lease.board)
    if row is None or row.owner is None:
        return "it was released"
    return f"{row.owner} has it since {_time(row.granted_s or 0.0):%Y-%m-%d %H:%M:%S} UTC for {row.purpose}"


def _note(session: Session, board: str, now: float, what: str, who: str, detail: str) -> None:
    session.add(BoardEventRow(board=board, happened_s=now, what=what, who=who, detail=detail))
    session.exec(delete(BoardEventRow).where(col(BoardEventRow.happened_s) < now - REMEMBERED_S))


def _lease(row: BoardLease) -> Lease:
    return Lease(row.board, row.owner or "", row.purpose or "", row.token, _time(row.granted_s or 0.0),
                 _time(row.expires_s or 0.0))


def _quarantine(row: BoardLease) -> Quarantine:
    return Quarantine(row.board, _time(row.quarantined_s or 0.0), row.quarantined_for or "", row.failures,
                      row.failures >= FAILURES)


def _reservation(row: BoardLease) -> Reservation:
    return Reservation(row.board, row.reserved_by or "", row.reserved_for or "", _time(row.reserved_until_s or 0.0))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
