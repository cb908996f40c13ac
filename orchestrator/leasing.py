"""A board that is leased while something runs."""

from __future__ import annotations

import getpass
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from device_farm.board_entry import BoardEntry
from device_farm.errors import BoardBusy, LeaseLost
from device_farm.leases import RENEW_S, Lease, LeaseStore, Wanted
from orchestrator.store.store import Store

PATIENCE_S = 3600.0
POLL_S = 0.5
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long to wait for a board, and before whom."""

    patience_s: float = PATIENCE_S
    priority: int = 0
    """Greater ones come first."""


UNHURRIED = Waiting()


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who leases one board, and what for."""

    leases: LeaseStore
    board: str
    """As the store knows it."""
    owner: str
    """Person and machine."""
    purpose: str
    series: str
    """What its tokens belong to: this store's leases of this board."""
    priority: int = 0


def tenant(store: Store, entry: BoardEntry, purpose: str, priority: int = 0) -> Tenant:
    """Say that this process wants a board of the inventory for something."""
    board = leased_name(entry)
    return Tenant(store.leases, board, this_owner(), f"{purpose} (pid {os.getpid()})", f"{store.identity}/{board}",
                  priority)


def leased_name(entry: BoardEntry) -> str:
    """Return what the store calls a board: the built-in ones are another's on every machine."""
    return entry.name if entry.transport == "ssh" else f"{entry.name}@{socket.gethostname()}"


def this_owner() -> str:
    """Return the person and the machine, `anna@desk`."""
    try:
        person = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        person = str(os.getuid())
    return f"{person}@{socket.gethostname()}"


class Leasing:
    """Waits for a board, keeps it, gives it back.

    Args:
        who: wants it.
        patience_s: how long to wait.
        notice: told why we wait, and again when the reason changes.
        stop: set when the user wants no more waiting; the wait then ends in KeyboardInterrupt.
        renew_s: the heartbeat, from a thread of its own.

    Raises:
        BoardBusy: the patience is over.
        KeyboardInterrupt: the user wants no more waiting.
    """

    def __init__(self, who: Tenant, patience_s: float, notice: Callable[[str], None], stop: threading.Event,
                 renew_s: float = RENEW_S) -> None:
        wanted = Wanted((who.board,), who.owner, who.purpose, who.priority)
        self._store, self._renew_s = who.leases, renew_s
        ticket = self._store.ask(wanted)
        self._lease = wait_for(self._store, wanted, ticket, lambda: self._store.take(ticket), patience_s, notice, stop)
        self._lost: LeaseLost | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()

    @property
    def lease(self) -> Lease:
        """What we hold. Raises LeaseLost when it is known to be another's by now."""
        if self._lost is not None:
            raise self._lost
        return self._lease

    def confirm(self) -> None:
        """Ask the store whether the board is still ours. Raises LeaseLost."""
        try:
            self._lease = self._store.renew(self.lease)
        except LeaseLost as error:
            self._lost = error
            raise

    def release(self) -> None:
        """Give the board back; never raises: a lease that stays lapses by itself."""
        self._done.set()
        self._thread.join()
        if self._lost is None:
            try:
                self._store.release(self._lease)
            except Exception:
                log.exception("the lease of %s could not be given back; it lapses by itself", self._lease.board)

    def _beat(self) -> None:
        while not self._done.wait(self._renew_s):
            try:
                self.confirm()
            except LeaseLost as error:
                log.warning("%s", error)
                return
            except Exception:
                log.exception("the lease could not be renewed; tried again in %g s", self._renew_s)


def wait_for(store: LeaseStore, wanted: Wanted, ticket: int, take: Callable[[], T | None], patience_s: float,
                notice: Callable[[str], None], stop: threading.Event) -> T:
    """Ask until it is our turn. Raises BoardBusy, KeyboardInterrupt; then the request is withdrawn."""
    deadline, told = time.monotonic() + patience_s, ""
    try:
        while (found := take()) is None:
            why = reason(store, wanted, ticket)
            if time.monotonic() >= deadline:
                raise BoardBusy(f"waited for {_long(patience_s)} (--wait): {why}")
            if why != told:
                notice(f"waiting: {why}")
                told = why
            if stop.wait(min(POLL_S, patience_s) * random.uniform(0.5, 1.0)):  # noqa: S311 - not all at once
                raise KeyboardInterrupt
    except BaseException:
        store.withdraw(ticket)
        raise
    return found


def reason(store: LeaseStore, wanted: Wanted, ticket: int) -> str:
    """Say who has each of the boards until when, or who is before us."""
    held = {lease.board: f"leased by {lease.owner} for {lease.purpose} since "
            f"{lease.granted.astimezone():%Y-%m-%d %H:%M}"
            for lease in store.leases()}
    held |= {kept.board: f"reserved by {kept.owner} until {kept.until.astimezone():%Y-%m-%d %H:%M}"
             + (f" ({kept.purpose})" if kept.purpose else "")
             for kept in store.reservations() if kept.owner != wanted.owner}
    before = [request for request in store.requests() if request.ticket != ticket]

    def one(board: str) -> str:
        others = [request.wanted.owner for request in before if board in request.wanted.boards]
        return held.get(board) or (f"goes to {others[0]} first" if others else "free")

    return ", ".join(f"{board} {one(board)}" for board in wanted.boards)


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
