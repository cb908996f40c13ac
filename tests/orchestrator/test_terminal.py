"""What a search prints while it runs: lines that fit, and "simulated" wherever latencies are."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from orchestrator.dry_run import print_dry_run
from orchestrator.loop import Found
from orchestrator.schemas.files import schema_of
from orchestrator.store.store import Store
from orchestrator.terminal import NOT_MEASURED, Live, Plain, describe
from search.candidate import Candidate
from search.goal import Evidence, Goal
from tests.orchestrator.made import Made, make_study, measured, space

METRICS = {"closeness": -0.0012, "recall_of_the_rare": 0.75}


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """A candidate that was measured."""
    with Store.open(tmp_path) as store:
        study = make_study(store, "s", [Made(100.0, {"top1": 0.9}, label="weight_only_int8")])
        (trial,) = store.trials(study.id)
        artifact = store.blobs.put_bytes(b"model")
    candidate = Candidate.from_json(space(9), trial.candidate)
    return Found("weight_only_int8", candidate, trial.role, (), trial, measurement=measured(artifact, 100.0),
                 evidence=Evidence(100e-6, 643_800, {"top1": 0.8805}))


def simulated(found: Found) -> Found:
    assert found.measurement is not None
    return replace(found, measurement=replace(found.measurement, simulated=True))


def with_metrics(found: Found, metrics: dict[str, float]) -> Found:
    assert found.evidence is not None
    return replace(found, evidence=replace(found.evidence, metrics=metrics))


def test_one_metric_is_one_line_of_69_columns(found: Found) -> None:
    (line,) = describe(found, 69)
    assert line.split() == ["#0", "weight_only_int8", "100", "us", "643.8", "KB", "top1", "0.8805"]
    (line,) = describe(simulated(found), 69)
    assert line.split()[2:5] == ["100", "us", "simulated"]


def test_more_metrics_than_fit_have_a_line_of_their_own(found: Found) -> None:
    lines = describe(simulated(with_metrics(found, METRICS)), 69)
    assert len(lines) == 2
    assert all(len(line) <= 69 for line in lines)
    assert lines[1].strip() == "closeness -0.0012, recall_of_the_rare 0.7500"
    assert len(describe(with_metrics(found, METRICS), 120)) == 1


def test_what_is_infeasible_says_why(found: Found) -> None:
    (line,) = describe(replace(found, measurement=None, evidence=None, infeasible="it returned NaN"), 80)
    assert line.endswith("infeasible: it returned NaN")


@pytest.mark.parametrize("kind", ["plain", "live"])
@pytest.mark.parametrize("sim", [True, False])
def test_a_simulated_board_is_called_so_in_lines_that_fit(found: Found, kind: str, sim: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, width=80)
    goal = Goal("closeness", 100e-6, 80_000, {"closeness": -0.0112, "recall_of_the_rare": 0.74})
    found = with_metrics(simulated(found) if sim else found, METRICS)
    with Plain(console, sim) if kind == "plain" else Live(console, "sim", sim) as progress:
        progress.goal(goal, "median")
        progress.trial(found)
        progress.best(found, True)
    lines = [line for line in text.getvalue().splitlines() if "━" not in line]
    assert max(map(len, lines)) <= 80
    said = " ".join(line.partition("] ")[2] or line for line in lines)
    assert (NOT_MEASURED in said, "with simulated median latency <= 100 us" in " ".join(said.split()),
            "100 us simulated" in said) == (sim,) * 3
    assert "recall_of_the_rare >= 0.7400" in " ".join(said.split())


def dry(simulated: bool) -> dict[str, Any]:
    layers = [{"name": f"encoder.blocks.{i}.attention.softmax_of_a_very_long_name", "kind": "MEAN+SQUARED_DIFFERENCE"
               "+ADD+RSQRT+MUL+SUB", "weights": 4096, "macs": 200_704, "choices": ["float32", "int8"]} for i in (0, 1)]
    document = {
        "schema": 1, "dry_run": True, "model": "net.py:make", "layers": layers, "groups": [],
        "for_all": {"calibration": ["min_max", "percentile", "mse"], "clipping": ["none", "octav"]},
        "left_out": [], "log10_candidates": 0.6,
        "board": {"name": "sim", "kind": "sim", "runtime": {"name": "litert", "version": "2.3.0"}}, "parameters": 8192,
        "baselines": ["float32"], "seeds": ["int8:weighted"], "measurements": 48, "estimate_s": 38.0,
        "prices": {"build_s": 0.18, "accuracy_s": 1.26, "measurement_s": 0.134}, "simulated": simulated,
        "float32": {"latency_s": 4.1e-3, "size_bytes": 643_800, "metrics": {"top1": 0.88}}}
    jsonschema.validate(document, schema_of("search-dry-run"))
    return document


@pytest.mark.parametrize("sim", [True, False])
def test_a_dry_run_fits_and_says_when_it_is_simulated(sim: bool) -> None:
    text = io.StringIO()
    print_dry_run(dry(sim), Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert ("float32: 4.1 ms (simulated), 643.8 KB" in lines) is sim
    assert ("Latencies are simulated (a roofline model), not measured." in lines) is sim
    assert lines[0].strip() == "net.py:make on sim: 2 layers"
    first = [line.partition("┃")[0].partition("│")[0].strip() for line in lines[3:6]]
    assert first[0].endswith((".", "_")), "a layer's name breaks behind a separator"
    assert any("1 seed" in line for line in lines)
