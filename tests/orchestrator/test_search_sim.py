"""Searches on the simulated board: a finished study goes on; tails get enough runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from orchestrator.store.records import Purpose, TrialRole
from orchestrator.store.store import Store


def search(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "orchestrator.cli.app", "search", "--device", "sim", "--model", "demo:separable",
               "--budget", "0.9x", "--sampler", "tpe", "--study", "more", "--store", str(folder / "store"),
               "--format", "json", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_finished_study_goes_on(tmp_path: Path) -> None:
    assert search(tmp_path, "--measurements", "8")["measurements"] == 8
    assert search(tmp_path, "--measurements", "10", "--resume")["measurements"] == 10
    with Store.open(tmp_path / "store") as store:
        histories = store.histories(store.study("more").id)
    float32 = next(h for h in histories if h.trial.label == "float32")
    rounds = [m.session for m in float32.measurements if m.purpose is Purpose.CONFIRM]
    assert len(rounds) == len(set(rounds)) >= 5
    assert sum(m.purpose is Purpose.SEARCH for m in float32.measurements) == 1


def test_a_tail_gets_the_runs_that_it_needs(tmp_path: Path) -> None:
    search(tmp_path, "--measurements", "6", "--latency-stat", "p90")
    with Store.open(tmp_path / "store") as store:
        histories = store.histories(store.study("more").id)
    timed = [len(m.measurement.wall_ns) for h in histories for m in h.measurements]
    assert timed
    assert min(timed) >= 100


def test_the_adaptive_sampler_finds_goes_on_and_never_repeats(tmp_path: Path) -> None:
    first = search(tmp_path, "--sampler", "adaptive", "--budget", "0.97x:int8", "--measurements", "13")
    assert first["goal_met"] is True
    search(tmp_path, "--sampler", "adaptive", "--measurements", "16", "--resume")
    with Store.open(tmp_path / "store") as store:
        histories = store.histories(store.study("more").id)
    proposed = [h for h in histories if h.trial.role is TrialRole.SEARCH]
    assert len(proposed) >= 4
    assert len({h.trial.candidate_id for h in histories}) == len(histories)
    int8 = next(h for h in histories if h.trial.label == "int8").latency_s
    assert int8 is not None
    latencies = [h.latency_s for h in proposed if h.latency_s is not None]
    assert min(latencies) < 0.97 * int8, "no proposal met the budget"
