from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_farm.local import LocalTransport
from profilers.agent_build import build_agent
from profilers.measurement import MeasureSettings
from profilers.runner import AgentRunner, RuntimePlace
from recipes.artifact import Artifact
from tests.profilers.tiny_model import dense, examples

QUICK = MeasureSettings(min_runs=20, max_runs=200, max_sampling_s=0.05, max_warmup_s=0.02, timeout_s=30)
ENDLESS = MeasureSettings(min_runs=10**9, max_runs=10**9, max_sampling_s=60, max_warmup_s=0.01, timeout_s=60)
"""Samples for half a minute, unless something happens."""
WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)
INPUTS = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]], np.float32)


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_agent(tmp_path_factory.mktemp("agent") / "agent.pyz").path


@dataclass
class Bench:
    """Makes runners on this machine, all with one root and one lock file."""

    agent: Path
    folder: Path
    transport: LocalTransport = field(default_factory=LocalTransport)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def runner(self, **changes: Any) -> AgentRunner:
        place = changes.pop("runtime", RuntimePlace("litert", sys.executable))
        settings: dict[str, Any] = {
            "root": str(self.root), "agent": self.agent, "board": "bench", "kind": "x86",
            "lock_file": str(self.folder / "lock"), "runtimes": (place,), **changes}
        return AgentRunner(self.transport, **settings)

    def locked(self, **changes: Any) -> AgentRunner:
        runner = self.runner(**changes)
        runner.acquire(1, "the tests")
        return runner


@pytest.fixture
def bench(agent: Path, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(agent, tmp_path)
    yield bench
    bench.transport.close()


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return dense(tmp_path, WEIGHTS)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return examples(tmp_path, INPUTS)
