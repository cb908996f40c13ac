"""A whole search with the compiler tvm on this machine, and what it cannot do yet."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.schemas.files import schema_of
from tests.orchestrator.made import run

LIMIT_S = 300.0


def tune(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Tune the separable network on this machine."""
    done = run("tune", "--model", "demo:separable", *words, "--store", folder / "store", "--format", "json", cwd=folder,
               timeout_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), schema_of("tune"))
    return done


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("tvm")
    (folder / "tuned.json").write_text(tune(folder, "--schemes", "w8a8,w4a8").stdout)
    done = run("search", "--compiler", "tvm", "--device", "local", "--model", "demo:separable", "--budget", "0.8x",
               "--baselines", "needed", "--sampler", "hawq", "--measurements", "5", "--study", "tvm",
               "--store", folder / "store", "--format", "json", cwd=folder, timeout_s=LIMIT_S)
    assert done.returncode in (0, 1), done.stderr
    return folder, json.loads(done.stdout)


def test_the_document_says_what_was_measured(searched: tuple[Path, Any]) -> None:
    document = searched[1]
    jsonschema.validate(document, schema_of("search"))
    assert document["compiler"] == "tvm"
    assert document["runtime"]["name"] == "tvm"
    assert document["measurements"] == 5
    assert not document["infeasible"]
    float32, winner = document["baselines"][0], document["winner"]
    assert winner["latency_s"]["median"] < 0.9 * float32["latency_s"]["median"], "integers pay on this machine"
    assert winner["accuracy"]["test"] > float32["accuracy"]["test"] - 0.03
    assert 1e-6 < winner["latency_s"]["median"] < 0.1


def test_the_recipe_is_exported_verified_and_runs_by_its_readme(searched: tuple[Path, Any]) -> None:
    folder, document = searched
    out = folder / "out"
    done = run("recipes", "export", "--study", "tvm", "--output", out, "--store", folder / "store", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (out / "model.so").stat().st_size == document["winner"]["size_bytes"]
    verified = run("recipes", "verify", out, "--format", "json", cwd=folder, timeout_s=LIMIT_S)
    assert (verified.returncode, json.loads(verified.stdout)["ok"]) == (0, True)
    code = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[0]
    ran = subprocess.run([sys.executable, "-I", "-c", code], cwd=out, capture_output=True, text=True, timeout=LIMIT_S)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("[[")


def test_kernels_are_tuned_once_and_searches_use_it(searched: tuple[Path, Any]) -> None:
    folder = searched[0]
    first = json.loads((folder / "tuned.json").read_text())
    assert first["planned"] == first["measured"] == len(first["kernels"]) > 5
    assert (first["known"], first["infeasible"], first["kind"]) == (0, 0, "local")
    for kernel in first["kernels"]:
        assert 0 < kernel["tuned_s"] <= kernel["default_s"] < 1e-3
        assert kernel["code_bytes"] > 100
    later = json.loads(tune(folder, "--dry-run").stdout)
    assert (later["known"], later["measured"]) == (first["planned"], 0)
    assert later["planned"] > later["known"], "float32 and 2 bits were not asked for"
    assert later["kernels"] == first["kernels"]
    assert tune(folder, "--schemes", "w8a8").stderr == ""


def test_the_bundle_has_the_tiles_that_differ(searched: tuple[Path, Any]) -> None:
    folder = searched[0]
    tuned = json.loads((folder / "tuned.json").read_text())["kernels"]
    differ = {kernel["kernel"] for kernel in tuned if kernel["tuned_s"] < kernel["default_s"]}
    file = folder / "store" / "recipes" / "tvm" / "schedules.json"
    found = set(json.loads(file.read_text())["tiles"]) if file.exists() else set()
    assert found == differ


def test_the_times_of_its_layers_add_up_to_its_latency(searched: tuple[Path, Any]) -> None:
    folder, document = searched
    shown = run("studies", "layers", "tvm", "--store", folder / "store", "--format", "json", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    jsonschema.validate(found, schema_of("studies-layers"))
    times = {row["layer"]: row["latency_s"] for row in found["layers"]}
    assert sum(times.values()) == pytest.approx(found["latency_s"])
    assert found["latency_s"] == pytest.approx(document["winner"]["latency_s"]["median"], rel=0.3)
    assert {row["layer"] for row in found["layers"] if row["config"]} >= {"stem.0", "head"}
    assert all(row["beside_s"] > 0 for row in found["layers"] if row["config"]), "float32 is measured beside it"
    text = run("studies", "layers", "tvm", "--candidate", "float32", "--store", folder / "store", cwd=folder)
    assert max(map(len, text.stdout.splitlines())) <= 80
    assert "float32: " in text.stdout


def test_another_candidate_is_picked_with_its_recipe(searched: tuple[Path, Any]) -> None:
    folder, document = searched
    done = run("studies", "pick", "tvm", "--max-drop", "100", "--output", folder / "picked", "--store",
               folder / "store", "--format", "json", cwd=folder, timeout_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((folder / "picked" / "recipe.yaml").read_text())["compiler"] == document["compiler"]
    verified = run("recipes", "verify", folder / "picked", cwd=folder, timeout_s=LIMIT_S)
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize(("words", "message"), [
    (("--device", "sim"), "the simulated board knows LiteRT's times alone"),
    (("--threads", "2"), "its kernels have one thread"),
    (("--io", "int8"), "inputs and outputs are float")])
def test_what_is_not_possible_yet_is_refused_before_anything_is_made(words: tuple[str, ...], message: str,
                                                                     tmp_path: Path) -> None:
    done = run("search", "--compiler", "tvm", *words, "--study", "no", "--store", tmp_path / "store", cwd=tmp_path,
               timeout_s=LIMIT_S)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
