"""A process that leases boards again and again, and sees by a lock on a file whether it is alone: see test_leases."""

from __future__ import annotations

import fcntl
import json
import os
import random
import sys
import time
from pathlib import Path

from device_farm.errors import LeaseLost
from device_farm.leases import Wanted
from orchestrator.store.database import open_engine
from orchestrator.store.lease_book import LeaseBook
from orchestrator.store.places import store_at


def main() -> None:
    """Work for some seconds; print a line of JSON for every lease."""
    at, folder, boards, number, ttl_s, seconds = sys.argv[1:]
    book = LeaseBook(open_engine(store_at(at, Path("/"))), float(ttl_s))
    rng = random.Random(int(number))  # noqa: S311
    names, end = boards.split(","), time.monotonic() + float(seconds)
    while time.monotonic() < end:
        ticket = book.ask(Wanted(tuple(names), f"worker {number}", "test"))
        lease = None
        while lease is None and time.monotonic() < end:
            try:
                lease = book.take(ticket)
            except LeaseLost:
                ticket = book.ask(Wanted(tuple(names), f"worker {number}", "test"))
            if lease is None:
                time.sleep(rng.uniform(0.002, 0.05))
        if lease is None:
            book.withdraw(ticket)
            return
        alone = work(Path(folder) / lease.board)
        sys.stdout.write(json.dumps({"board": lease.board, "token": lease.token, "alone": alone,
                                     "ended": time.monotonic()}) + "\n")
        sys.stdout.flush()
        book.release(lease)


def work(path: Path) -> bool:
    """Use the board for 10 ms; tell whether nobody else did."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


if __name__ == "__main__":
    main()
