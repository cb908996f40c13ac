"""Fronts, stopping and picking as a user meets them, on the simulated board."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from orchestrator.schemas.search import CORNER
from orchestrator.store.records import Purpose, StudyStatus
from orchestrator.store.store import Store
from tests.orchestrator.made import run
from tests.orchestrator.searches import DATA
from tests.orchestrator.test_cli_studies import document, valid

LIMIT_S = 300.0
STUDY = "front"


@dataclass(frozen=True, slots=True)
class Searched:
    """A store with a front, what the search printed, and a folder with a model that starts at once."""

    folder: Path
    document: Any

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def pick(self, *arguments: str | Path, code: int = 0, cwd: Path | None = None) -> Any:
        """Pick as JSON, held against its schema."""
        return document("studies-pick", STUDY, *arguments, "--store", self.store, cwd=cwd or self.folder, code=code)

    def quick(self, *arguments: str, study: str, code: int, store: Path) -> Any:
        """Search the converted network on fewer images; return the document, and what was said meanwhile."""
        done = run("search", "--device", "sim", "--model", "net.tflite", "--data", "small.py:data", "--study", study,
                   "--store", store, "--format", "json", *arguments, cwd=self.folder, timeout_s=LIMIT_S)
        assert done.returncode == code, done.stderr
        return (json.loads(done.stdout) if done.stdout else None), done.stderr


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Search once, however many processes run the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fronts"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "printed.json").exists():
            done = run("search", "--model", "demo:separable", "--device", "sim", "--objective", "accuracy,latency",
                       "--measurements", "20", "--study", STUDY, "--store", folder / "store", "--format", "json",
                       cwd=folder, timeout_s=LIMIT_S)
            assert done.returncode == 0, done.stderr
            model = (folder / "store" / "recipes" / STUDY / "float.tflite").read_bytes()
            (folder / "net.tflite").write_bytes(model)
            (folder / "small.py").write_text(DATA)
            (folder / "printed.json").write_text(done.stdout)
    return Searched(folder, json.loads((folder / "printed.json").read_text()))


def fits(text: str) -> None:
    wide = [line for line in text.splitlines() if len(line.rstrip()) > 80 and not line.startswith(("Recipe:", "orch"))]
    assert not wide


class TestFront:
    def test_the_document_is_what_its_schema_says(self, searched: Searched) -> None:
        valid("search", searched.document)
        assert searched.document["objectives"] == ["top1", "latency"]
        assert searched.document["goal_met"] is True
        assert searched.document["stopped"]["why"] == "allowance"
        assert searched.document["outlook"]["improvement"].startswith("extends the front")
        assert searched.document["outlook"]["gain_points"] >= 0

    def test_the_front_has_confirmed_ends_and_nothing_beats_it(self, searched: Searched) -> None:
        front = searched.document["pareto"]
        assert len(front) >= 3
        assert front[0]["latency_s"]["confirmed"]
        assert searched.document["seeds"], "they mark its fast end"
        points = [(e["latency_s"]["median"], e["accuracy"]["validation"]) for e in front]
        assert points == sorted(points)
        assert [a for _, a in points] == sorted({a for _, a in points})
        with Store.open(searched.store) as store:
            histories = store.histories(store.study(STUDY).id)
        confirmed = {h.trial.candidate_id for h in histories if any(m.purpose is Purpose.CONFIRM
                                                                    for m in h.measurements)}
        assert len(confirmed - {e["candidate_id"] for e in searched.document["baselines"]}) >= 2

    def test_the_winner_is_the_fastest_that_loses_at_most_a_point(self, searched: Searched) -> None:
        found = searched.document
        float32 = next(e for e in found["baselines"] if e["name"] == "float32")
        assert found["shipped_least"] == pytest.approx(float32["accuracy"]["validation"] - 0.01)
        enough = [e for e in found["pareto"] if e["accuracy"]["validation"] >= found["shipped_least"]]
        assert found["winner"]["latency_s"]["median"] == min(e["latency_s"]["median"] for e in enough)

    def test_the_hypervolume_is_that_of_the_points_shown(self, searched: Searched) -> None:
        corner = searched.document["hypervolume"]["reference"]
        area, reached = 0.0, corner["accuracy"]
        for entry in searched.document["pareto"]:
            share, value = entry["latency_s"]["median"] / corner["latency_s"], entry["accuracy"]["validation"]
            area += max(1 - share, 0) * max(value - reached, 0)
            reached = max(reached, value)
        assert searched.document["hypervolume"]["value"] == pytest.approx(area)
        assert area > 0
        assert corner["of"] == CORNER

    def test_show_prints_the_whole_front_and_what_to_expect(self, searched: Searched) -> None:
        text = run("studies", "show", STUDY, "--store", searched.store, cwd=searched.folder).stdout
        fits(text)
        flat = " ".join(text.split())
        assert "objective accuracy,latency" in flat
        assert "A further measurement extends the front by more than 0.1 points or 1 % of the latency with" in flat
        assert "Hypervolume" in flat
        table = text[text.index("Pareto front"):text.index("Candidates")]
        assert (searched.document["winner"]["name"] or searched.document["winner"]["candidate_id"]) in table


class TestPick:
    def test_the_most_accurate_within_a_budget_is_picked(self, searched: Searched) -> None:
        entries = [t["result"] for t in document("studies-show", STUDY, "--store", searched.store,
                                                 cwd=searched.folder)["trials"]]
        for share in (0.5, 0.7, 0.95):
            found = searched.pick("--budget", f"{share}x")
            float32 = found["baselines"][0]
            assert float32["name"] == "float32"
            limit = share * float32["latency_s"]["median"]
            assert found["budget"]["latency_s"] == pytest.approx(limit)
            within = [e for e in entries if e["latency_s"]["median"] <= limit]
            best = max(e["accuracy"]["validation"] for e in within)
            tied = [e for e in within if e["accuracy"]["validation"] >= best - 0.001 - 1e-12]
            assert found["picked"]["candidate_id"] == min(
                tied, key=lambda e: e["latency_s"]["median"])["candidate_id"]

    def test_a_confirmed_one_has_a_probability_and_another_says_how_to_get_it(self, searched: Searched) -> None:
        sure = searched.pick("--budget", "1s", "--size-budget", "1x:float32", "--max-drop", "100")
        baseline = searched.pick("--budget", "10s", "--require", "top1 >= -1")
        for found in (sure, baseline):
            latency = found["picked"]["latency_s"]
            assert (latency["probability_met"] is not None) is latency["confirmed"]
        once = next(e for e in searched.document["pareto"] if not e["latency_s"]["confirmed"])
        budget = f"{once['latency_s']['median'] * 1e6 * 1.0001:.3f}us"
        require = f"top1 >= {once['accuracy']['validation']} abs"
        found = searched.pick("--budget", budget, "--require", require)
        assert found["picked"]["candidate_id"] == once["candidate_id"]
        assert found["picked"]["latency_s"]["probability_absent_because"] == "it was read in the search only"
        text = run("studies", "pick", "--study", STUDY, "--budget", budget, "--require", require, "--store",
                   searched.store, cwd=searched.folder).stdout
        fits(text)
        assert "~ as read in the search" in text
        assert f"orchestrator search --study {STUDY} --resume --budget {budget} --require '{require}'" in text

    def test_the_winner_meets_a_wide_budget_surely_and_a_tight_one_not(self, searched: Searched) -> None:
        winner = searched.document["winner"]
        median, drop = winner["latency_s"]["median"], "1"
        wide = searched.pick("--budget", f"{median * 1.05e6:.3f}us", "--max-drop", drop)
        assert wide["picked"]["latency_s"]["probability_met"] > 0.95
        assert wide["goal_met"] is True
        tight = searched.pick("--budget", f"{median * 0.5e6:.3f}us", "--max-drop", drop, code=1)
        assert tight["goal_met"] is False
        assert tight["violations"]["latency"] == pytest.approx(1.0, abs=0.1)
        text = run("studies", "pick", STUDY, "--budget", f"{median * 0.5e6:.3f}us", "--store", searched.store,
                   cwd=searched.folder)
        assert text.returncode == 1
        assert "Nothing that was measured meets this; the nearest is" in " ".join(text.stdout.split())

    def test_its_recipe_is_whole_and_rebuilds_to_the_same_bytes(self, searched: Searched, tmp_path: Path) -> None:
        found = searched.pick("--budget", "0.75x:int8", "--output", tmp_path / "recipe", cwd=tmp_path)
        assert found["recipe"] == str(tmp_path / "recipe")
        model = (tmp_path / "recipe" / "model.tflite").stat().st_size
        assert model == found["picked"]["size_bytes"]
        checks = document("recipes-verify", tmp_path / "recipe", cwd=tmp_path)
        assert checks["ok"] is True
        names = {check["name"] for check in checks["checks"]}
        assert "candidate -> model.tflite" in names
        again = run("studies", "pick", STUDY, "--budget", "0.7x:int8", "--output", tmp_path / "recipe", "--store",
                    searched.store, cwd=tmp_path)
        assert again.returncode == 2
        assert "not empty; choose another, or replace the bundle (--overwrite)" in " ".join(again.stderr.split())

    @pytest.mark.parametrize(("arguments", "message"), [
        ((STUDY,), "pick by what? give --budget"),
        (("--budget", "1ms"), "which study? give its name once"),
        ((STUDY, "--study", STUDY, "--budget", "1ms"), "which study? give its name once"),
        ((STUDY, "--budget", "5m"), "--budget: expected a latency in ns, us, ms or s"),
        ((STUDY, "--require", "recall >= 0"), "--require 'recall': no such metric; measured are top1"),
        (("fronts", "--budget", "1ms"), "did you mean 'front'?"),
    ])
    def test_wrong_words_are_usage_errors(self, searched: Searched, arguments: tuple[str, ...], message: str) -> None:
        done = run("studies", "pick", *arguments, "--store", searched.store, cwd=searched.folder)
        assert done.returncode == 2
        assert message in done.stderr


class TestStopping:
    def test_an_unreachable_budget_ends_early_and_names_one_that_is_met(self, searched: Searched,
                                                                        tmp_path: Path) -> None:
        found, said = searched.quick("--budget", "0.05x", "--baselines", "needed", "--measurements", "40",
                                     "--sampler", "random", study="far", code=1, store=tmp_path)
        valid("search", found)
        assert found["stopped"]["why"] == "unreachable"
        assert found["measurements"] < 20
        assert found["outlook"] is None
        message = found["stopped"]["message"]
        assert message in said
        assert message.endswith("or --prune in a new study")
        suggestion = re.search(r"--budget ([0-9.]+x)", message)
        assert suggestion is not None
        again, said = searched.quick("--budget", suggestion[1], "--measurements", str(found["measurements"] + 2),
                                     "--resume", study="far", code=0, store=tmp_path)
        assert again["goal_met"] is True
        assert f"budget was 0.05x, now {suggestion[1]}" in said

    def test_little_to_expect_ends_it_and_resume_may_think_otherwise(self, searched: Searched, tmp_path: Path) -> None:
        found, said = searched.quick("--budget", "0.9x", "--baselines", "needed", "--sampler", "adaptive",
                                     "--stop-below", "0.9999", study="enough", code=0, store=tmp_path)
        assert found["stopped"]["why"] == "outlook"
        assert found["measurements"] < 30
        assert found["stop_below"] == 0.9999
        assert found["outlook"]["probability"] < 0.9999
        spent = found["measurements"]
        assert f"stopped after {spent} of 48 measurements: a further one improves top1 by more than 0.1 points" in said
        again, said = searched.quick("--stop-below", "0", "--measurements", str(spent + 2), "--resume", study="enough",
                                     code=0, store=tmp_path)
        assert again["stopped"]["why"] == "allowance"
        assert again["measurements"] == spent + 2
        assert "stop_below was 0.9999, now 0.0" in said


class TestContradictions:
    def test_a_size_below_the_weights_is_refused_before_a_study_begins(self, searched: Searched,
                                                                       tmp_path: Path) -> None:
        _, said = searched.quick("--size-budget", "5KB", study="tiny", code=2, store=tmp_path)
        assert "--size-budget 5KB (5.0 KB): every artifact of this network is larger than" in said
        assert "#0" not in said
        with Store.open(tmp_path) as store:
            assert store.studies() == ()

    def test_a_share_is_refused_once_its_baseline_is_known(self, searched: Searched, tmp_path: Path) -> None:
        _, said = searched.quick("--size-budget", "0.2x:int8", "--baselines", "needed", study="share", code=2,
                                 store=tmp_path)
        assert "--size-budget 0.2x:int8 (" in said
        assert "search --study share --resume --size-budget SIZE" in said

    def test_what_float32_itself_does_not_meet_is_refused_after_float32(self, searched: Searched,
                                                                        tmp_path: Path) -> None:
        _, said = searched.quick("--budget", "0.9x", "--require", "top1 >= 0.99 abs", study="high", code=2,
                                 store=tmp_path)
        assert "--require asks for top1 >= 0.9900, but float32 itself has 0.9" in said
        assert "#0" in said
        assert "#3" not in said

    def test_a_refused_resume_leaves_a_finished_study_as_it_was(self, searched: Searched, tmp_path: Path) -> None:
        searched.quick("--budget", "1s", "--baselines", "needed", "--measurements", "1", study="kept", code=0,
                       store=tmp_path)
        with Store.open(tmp_path) as store:
            before = store.study("kept")
        _, said = searched.quick("--require", "top1 >= 0.99 abs", "--resume", study="kept", code=2, store=tmp_path)
        assert "but float32 itself has 0.9" in said
        assert "is replaced" not in said
        with Store.open(tmp_path) as store:
            assert store.study("kept") == before
        assert before.status is StudyStatus.FINISHED
        assert before.document is not None


@pytest.mark.parametrize(("words", "message"), [
    (("--objective", "energy,latency"), "no board of this study measures energy; measured are latency, size and the "
                                        "quality metrics"),
    (("--objective", "accuracy,latency", "--sampler", "gp"), "the sampler gp looks for one best candidate, no front"),
    (("--stop-below", "2"), "--stop-below: expected a probability from 0"),
])
def test_bad_words_are_refused_before_anything_is_made(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run("search", "--device", "sim", *words, "--store", tmp_path / "store", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_nobody_measures_is_no_objective(searched: Searched, tmp_path: Path) -> None:
    _, said = searched.quick("--objective", "recall,latency", study="recall", code=2, store=tmp_path)
    assert "no board of this study measures recall; measured are latency, size and the quality metrics top1" in said
