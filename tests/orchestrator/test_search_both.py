"""One search over two compilers on this machine: what is measured, resumed, shown, shipped and refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from orchestrator.pick import pick
from orchestrator.schemas.files import schema_of
from orchestrator.store.records import StudyRecord, TrialHistory
from orchestrator.store.store import Store
from orchestrator.stored_recipe import export_picked
from orchestrator.study_view import view_of
from search.candidate import candidate_in
from tests.orchestrator.made import run
from tests.orchestrator.searches import once

LIMIT_S = 300.0
OTHER = {"tflite": "tvm", "tvm": "tflite"}
ARTIFACT = {"tflite": "model.tflite", "tvm": "model.so"}
WORDS = ("--compiler", "tvm,tflite", "--device", "local", "--model", "demo:separable", "--budget", "0.9x",
         "--baselines", "needed")


@dataclass(frozen=True)
class Searched:
    """A study of two compilers, as it was printed before and after --resume."""

    folder: Path
    first: Any
    document: Any

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def cli(self, *arguments: str | Path, code: int = 0) -> str:
        done = run(*arguments, cwd=self.folder, timeout_s=LIMIT_S)
        assert done.returncode == code, done.stderr
        return done.stdout

    def histories(self) -> tuple[StudyRecord, tuple[TrialHistory, ...]]:
        with Store.open(self.store) as store:
            record = store.study("both")
            return record, store.histories(record.id)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Measure float32 of both and three candidates; then go on with two more. Once in a test run."""
    folder, lock = once(tmp_path_factory, "both")
    printed = folder / "printed.json"
    with lock:
        if not printed.exists():
            folder.mkdir()
            printed.write_text(json.dumps([searching(folder, *more) for more in (
                (*WORDS, "--measurements", "5"), ("--resume", "--measurements", "7"))]))
    return Searched(folder, *json.loads(printed.read_text()))


def searching(folder: Path, *words: str) -> Any:
    done = run("search", *words, "--study", "both", "--store", folder / "store", "--format", "json", cwd=folder,
               timeout_s=LIMIT_S)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_both_are_measured_by_one_goal_and_one_allowance(searched: Searched) -> None:
    document = searched.document
    jsonschema.validate(document, schema_of("search"))
    assert document["compiler"] == "tflite,tvm", "in whatever order they are given"
    assert [entry["name"] for entry in document["baselines"]] == ["float32", "tvm:float32"]
    assert [entry["compiler"] for entry in document["baselines"]] == ["tflite", "tvm"]
    shares = {own["name"]: own["measurements"] for own in document["compilers"]}
    assert sum(shares.values()) == document["measurements"] == 7
    assert min(shares.values()) >= 3, "little is known of both"
    assert {own["name"]: own["runtime"]["name"] for own in document["compilers"]} == {"tflite": "litert", "tvm": "tvm"}
    winner, float32 = document["winner"], document["baselines"][0]
    assert document["budget"]["latency_s"] == pytest.approx(0.9 * float32["latency_s"]["median"])
    assert document["runtime"]["name"] == {"tflite": "litert", "tvm": "tvm"}[winner["compiler"]]
    assert winner["accuracy"]["test"] > float32["accuracy"]["test"] - 0.03


def test_every_candidate_was_measured_and_evaluated_in_its_own_compilers_runtime(searched: Searched) -> None:
    record, histories = searched.histories()
    for history in histories:
        own = {"tflite": "litert", "tvm": "tvm"}[candidate_in(record.spaces, history.trial.candidate).compiler]
        assert {m.measurement.runtime for m in history.measurements} == {own}
        assert {evaluation.runtime for evaluation in history.evaluations} == {own}
    assert list(record.spaces) == ["tflite", "tvm"]
    assert record.spaces["tflite"].layers != record.spaces["tvm"].layers


def test_a_resumed_study_repeats_nothing(searched: Searched) -> None:
    _, histories = searched.histories()
    ids = [history.trial.candidate_id for history in histories]
    assert len(ids) == len(set(ids))
    assert searched.first["measurements"] == 5
    assert [h.trial.candidate_id for h in histories[:2]] == [e["candidate_id"] for e in searched.first["baselines"]]


def test_the_winners_recipe_and_that_of_the_other_compiler_are_verified(searched: Searched, tmp_path: Path) -> None:
    winner = searched.document["winner"]["compiler"]
    searched.cli("recipes", "export", "--study", "both", "--output", tmp_path / "winner", "--store", searched.store)
    with Store.open(searched.store) as store:
        view = view_of(store, "both")
        nearest = pick(store, view, {"budget": "10s"})
        point = next(p for p in view.points if p.compiler == OTHER[winner])
        export_picked(store, view, replace(nearest, point=point), tmp_path / "other")
    for name, compiler in (("winner", winner), ("other", OTHER[winner])):
        recipe = yaml.safe_load((tmp_path / name / "recipe.yaml").read_text())
        assert (recipe["compiler"], recipe["target"]["runtime"]) == (compiler, {"tflite": "litert",
                                                                                "tvm": "tvm"}[compiler])
        assert ("litert-torch" in recipe["tools"], "apache-tvm" in recipe["tools"]) == (
            compiler == "tflite", compiler == "tvm")
        assert (tmp_path / name / ARTIFACT[compiler]).is_file()
        verified = json.loads(searched.cli("recipes", "verify", tmp_path / name, "--format", "json"))
        assert verified["ok"], verified


