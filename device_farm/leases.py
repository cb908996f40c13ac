"""Who may use which board, and who is next."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

TTL_S = 60.0
"""A lease that is not renewed for so long lapses; SQLite under load has made a renewal wait for 12.5 s."""
RENEW_S = 15.0
REQUEST_TTL_S = 30.0
"""A waiter that has not asked for so long is forgotten."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One board, whichever of these."""

    boards: tuple[str, ...]
    owner: str
    """Who: person and machine, `anna@desk`."""
    purpose: str
    """What for: `study 'x' (pid 812)`, `nightly`."""
    priority: int = 0
    """Greater ones come first."""
    key: uuid.UUID = field(default_factory=uuid.uuid4, compare=False)
    """Who asks again because the answer was lost waits once."""

    def __post_init__(self) -> None:
        if not self.boards:
            raise ValueError("a request names at least one board, got none")


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody waits."""

    ticket: int
    """Rises with every request."""
    wanted: Wanted
    asked: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """A board that is somebody's until it expires."""

    board: str
    owner: str
    purpose: str
    token: int
    """Rises with every grant of this board: the agent there refuses an older one."""
    granted: datetime
    expires: datetime
    """By the database's clock."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A board that only its owner may lease for a while."""

    board: str
    owner: str
    purpose: str
    until: datetime
    """By the database's clock; it is not renewed."""


@dataclass(frozen=True, slots=True)
class BoardEvent:
    """Something that happened to a board."""

    board: str
    happened: datetime
    what: str
    """`leased`, `released`, `lapsed`, `reserved`, `freed`."""
    who: str
    detail: str


class LeaseStore(Protocol):
    """Where leases are kept. Every method is one transaction and uses the database's clock."""

    def ask(self, wanted: Wanted) -> int:
        """Begin to wait; return the ticket."""

    def take(self, ticket: int) -> Lease | None:
        """Return a lease when it is this waiter's turn; else it waits on. Raises LeaseLost for a forgotten ticket."""

    def reserve(self, ticket: int, seconds: float) -> Reservation | None:
        """As `take`, but keep the board for its owner's leases, for so long."""

    def withdraw(self, ticket: int) -> None:
        """Wait no more."""

    def renew(self, lease: Lease) -> Lease:
        """Keep a lease for another TTL_S. Raises LeaseLost when another has the board, or it was released."""

    def release(self, lease: Lease) -> None:
        """Give a board back; nothing happens when it is another's by now."""

    def unreserve(self, board: str) -> Reservation | None:
        """End a board's reservation and return it; None where there is none."""

    def leases(self) -> tuple[Lease, ...]:
        """Return all that have not expired, by board."""

    def reservations(self) -> tuple[Reservation, ...]:
        """Return all that are not over, by board."""

    def requests(self) -> tuple[Request, ...]:
        """Return who waits, the next one first."""


def in_order(requests: Iterable[Request]) -> list[Request]:
    """Sort by priority, then by ticket."""
    return sorted(requests, key=lambda request: (-request.wanted.priority, request.ticket))


def assigned(requests: Sequence[Request], free: Mapping[int, Collection[str]]) -> dict[int, str]:
    """Say which free board each waiter gets: ticket -> board.

    Nobody gets one whom an earlier waiter would then lack; otherwise as many as can be get one. Kuhn's algorithm for
    matchings, where earlier waiters keep being served while boards are exchanged (Kuhn 1955,
    doi:10.1002/nav.3800020109).

    Args:
        requests: the next one first.
        free: ticket -> boards that this waiter could have now; a reserved one is its owner's alone.
    """
    of: dict[str, Request] = {}

    def found(request: Request, tried: set[str]) -> bool:
        for board in request.wanted.boards:
            if board in free[request.ticket] and board not in tried:
                tried.add(board)
                if board not in of or found(of[board], tried):
                    of[board] = request
                    return True
        return False

    for request in requests:
        found(request, set())
    return {request.ticket: board for board, request in of.items()}
