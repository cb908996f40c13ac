"""Searches on the simulated board: a finished study goes on; tails get enough runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.records import Purpose, TrialRole
from orchestrator.store.store import Store
from tests.orchestrator.searches import Quick, quick_model


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Quick:
    return quick_model(tmp_path_factory, tmp_path)


def search(quick: Quick, *options: str) -> dict[str, Any]:
    resumed = "--resume" in options
    budget = () if "--budget" in options or resumed else ("--budget", "0.9x")
    done = quick.search(*(() if resumed else ("--device", "sim")), *budget, *options, "--format", "json", study="more",
                        model=not resumed)
    assert done.code == 0, done.stderr
    return done.document


def test_a_finished_study_goes_on(quick: Quick) -> None:
    assert search(quick, "--measurements", "8")["measurements"] == 8
    assert search(quick, "--measurements", "10", "--resume")["measurements"] == 10
    with Store.open(quick.store) as store:
        histories = store.histories(store.study("more").id)
    float32 = next(h for h in histories if h.trial.label == "float32")
    rounds = [m.session for m in float32.measurements if m.purpose is Purpose.CONFIRM]
    assert len(rounds) == len(set(rounds)) >= 5
    assert sum(m.purpose is Purpose.SEARCH for m in float32.measurements) == 1


def test_a_tail_gets_the_runs_that_it_needs(quick: Quick) -> None:
    search(quick, "--measurements", "6", "--latency-stat", "p90")
    with Store.open(quick.store) as store:
        histories = store.histories(store.study("more").id)
    timed = [len(m.measurement.wall_ns) for h in histories for m in h.measurements]
    assert timed
    assert min(timed) >= 100


def test_the_adaptive_sampler_finds_goes_on_and_never_repeats(quick: Quick) -> None:
    first = search(quick, "--sampler", "adaptive", "--budget", "0.97x:int8", "--measurements", "13")
    assert first["goal_met"] is True
    search(quick, "--sampler", "adaptive", "--measurements", "16", "--resume")
    with Store.open(quick.store) as store:
        histories = store.histories(store.study("more").id)
    proposed = [h for h in histories if h.trial.role is TrialRole.SEARCH]
    assert len(proposed) >= 4
    assert len({h.trial.candidate_id for h in histories}) == len(histories)
    int8 = next(h for h in histories if h.trial.label == "int8").latency_s
    assert int8 is not None
    latencies = [h.latency_s for h in proposed if h.latency_s is not None]
    assert min(latencies) < 0.97 * int8, "no proposal met the budget"
