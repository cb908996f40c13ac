"""What the host found out is kept with the study: a search that is resumed does not find it out again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from device_farm.inventory import Inventory
from orchestrator.config import StudyConfig
from orchestrator.host_oracle import PoolOracle
from orchestrator.notes import NAME
from orchestrator.progress import Silent
from orchestrator.store.records import StepRecord
from orchestrator.store.store import Store
from orchestrator.study_run import StudyRun
from search.candidate import Candidate
from search.oracle import Estimate

KEYS: dict[str, Any] = {
    "study": "kept", "device": "sim", "model": "demo:residual", "budget": "0.8x:int8", "prune": True,
    "sampler": "adaptive", "baselines": "needed", "stop_below": 0.0}


@dataclass
class Asked:
    """Candidates of which a search asked the host something."""

    divergences: list[str] = field(default_factory=list)
    estimates: list[str] = field(default_factory=list)


class Talker(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Asked]:
    """Return what starts a new list."""
    now = [Asked()]
    divergences, estimates = PoolOracle.divergences, PoolOracle.estimates

    def spy_divergences(self: PoolOracle, candidates: Sequence[Candidate]) -> list[float | None]:
        now[0].divergences += [c.id for c in candidates]
        return divergences(self, candidates)

    def spy_estimates(self: PoolOracle, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        now[0].estimates += [c.id for c in candidates]
        return estimates(self, candidates)

    def fresh() -> Asked:
        now[0] = Asked()
        return now[0]

    monkeypatch.setattr(PoolOracle, "divergences", spy_divergences)
    monkeypatch.setattr(PoolOracle, "estimates", spy_estimates)
    return fresh


def test_a_resumed_search_asks_the_host_nothing_twice(tmp_path: Path, asked: Callable[[], Asked]) -> None:
    inventory, talker = Inventory(), Talker()
    with Store.open(tmp_path / "store") as store:
        def search(measurements: int, resume: bool = False, **changed: Any) -> Asked:
            found = asked()
            config = StudyConfig.model_validate({**KEYS, **changed, "measurements": measurements})
            StudyRun(store, inventory, config, Path.cwd(), talker, resume).run()
            return found

        first = search(4)
        assert len(first.divergences) > 30
        assert len(first.estimates) > 4
        again = search(5, resume=True)
        assert sum(h.latency_s is not None for h in store.histories(store.study("kept").id)) == 5, "it still proposes"
        assert not set(first.divergences) & set(again.divergences)
        assert not set(first.estimates) & set(again.estimates)

        study = store.study("kept")
        other = store.blobs.put_bytes(b'[]\n{"schema": 1}').sha256
        store.put_step(study.id, StepRecord("0" * 64, NAME, {NAME: other}, {}))
        search(6, resume=True)
        assert [text for text in talker.said if "schema 1" in text and "again" in text]
