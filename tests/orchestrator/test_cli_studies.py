"""The verbs over the store, run as a user runs them, on a store that a real search filled."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from jsonschema import Draft202012Validator

from orchestrator.schemas.files import DOCUMENTS, schema_of, schema_text
from orchestrator.store.places import DATABASE_NAME
from orchestrator.store.records import StudyStatus
from orchestrator.store.store import Store
from tests.orchestrator.made import Made, baselines, make_study, run

DOCS = Path(__file__).parents[2] / "docs"
STUDY = "found"


@dataclass(frozen=True, slots=True)
class Searched:
    """A store with one finished study, and what the search printed."""

    store: Path
    document: Any


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Search once, however many processes run the tests."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "searched"
    store, printed = place / "store", place / "printed.json"
    place.mkdir(exist_ok=True)
    with FileLock(place / "lock"):
        if not printed.exists():
            done = run("search", "--model", "demo:separable", "--device", "sim", "--budget", "0.7x", "--measurements",
                       "10", "--sampler", "tpe", "--study", STUDY, "--store", store, "--format", "json", cwd=place,
                       timeout_s=300)
            assert done.returncode == 0, done.stderr
            assert "latencies are simulated (a roofline model), not measured" in done.stderr
            printed.write_text(done.stdout)
    return Searched(store, json.loads(printed.read_text()))


@pytest.fixture
def own(searched: Searched, tmp_path: Path) -> Path:
    """A copy of the store that a test may change."""
    return Path(shutil.copytree(searched.store, tmp_path / "own"))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "made") as store:
        yield store


def document(verb: str, *arguments: str | Path, cwd: Path, code: int = 0) -> Any:
    """Run a verb with --format json, and hold what it prints against its schema."""
    done = run(*verb.split("-"), *arguments, "--format", "json", cwd=cwd)
    assert done.returncode == code, done.stderr
    printed = json.loads(done.stdout)
    valid(verb, printed)
    return printed


def valid(verb: str, printed: Any) -> None:
    Draft202012Validator(schema_of(verb)).validate(printed)
    reasons_match(printed)


def files(store: Path) -> dict[Path, int]:
    """Return the sizes of a store's files without the database's."""
    return {file: file.stat().st_size for file in store.rglob("*")
            if file.is_file() and not file.name.startswith(DATABASE_NAME)}


def reasons_match(node: Any) -> None:
    """A reason stands exactly where a value is missing."""
    if isinstance(node, list):
        for item in node:
            reasons_match(item)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        reasons_match(value)
        if key.endswith("_absent_because"):
            stem = key.removesuffix("_absent_because")
            missing = [name for name in node if name.startswith(stem) and name != key and node[name] is None]
            assert missing or (stem == "test" and node["accuracy"]["test"] is None) or stem == "result", node
    for name in ("energy_j", "recipe", "probability_met", "path", "search"):
        if name in node and node[name] is None and not {"study", "status"} & node.keys():
            assert any(key.endswith("_absent_because") for key in node), node


class TestDocuments:
    def test_a_search_prints_what_its_schema_says(self, searched: Searched) -> None:
        valid("search", searched.document)
        assert searched.document["simulated"] is True
        assert searched.document["measurements"] == 10

    def test_an_unknown_key_or_a_missing_one_is_an_error(self, searched: Searched) -> None:
        check = Draft202012Validator(schema_of("search"))
        assert not check.is_valid({**searched.document, "extra": 1})
        less = dict(searched.document)
        del less["winner"]
        assert not check.is_valid(less)

    def test_studies_list(self, searched: Searched, tmp_path: Path) -> None:
        (study,) = document("studies-list", "--store", searched.store, cwd=tmp_path)["studies"]
        winner = searched.document["winner"]
        assert study["name"] == STUDY
        assert study["status"] == "FINISHED"
        assert study["trials"]["complete"] == 10
        assert study["winner"]["latency_s"] == winner["latency_s"]["median"]
        assert study["recipe"] == str(searched.store / "recipes" / STUDY)

    def test_studies_show_repeats_the_search_and_lists_every_trial(self, searched: Searched, tmp_path: Path) -> None:
        shown = document("studies-show", STUDY, "--store", searched.store, cwd=tmp_path)
        assert shown["search"] == searched.document
        found = {trial["candidate_id"]: trial["result"] for trial in shown["trials"]}
        assert len(found) == 10
        for entry in (*searched.document["baselines"], *searched.document["seeds"]):
            assert found[entry["candidate_id"]] == entry

    def test_studies_pareto_is_a_front(self, searched: Searched, tmp_path: Path) -> None:
        front = document("studies-pareto", STUDY, "--store", searched.store, cwd=tmp_path)
        assert front["simulated"] is True
        points = [(e["latency_s"]["median"], e["accuracy"]["validation"]) for e in front["pareto"]]
        assert points == sorted(points)
        assert len({quality for _, quality in points}) == len(points)

    def test_an_unfinished_study_says_why_it_has_no_result(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "half", [*baselines(), Made(40.0, {"top1": 0.8}, infeasible="it returned NaN")],
                   {"budget": "0.6x"})
        shown = document("studies-show", "half", "--store", made.folder, cwd=tmp_path)
        assert shown["search"] is None
        assert "--resume" in shown["search_absent_because"]
        assert [trial["feasible"] for trial in shown["trials"]] == [False, False, True, None]
        assert shown["trials"][3]["reason"] == "it returned NaN"

    def test_recipes_and_doctor(self, searched: Searched, tmp_path: Path) -> None:
        (recipe,) = document("recipes-list", "--store", searched.store, cwd=tmp_path)["recipes"]
        assert Path(recipe["path"], "recipe.yaml").is_file()
        checks = document("doctor", "--store", searched.store, cwd=tmp_path)["checks"]
        assert {"python", "package names", "dependencies", "store", "inventory", "load"} <= {c["name"] for c in checks}

    def test_a_store_that_is_not_there_is_empty_and_is_not_made(self, tmp_path: Path) -> None:
        for verb in ("studies-list", "recipes-list"):
            listed = document(verb, "--store", tmp_path / "none", cwd=tmp_path)
            assert not listed[verb.partition("-")[0]]
        assert run("studies", "show", "x", "--store", tmp_path / "none", cwd=tmp_path).returncode == 2
        assert not (tmp_path / "none").exists()


class TestSchemaFiles:
    @pytest.mark.parametrize("verb", DOCUMENTS)
    def test_is_up_to_date(self, verb: str) -> None:
        file = DOCS / "schemas" / f"{verb}.schema.json"
        assert file.read_text("utf-8") == schema_text(verb), "run: python -m orchestrator.schemas docs/schemas"

    @pytest.mark.parametrize("verb", DOCUMENTS)
    def test_every_key_is_documented(self, verb: str) -> None:
        text = (DOCS / "json.md").read_text("utf-8")
        schema = schema_of(verb)
        keys = {key for part in (schema, *schema.get("$defs", {}).values()) for key in part.get("properties", {})}
        assert f"schemas/{verb}.schema.json" in text
        assert not {key for key in keys if f"`{key}`" not in text}


class TestTables:
    def test_fit_80_columns_and_keep_long_names_whole(self, made: Store, tmp_path: Path) -> None:
        name = "a-study-with-a-name-that-is-much-too-long-for-one-column-of-a-table"
        make_study(made, name, [*baselines(), Made(70.0, {"top1": 0.89}, infeasible="the runtime refuses it: " * 9)],
                   {"model": "package.module.with.many.parts:factory", "budget": "0.8x"})
        for verb in ("list", "show", "pareto"):
            arguments = () if verb == "list" else (name,)
            printed = run("studies", verb, *arguments, "--store", made.folder, cwd=tmp_path).stdout
            lines = [line for line in printed.splitlines() if "--resume" not in line]  # a command is never broken
            assert max(map(len, lines)) <= 80, printed
            if verb == "list":
                assert name in printed.splitlines()

    def test_the_usual_names_are_whole_in_80_columns(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "20261121-133255", baselines(), {"model": "demo:transformer", "device": "local"})
        printed = run("studies", "list", "--store", made.folder, cwd=tmp_path).stdout.splitlines()
        assert max(map(len, printed)) <= 80
        assert printed[1].split()[:5] == ["20261121-133255", "demo:transformer", "local", "3", "interrupted"]

    def test_the_command_that_continues_a_study_is_one_line(self, made: Store, tmp_path: Path) -> None:
        name = "a-study-with-a-name-that-is-much-too-long-for-one-column-of-a-table"
        make_study(made, name, baselines())
        shown = document("studies-show", name, "--store", made.folder, cwd=tmp_path)["search_absent_because"]
        printed = run("studies", "show", name, "--store", made.folder, cwd=tmp_path).stdout.splitlines()
        assert "No result: it was interrupted" in printed
        (hint,) = [line for line in printed if "--resume" in line]
        assert shown == f"it was interrupted; {hint}"

    def test_an_unfinished_simulated_study_says_so(self, own: Path, tmp_path: Path) -> None:
        with sqlite3.connect(own / DATABASE_NAME) as database:
            database.execute("UPDATE study SET status = 'INTERRUPTED', document = NULL")
            database.execute("UPDATE trial SET state = 'RUNNING' WHERE number = 2")
        database.close()
        printed = run("studies", "show", STUDY, "--store", own, cwd=tmp_path).stdout
        assert "No result" in printed
        assert "1 unfinished" in printed
        assert "Latencies are simulated (a roofline model), not measured." in printed

    def test_show_prints_the_result_and_the_reasons(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "half", [*baselines(), Made(1.0, {}, infeasible="it returned NaN")], {"budget": "0.6x"})
        printed = run("studies", "show", "half", "--store", made.folder, cwd=tmp_path).stdout
        assert "interrupted" in printed
        assert "The best so far is int8." in printed
        assert "infeasible: it returned NaN" in printed

    def test_says_that_latencies_are_simulated(self, searched: Searched, tmp_path: Path) -> None:
        for verb in (("studies", "list"), ("studies", "pareto", STUDY), ("recipes", "list")):
            assert "simulated" in run(*verb, "--store", searched.store, cwd=tmp_path).stdout, verb


class TestPlot:
    def test_writes_pictures_and_a_page(self, searched: Searched, tmp_path: Path) -> None:
        plotted = document("studies-plot", STUDY, "--store", searched.store, "--output", tmp_path / "p", cwd=tmp_path)
        assert [Path(file["path"]).name for file in plotted["files"]] == [
            f"{STUDY}-pareto.png", f"{STUDY}-progress.png", f"{STUDY}-layers.png", f"{STUDY}.html"]
        assert all(Path(file["path"]).stat().st_size > 10_000 for file in plotted["files"])
        assert "(simulated)" in (tmp_path / "p" / f"{STUDY}.html").read_text("utf-8")

    def test_a_study_without_measurements_has_no_pictures(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "empty", [])
        plotted = document("studies-plot", "empty", "--store", made.folder, cwd=tmp_path, code=1)
        assert plotted["files"] == []
        assert set(plotted["absent"].values()) == {"nothing was measured yet"}

    def test_a_folder_that_cannot_be_made(self, searched: Searched, tmp_path: Path) -> None:
        done = run("studies", "plot", STUDY, "--store", searched.store, "--output", "/dev/null/x", cwd=tmp_path)
        assert done.returncode == 2
        assert "/dev/null/x" in done.stderr


class TestRemove:
    @pytest.mark.parametrize("answer", ["n\n", ""])
    def test_keeps_the_study_without_a_yes(self, made: Store, tmp_path: Path, answer: str) -> None:
        make_study(made, "kept", baselines())
        done = run("studies", "rm", "kept", "--store", made.folder, cwd=tmp_path, answer=answer)
        assert done.returncode == 1
        assert "3 trials" in done.stderr
        assert "nothing was deleted" in done.stderr
        assert made.study("kept").name == "kept"

    def test_takes_everything_along(self, own: Path, tmp_path: Path) -> None:
        with Store.open(own) as store:
            artifacts = [trial.artifact_sha256 for trial in store.trials(store.study(STUDY).id)]
        before = files(own)
        done = run("studies", "remove", STUDY, "--yes", "--store", own, "--format", "json", cwd=tmp_path)
        removed = json.loads(done.stdout)
        valid("studies-rm", removed)
        gone = before.keys() - files(own).keys()
        assert removed["trials"] == 10
        assert removed["bytes_freed"] == sum(before[file] for file in gone)
        assert removed["files"] == len(gone)
        assert set(artifacts) <= {file.name for file in gone}
        assert not (own / "recipes" / STUDY).exists()
        assert not (own / "logs" / f"{STUDY}.log").exists()
        assert document("studies-list", "--store", own, cwd=tmp_path)["studies"] == []

    def test_asks_and_leaves_other_studies_alone(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "one", baselines())
        make_study(made, "two", baselines())
        done = run("studies", "rm", "one", "--store", made.folder, cwd=tmp_path, answer="y\n")
        assert done.returncode == 0, done.stderr  # `rm` is understood too
        assert "freed" in done.stdout
        assert [study.name for study in made.studies()] == ["two"]
        kept = [trial.artifact_sha256 for trial in made.trials(made.study("two").id)]
        assert all(sha256 is not None and made.blobs.has(sha256) for sha256 in kept)

    def test_refuses_while_a_controller_works_on_it(self, made: Store, tmp_path: Path) -> None:
        study = make_study(made, "busy", baselines())
        made.claim(study.id)
        done = run("studies", "rm", "busy", "--yes", "--store", made.folder, cwd=tmp_path)
        assert done.returncode == 2
        assert "in use by process" in done.stderr
        made.release(study.id, StudyStatus.INTERRUPTED)

    def test_a_name_with_a_path_never_leaves_the_store(self, made: Store, tmp_path: Path) -> None:
        outside = made.folder / "outside"
        outside.mkdir()
        (made.folder / "recipes").mkdir()
        make_study(made, "../outside", [], {"study": "x"})
        assert run("studies", "rm", "../outside", "--yes", "--store", made.folder, cwd=tmp_path).returncode == 0
        assert outside.is_dir()


class TestRecipes:
    def test_export_verify_and_a_damaged_byte(self, searched: Searched, tmp_path: Path) -> None:
        exported = document("recipes-export", "--study", STUDY, "--output", "out", "--store", searched.store,
                            cwd=tmp_path)
        assert exported["files"] == len(list((tmp_path / "out").iterdir())) == 7
        assert document("recipes-verify", "out", cwd=tmp_path)["ok"] is True
        assert run("recipes", "verify", "out", cwd=tmp_path).stderr == "", "native libraries are silent"
        model = tmp_path / "out" / "model.tflite"
        model.write_bytes(model.read_bytes()[:-1] + b"X")
        verified = document("recipes-verify", "out", cwd=tmp_path, code=1)
        assert [check["name"] for check in verified["checks"] if not check["ok"]] == ["model.tflite"]

    def test_a_damaged_recipe_fails_and_no_recipe_is_usage(self, searched: Searched, tmp_path: Path) -> None:
        bundle = Path(shutil.copytree(searched.store / "recipes" / STUDY, tmp_path / "bundle"))
        (bundle / "recipe.yaml").write_text("schema: 1\n")
        assert document("recipes-verify", bundle, cwd=tmp_path, code=1)["ok"] is False
        done = run("recipes", "verify", tmp_path, cwd=tmp_path)
        assert done.returncode == 2
        assert "recipes export" in done.stderr

    def test_a_taken_folder_needs_overwrite_and_foreign_files_stay(self, searched: Searched, tmp_path: Path) -> None:
        arguments = ("recipes", "export", "--study", STUDY, "--output", tmp_path / "out", "--store", searched.store)
        (tmp_path / "out").mkdir()
        assert run(*arguments, cwd=tmp_path).returncode == 0
        (tmp_path / "out" / "model.tflite").write_bytes(b"old")
        refused = run(*arguments, cwd=tmp_path)
        assert refused.returncode == 2
        assert "--overwrite" in refused.stderr
        assert (tmp_path / "out" / "model.tflite").read_bytes() == b"old"
        assert run(*arguments, "--overwrite", cwd=tmp_path).returncode == 0
        assert (tmp_path / "out" / "model.tflite").read_bytes() != b"old"
        (tmp_path / "out" / "thesis.tex").write_text("mine")
        assert run(*arguments, "--overwrite", cwd=tmp_path).returncode == 2
        assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"
        assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]

    def test_a_study_without_a_winner(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "half", baselines())
        done = run("recipes", "export", "--study", "half", "--output", "out", "--store", made.folder, cwd=tmp_path)
        assert done.returncode == 2
        assert "has no recipe yet: it was interrupted" in done.stderr
        assert not (tmp_path / "out").exists()


class TestMessages:
    def test_an_unknown_study_names_the_nearest(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "residual-1", baselines())
        for verb in (("studies", "pareto", "residual-2"), ("studies", "rm", "residual-2", "--yes"),
                     ("recipes", "export", "--study", "residual-2", "--output", "x")):
            done = run(*verb, "--store", made.folder, cwd=tmp_path)
            assert done.returncode == 2, verb
            assert "did you mean 'residual-1'?" in done.stderr
            assert "Traceback" not in done.stderr
            assert done.stdout == ""

    def test_an_unknown_metric_names_the_measured_ones(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "s", [Made(1.0, {"top1": 0.5, "recall": 0.4})])
        done = run("studies", "pareto", "s", "--metric", "top5", "--store", made.folder, cwd=tmp_path)
        assert done.returncode == 2
        assert "recall, top1" in done.stderr

    def test_says_when_the_objective_is_not_known_yet(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "s", [Made(1.0, {"top1": 0.5, "recall": 0.4})])
        done = run("studies", "pareto", "s", "--store", made.folder, cwd=tmp_path)
        assert "this is recall, others are top1" in done.stderr
        assert run("studies", "pareto", "s", "--metric", "top1", "--store", made.folder, cwd=tmp_path).stderr == ""

    def test_a_reader_that_goes_away_and_a_full_disk(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "s", baselines(), layers=200)
        command = f"{sys.executable} -m orchestrator.cli.app studies show s --format json --store {made.folder}"
        gone = subprocess.run(["bash", "-c", f"set -o pipefail; {command} | true"], capture_output=True, text=True,
                              check=False, cwd=tmp_path)
        assert gone.stderr == ""
        full = subprocess.run(["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False,
                              cwd=tmp_path)
        assert full.returncode == 2
        assert "No space left" in full.stderr
        assert "defect" not in full.stderr

    def test_the_version(self, tmp_path: Path) -> None:
        assert run("--version", cwd=tmp_path).stdout == f"orchestrator {version('hil-orchestrator')}\n"

    def test_an_unknown_format_is_refused_in_our_own_words(self, tmp_path: Path) -> None:
        done = run("studies", "list", "--format", "xml", cwd=tmp_path)
        assert done.returncode == 2
        assert "Invalid value for '--format': expected text or json, got 'xml'" in done.stderr

    def test_looking_at_studies_imports_no_proposer(self, made: Store, tmp_path: Path) -> None:
        make_study(made, "s", baselines())
        code = ("import sys; from orchestrator.cli.app import app; "
                f"app(['studies', 'list', '--store', {str(made.folder)!r}], standalone_mode=False); "
                "print({'optuna', 'paramiko', 'torch', 'matplotlib', 'alembic'} & set(sys.modules))")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert done.stdout.splitlines()[-1] == "set()"

    def test_help_imports_nothing_heavy(self) -> None:
        code = ("import sys, orchestrator.cli.app; print({'numpy', 'matplotlib', 'plotly', 'sqlalchemy', 'optuna', "
                "'paramiko', 'pydantic', 'torch'} & set(sys.modules))")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"
