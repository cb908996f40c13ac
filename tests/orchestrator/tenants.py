"""Leases without a database, for tests of what runs under them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from device_farm.errors import LeaseLost
from device_farm.leases import Lease, Request, Reservation, Wanted
from orchestrator.leasing import Tenant

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@dataclass
class Leases:
    """Gives every board at once, with rising tokens, unless told otherwise."""

    held: int = 0
    """So often the board is another's when somebody asks."""
    lost: list[str] = field(default_factory=list)
    """So often a renewal finds that it was taken over, for these reasons."""
    events: list[str] = field(default_factory=list)
    token: int = 0
    taken: bool = False
    wanted: Wanted | None = None

    def ask(self, wanted: Wanted) -> int:
        self.wanted = wanted
        if self.held:
            self.events.append(f"{wanted.boards[0]} asked")
        return 1

    def take(self, ticket: int) -> Lease | None:
        assert self.wanted is not None
        self.taken = not self.held
        if self.held:
            self.held -= 1
            return None
        self.token += 1
        self.events.append(f"{self.wanted.boards[0]} leased")
        return Lease(self.wanted.boards[0], self.wanted.owner, self.wanted.purpose, self.token, NOW,
                     NOW + timedelta(minutes=1))

    def reserve(self, ticket: int, seconds: float) -> Reservation | None:
        raise NotImplementedError

    def unreserve(self, board: str) -> Reservation | None:
        raise NotImplementedError

    def withdraw(self, ticket: int) -> None:
        assert self.wanted is not None
        self.events.append(f"{self.wanted.boards[0]} withdrawn")

    def renew(self, lease: Lease) -> Lease:
        if self.lost:
            raise LeaseLost(self.lost.pop(0))
        return replace(lease, expires=lease.expires + timedelta(seconds=15))

    def release(self, lease: Lease) -> None:
        self.events.append(f"{lease.board} released")

    def leases(self) -> tuple[Lease, ...]:
        if self.taken or self.wanted is None:
            return ()
        return (Lease(self.wanted.boards[0], "ben@lab", "nightly", 1, NOW, NOW + timedelta(minutes=1)),)

    def reservations(self) -> tuple[Reservation, ...]:
        return ()

    def requests(self) -> tuple[Request, ...]:
        return ()


def tenant_of(board: str, leases: Leases | None = None) -> Tenant:
    """Return one who wants a board for study 'a'."""
    return Tenant(leases or Leases(), board, "anna@desk", "study 'a'", f"store/{board}")
