"""A user's ONNX file from the command line, with both compilers."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from orchestrator.store.store import Store
from tests.orchestrator.made import run
from tests.recipes.onnx.graphs import exported

LIMIT_S = 240.0
DATA = """
import numpy as np

def split(seed):
    numbers = np.random.default_rng(seed)
    return {"image": numbers.normal(size=(40, 3, 8, 8)).astype(np.float32)}, numbers.integers(0, 3, 40)

def make(): return {"calibration": split(1)[0], "validation": split(2), "test": split(3)}
"""
LAYERS = {"tflite": {"body.0", "body.2", "mean", "head"}, "tvm": {"body.0", "body.2", "head"}}


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(nn.functional.adaptive_avg_pool2d(self.body(image), 1).flatten(1))
        return logits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    exported(Net(), {"image": np.zeros((1, 3, 8, 8), np.float32)}, tmp_path)
    (tmp_path / "data.py").write_text(DATA)
    return tmp_path


def search(folder: Path, *words: str) -> tuple[int, str, str]:
    done = run("search", "--model", "net.onnx", "--data", "data.py:make", "--device", "local", "--sampler", "random",
               "--max-drop", "100", "--store", folder / "store", *words, cwd=folder, timeout_s=LIMIT_S)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("compiler", ["tflite", "tvm"])
def test_a_search_begins_from_an_onnx_file(compiler: str, folder: Path) -> None:
    code, stdout, stderr = search(folder, "--compiler", compiler, "--baselines", "needed", "--measurements", "3",
                                  "--format", "json")
    assert code == 0, stderr
    found = json.loads(stdout)
    assert found["model"] == "net.onnx"
    assert set(found["winner"]["layers"]) == LAYERS[compiler]
    recipe = yaml.safe_load(next((folder / "store" / "recipes").glob("*/recipe.yaml")).read_text())
    assert recipe["tools"]["onnx"] == version("onnx")


def test_a_dry_run_names_the_layers_and_says_why_none_is_pruned(folder: Path) -> None:
    code, stdout, stderr = search(folder, "--dry-run", "--prune", "--format", "json")
    assert code == 0, stderr
    assert {layer["name"] for layer in json.loads(stdout)["layers"]} == LAYERS["tflite"]
    assert "an ONNX graph has fixed shapes; give the network as FILE.py:FACTORY" in " ".join(stderr.split())


def test_what_is_wrong_is_said_in_one_line_and_no_study_is_left(folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(path.read_bytes()[:-30])
    code, _, stderr = search(folder)
    said = [line for line in stderr.splitlines() if not line.startswith("[")]
    assert code == 2
    assert len(said) == 1
    assert said[0].startswith("orchestrator: net.onnx: not an ONNX file, or cut short (")
    with Store.open(folder / "store") as store:
        assert not list(store.studies())