def test_studies_show_pareto_pick_and_plots_say_the_compiler(searched: Searched, tmp_path: Path) -> None:
    shown = json.loads(searched.cli("studies", "show", "both", "--store", searched.store, "--format", "json"))
    jsonschema.validate(shown, schema_of("studies-show"))
    assert shown["config"]["compiler"] == ["tflite", "tvm"]
    assert [space["compiler"] for space in shown["search_space"]["spaces"]] == ["tflite", "tvm"]
    assert {trial["compiler"] for trial in shown["trials"]} == {"tflite", "tvm"}
    assert shown["search"] == searched.document
    text = searched.cli("studies", "show", "both", "--store", searched.store)
    counted = Counter(own["name"] for own in searched.document["compilers"] for _ in range(own["measurements"]))
    assert f"Measurements: tflite {counted['tflite']}, tvm {counted['tvm']}" in text
    assert f"({searched.document['winner']['compiler']})" in text
    other = next(trial for trial in shown["trials"] if trial["role"] == "search" and trial["compiler"] == "tvm")
    assert f"tvm:{other['candidate_id']}" in text
    for verb, words in (("pareto", ()), ("pick", ("--budget", "10s"))):
        document = json.loads(searched.cli("studies", verb, "both", *words, "--store", searched.store, "--format",
                                           "json"))
        jsonschema.validate(document, schema_of(f"studies-{verb}"))
        assert document["compilers"] == ["tflite", "tvm"]
    searched.cli("studies", "plot", "both", "--output", tmp_path, "--store", searched.store)
    page = (tmp_path / "both.html").read_text()
    assert "candidates, tvm" in page and "candidates, tflite" in page


def test_the_optuna_journal_has_the_compiler_as_a_parameter(searched: Searched) -> None:
    record, histories = searched.histories()
    journal = searched.store / "journals" / f"{record.id}.log"
    study = optuna.load_study(study_name="both", storage=JournalStorage(JournalFileBackend(str(journal))))
    assert [trial.params["compiler"] for trial in study.trials] == [
        json.loads(history.trial.candidate)["compiler"] for history in histories]
    for trial in study.trials:
        own = trial.params["compiler"]
        assert {name.partition(":")[0] for name in trial.params} == {"compiler", own}
    assert study.best_trials


def test_what_may_not_change_on_resume_is_said(searched: Searched) -> None:
    done = run("search", "--study", "both", "--resume", "--compiler", "tvm", "--store", searched.store,
               cwd=searched.folder, timeout_s=LIMIT_S)
    assert done.returncode == 2
    assert "compiler (it has ['tflite', 'tvm'], asked for is tvm)" in done.stderr


def test_a_dry_run_shows_both(tmp_path: Path) -> None:
    words = ("search", *WORDS, "--dry-run", "--store", tmp_path / "store")
    done = run(*words, "--format", "json", cwd=tmp_path, timeout_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, schema_of("search-dry-run"))
    one, two = document["compilers"]
    assert (one["name"], two["name"], two["baselines"]) == ("tflite", "tvm", ["tvm:float32"])
    assert document["layers"] == one["layers"] != two["layers"]
    assert document["float32"] == one["float32"] != two["float32"]
    assert not list((tmp_path / "store").glob("recipes/*"))


@pytest.mark.parametrize(("words", "message"), [
    (("--device", "sim"), "the simulated board knows LiteRT's times alone"),
    (("--threads", "2"), "tvm's kernels have one thread"),
    (("--io", "int8"), "--compiler tflite alone"),
    (("--model", "net.tflite", "--data", "d.py:make"), "a .tflite model is LiteRT's own, and tvm cannot import it; "
     "give the network as FILE.py:FACTORY, .pt2 or .onnx, or take --compiler tflite alone")])
def test_what_one_of_them_cannot_do_is_refused_before_anything_is_made(words: tuple[str, ...], message: str,
                                                                      tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"")
    (tmp_path / "d.py").touch()
    done = run("search", "--compiler", "tflite,tvm", *words, "--study", "no", "--store", tmp_path / "store",
               cwd=tmp_path, timeout_s=LIMIT_S)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


NETS = '''
import torch

class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(33, 4)

    def forward(self, x):
        return self.head(torch.fft.rfft(x.flatten(1)).abs())

def odd():
    torch.manual_seed(0)
    return Odd()

def usual():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 4))
'''
DATA = '''
import numpy as np

def made(seed):
    dice = np.random.default_rng(seed)
    inputs = [dice.normal(size=(count, 1, 8, 8)).astype(np.float32) for count in (16, 32, 32)]
    return {"calibration": inputs[0], **{name: (x, dice.integers(0, 4, len(x)))
                                         for name, x in zip(("validation", "test"), inputs[1:])}}

def same():
    return made(0)

def other_every_time():
    return made(None)
'''


def refused(folder: Path, model: str, data: str) -> str:
    """Search such a network over both compilers; return what is said, in one line."""
    (folder / "nets.py").write_text(NETS)
    (folder / "data.py").write_text(DATA)
    done = run("search", "--compiler", "tflite,tvm", "--model", f"nets.py:{model}", "--data", f"data.py:{data}",
               "--study", "no", "--store", folder / "store", cwd=folder, timeout_s=LIMIT_S)
    assert done.returncode == 2, done.stderr
    return " ".join(done.stderr.split())


def test_a_network_that_a_compiler_cannot_import_says_how_to_search_without_it(tmp_path: Path) -> None:
    said = refused(tmp_path, "odd", "same")
    assert "orchestrator: tflite: " in said
    assert said.endswith("; to search without it: --compiler tvm")


def test_data_that_differ_every_time_are_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "usual", "other_every_time")
    assert "must give the same data every time; calibration, validation, test differ: fix the seeds" in said
