"""A controller that measures again and again under leases of two seconds, told to by lines: see test_leasing."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np

from device_farm.local import LocalTransport
from orchestrator.bench import Bench, Job
from orchestrator.leasing import Tenant
from orchestrator.store.database import open_engine
from orchestrator.store.lease_book import LeaseBook
from orchestrator.store.places import store_at
from profilers.measurement import MeasureSettings
from profilers.runner import AgentRunner, RuntimePlace
from recipes.artifact import Artifact

TTL_S = 2.0


class Deaths:
    """No board dies here."""

    def deaths(self, artifact_sha256: str, kind: str) -> int:
        return 0

    def add_death(self, artifact_sha256: str, board: str, kind: str, what: str) -> None:
        raise NotImplementedError


def main() -> None:
    """Read `seconds` from every line, measure for so long, and print what came of it."""
    name, store, root, agent, lock, artifact, golden = sys.argv[1:]
    book = LeaseBook(open_engine(store_at(store, Path("/"))), TTL_S)
    place = RuntimePlace("litert", sys.executable)
    job = Job(Artifact.of(Path(artifact)), Path(golden), (np.zeros((3, 3), np.float32),), 1e9)
    notices: list[str] = []
    bench = Bench("board", "x86", lambda: AgentRunner(
        LocalTransport(), root=root, runtimes=(place,), agent=Path(agent), board="board", kind="x86", lock_file=lock),
        Tenant(book, "board", name, "the test", "store/board"), MeasureSettings(), Deaths(), 30.0, 10.0,
        notices.append, threading.Event(), renew_s=TTL_S / 4)
    with bench:
        for line in sys.stdin:
            seconds = float(line)
            settings = MeasureSettings(min_runs=10**9, max_runs=10**9, max_sampling_s=seconds, max_warmup_s=0.01,
                                       timeout_s=2 * seconds + 1)
            found = bench.measure(job, settings)
            token = max(lease.token for lease in book.leases())
            sys.stdout.write(json.dumps({"runs": len(found.wall_ns), "token": token, "notices": notices}) + "\n")
            sys.stdout.flush()
            notices.clear()


if __name__ == "__main__":
    main()
