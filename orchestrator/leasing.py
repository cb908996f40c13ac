"""A board that is leased while something runs."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from device_farm.errors import BoardBusy, FarmError, LeaseLost
from device_farm.leases import RENEW_S, Lease, LeaseStore, Wanted

POLL_S = 0.5
log = logging.getLogger(__name__)


class Leasing:
    """Waits for a board, keeps it, gives it back at the end.

    Args:
        store: of leases; the heartbeat's thread uses it as well, with a connection of its own.
        wanted: which boards would do.
        patience_s: how long to wait.
        notice: told why we wait, and again when the reason changes.
        stop: set when the user wants no more waiting; the wait then ends in KeyboardInterrupt.
        renew_s: the heartbeat.
    """

    def __init__(self, store: LeaseStore, wanted: Wanted, patience_s: float, notice: Callable[[str], None],
                 stop: threading.Event, renew_s: float = RENEW_S) -> None:
        self._store, self._wanted, self._patience_s = store, wanted, patience_s
        self._notice, self._stop, self._renew_s = notice, stop, renew_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._lease: Lease | None = None
        self._lost: FarmError | None = None

    def __enter__(self) -> Self:
        """Wait for a board. Raises BoardBusy when the patience is over, KeyboardInterrupt."""
        self._lease = self._wait()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        if self._lease is not None and self._lost is None:
            self._store.release(self._lease)

    @property
    def lease(self) -> Lease:
        """What we hold. Raises LeaseLost when it is another's by now."""
        if self._lost is not None:
            raise self._lost
        if self._lease is None:
            raise LeaseLost("no board is leased yet")
        return self._lease

    def _wait(self) -> Lease:
        ticket = self._store.ask(self._wanted)
        deadline, told = time.monotonic() + self._patience_s, ""
        try:
            while (lease := self._store.take(ticket)) is None:
                why = reason(self._store, self._wanted, ticket)
                if time.monotonic() >= deadline:
                    raise BoardBusy(f"waited {self._patience_s:.0f} s: {why}")
                if why != told:
                    self._notice(f"waiting: {why}")
                    told = why
                if self._stop.wait(POLL_S * random.uniform(0.5, 1.0)):  # noqa: S311 - so that not all ask at once
                    raise KeyboardInterrupt
        except BaseException:
            self._store.withdraw(ticket)
            raise
        return lease

    def _beat(self) -> None:
        while not self._done.wait(self._renew_s):
            try:
                self._lease = self._store.renew(self.lease)
            except LeaseLost as error:
                log.warning("%s", error)
                self._lost = error
                return
            except Exception:
                log.exception("the lease could not be renewed; tried again in %g s", self._renew_s)


def reason(store: LeaseStore, wanted: Wanted, ticket: int) -> str:
    """Say who has each of the boards until when, or who is before us."""
    held = {lease.board: lease for lease in store.leases()}
    before = [request for request in store.requests() if request.ticket != ticket]
    parts = []
    for board in wanted.boards:
        if board in held:
            lease = held[board]
            parts.append(f"{board} leased by {lease.owner} for {lease.purpose} until "
                         f"{lease.expires.astimezone():%H:%M:%S} or longer")
        else:
            others = [request for request in before if board in request.wanted.boards]
            parts.append(f"{board} goes to {others[0].wanted.owner} first" if others else f"{board} is free")
    return ", ".join(parts)
