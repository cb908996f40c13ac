"""Leases of boards in the database: one transaction each, by the database's own clock."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Engine, literal_column, text
from sqlmodel import Session, col, select

from device_farm.errors import LeaseLost
from device_farm.leases import REQUEST_TTL_S, TTL_S, Lease, Request, Wanted, assigned, in_order
from orchestrator.store.database import reading, writing
from orchestrator.store.models import BoardLease, LeaseRequest

_CLOCKS = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())::double precision",
}
"""Seconds since 1970. SQLite before 3.42 has no unixepoch('subsec')."""


class LeaseBook:
    """A `LeaseStore` in a database. Threads and processes may share it."""

    def __init__(self, engine: Engine, ttl_s: float = TTL_S, request_ttl_s: float = REQUEST_TTL_S) -> None:
        self._engine, self._ttl_s, self._request_ttl_s = engine, ttl_s, request_ttl_s

    def ask(self, wanted: Wanted) -> int:
        """Begin to wait; return the ticket."""
        with writing(self._engine) as session:
            now = _now(session)
            row = LeaseRequest(boards=list(wanted.boards), owner=wanted.owner, purpose=wanted.purpose,
                               priority=wanted.priority, asked_s=now, expires_s=now + self._request_ttl_s)
            session.add(row)
            session.flush()
            return row.ticket or 0

    def take(self, ticket: int) -> Lease | None:
        """Return a lease when it is this waiter's turn; else it waits on. Raises LeaseLost for a forgotten ticket."""
        with writing(self._engine) as session:
            _one_at_a_time(session)
            now = _now(session)
            row = session.get(LeaseRequest, ticket)
            if row is None:
                raise LeaseLost(f"the request {ticket} is forgotten: it was not repeated for {self._request_ttl_s:g} "
                                "s; ask again")
            row.expires_s = now + self._request_ttl_s
            waiting = in_order(_requests(session, now))
            held = {lease.board for lease in session.exec(select(BoardLease).where(
                col(BoardLease.owner).is_not(None), col(BoardLease.expires_s) > now))}
            named = {board for request in waiting for board in request.wanted.boards}
            board = assigned(waiting, named - held).get(ticket)
            if board is None:
                return None
            session.delete(row)
            lease = session.get(BoardLease, board)
            if lease is None:
                lease = BoardLease(board=board, token=0)
                session.add(lease)
            lease.token = max(lease.token + 1, int(now * 1000))  # rises also when the store was made anew
            lease.owner, lease.purpose = row.owner, row.purpose
            lease.granted_s, lease.expires_s = now, now + self._ttl_s
            return _lease(lease)

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
                row.owner = row.purpose = row.granted_s = row.expires_s = None

    def leases(self) -> tuple[Lease, ...]:
        """Return all that have not expired, by board."""
        with reading(self._engine) as session:
            found = session.exec(select(BoardLease).where(
                col(BoardLease.owner).is_not(None), col(BoardLease.expires_s) > _now(session)).order_by(
                    col(BoardLease.board)))
            return tuple(map(_lease, found))

    def requests(self) -> tuple[Request, ...]:
        """Return who waits, the next one first."""
        with reading(self._engine) as session:
            return tuple(in_order(_requests(session, _now(session), forget=False)))


def _one_at_a_time(session: Session) -> None:
    """Keep others from deciding who is next meanwhile; a writer in SQLite is alone in any case."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(text("LOCK TABLE lease_request IN EXCLUSIVE MODE"))


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
        wanted = Wanted(tuple(row.boards), row.owner, row.purpose, row.priority)
        found.append(Request(row.ticket or 0, wanted, _time(row.asked_s)))
    return found


def _own(session: Session, lease: Lease) -> BoardLease | None:
    query = select(BoardLease).where(BoardLease.board == lease.board, BoardLease.token == lease.token,
                                     col(BoardLease.owner).is_not(None))
    if session.get_bind().dialect.name == "postgresql":
        query = query.with_for_update()
    return session.exec(query).first()


def _instead(session: Session, lease: Lease) -> str:
    row = session.get(BoardLease, lease.board)
    if row is None or row.owner is None:
        return "it was released"
    return f"{row.owner} has it since {_time(row.granted_s or 0.0):%Y-%m-%d %H:%M:%S} UTC for {row.purpose}"


def _lease(row: BoardLease) -> Lease:
    return Lease(row.board, row.owner or "", row.purpose or "", row.token, _time(row.granted_s or 0.0),
                 _time(row.expires_s or 0.0))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
