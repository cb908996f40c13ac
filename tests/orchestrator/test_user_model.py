"""A user's own model, from the command line: templates that work, and what is wrong in one line with exit code 2."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from orchestrator.config import load_config, study_schema
from orchestrator.errors import UsageError
from orchestrator.schemas.files import schema_of
from orchestrator.store.store import Store
from tests.profilers.tiny_model import dense_bytes

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "study.schema.json"
LIMIT_S = 240
BUSY_S = 180
"""Another test, or another user of this computer, may measure on it."""
NET = """
    import random
    import numpy as np
    import torch
    from torch import nn

    class Drifting(nn.Conv2d):
        '''Computes something else when it is exported, as a faulty conversion would.'''
        def forward(self, x):
            factor = 1.05 if torch.compiler.is_exporting() else 1.0
            return nn.functional.conv2d(x, self.weight * factor, self.bias, padding=1)

    def body(middle=nn.Conv2d):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), middle(4, 4, 3, padding=1), nn.ReLU(),
                             nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(4, 3))

    def good(): return body()
    def drifting(): return body(Drifting)

    class Mean(nn.Module):
        def forward(self, x): return x.mean((2, 3))

    def weightless(): return Mean()

    def dying():
        import os
        os.abort()

    def split(seed, labels=3):
        numbers = np.random.default_rng(seed)
        return numbers.normal(size=(40, 3, 8, 8)).astype(np.float32), numbers.integers(0, labels, 40)

    def data(**changed):
        return {"calibration": split(1)[0], "validation": split(2), "test": split(3), **changed}

    def labels(): return data(test=split(3, labels=5))
    def unsteady(outputs, targets): return random.random()
    def dice(): return data(metrics=unsteady)

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.look, self.weigh, self.head = nn.Conv2d(3, 8, 3), nn.Linear(5, 8), nn.Linear(16, 1)
        def forward(self, image, facts):
            seen = torch.relu(self.look(image)).mean((2, 3))
            return seen, self.head(torch.cat([seen, torch.relu(self.weigh(facts))], 1))

    def pair(): return Pair()

    def two():
        def inputs(seed):
            numbers = np.random.default_rng(seed)
            return {"image": numbers.normal(size=(40, 3, 8, 8)).astype(np.float32),
                    "facts": numbers.normal(size=(40, 5)).astype(np.float32)}
        def targets(given):
            with torch.no_grad():
                return Pair().eval()(**{k: torch.from_numpy(v) for k, v in given.items()})[1].numpy()
        def closeness(outputs, targets): return -float(np.abs(outputs[1] - targets).mean())
        def seen(outputs, targets): return float(outputs[0].shape == (len(targets), 8))
        splits = {name: (inputs(seed), targets(inputs(seed))) for name, seed in (("validation", 2), ("test", 3))}
        return {"calibration": inputs(1), **splits, "metrics": {"closeness": closeness, "seen": seen}}

    def vectors():
        x = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
        y = (x @ np.eye(16, 8)).argmax(1)
        return {"calibration": x, "validation": (x, y), "test": (x, y)}
"""


@dataclass(frozen=True)
class Run:
    """What a command left."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Folder:
    """A folder with a user's files and a store."""

    path: Path

    def run(self, *words: str) -> Run:
        """Run the command line here; wait while somebody else measures on this computer."""
        deadline = time.monotonic() + BUSY_S
        while True:
            done = subprocess.run([sys.executable, "-m", "orchestrator.cli.app", *words], cwd=self.path, text=True,
                                  capture_output=True, timeout=LIMIT_S, check=False)
            if done.returncode != 3 or "is held by" not in done.stderr or time.monotonic() > deadline:
                return Run(done.returncode, done.stdout, done.stderr)
            time.sleep(2)

    def search(self, *words: str) -> Run:
        return self.run("search", "--sampler", "tpe", "--store", str(self.path / "store"), *words)

    def studies(self) -> list[str]:
        with Store.open(self.path / "store") as store:
            return [study.name for study in store.studies()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "net.py").write_text(textwrap.dedent(NET))
    return Folder(tmp_path)


def document(run: Run) -> dict[str, Any]:
    assert run.code in (0, 1), run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    jsonschema.validate(found, schema_of("search"))
    return found


def test_the_templates_work_as_they_are(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    made = folder.run("init", "--directory", "mine", "--format", "json")
    assert made.code == 0, made.stderr
    written = json.loads(made.stdout)
    assert written["files"] == ["mine/study.yaml", "mine/model.py", "mine/data.py"]
    assert written["next"] == "cd mine && orchestrator search"
    jsonschema.validate(yaml.safe_load((tmp_path / "mine" / "study.yaml").read_text()), study_schema())
    found = document(Folder(tmp_path / "mine").search("--measurements", "8", "--format", "json"))
    assert (found["study"], found["model"], found["objective"]) == ("shapes", "model.py:make", "top1")
    float32 = next(entry for entry in found["baselines"] if entry["name"] == "float32")
    assert 0.9 < float32["accuracy"]["test"] < 1


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("precious")
    run = Folder(tmp_path).run("init")
    assert run.code == 2
    assert "nothing is overwritten, and data.py is there already" in run.stderr
    assert "--directory" in run.stderr
    assert (tmp_path / "data.py").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["data.py"]
    (tmp_path / "model.py").touch()
    assert "model.py and data.py are there already" in Folder(tmp_path).run("init").stderr


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = Folder(tmp_path).run("init", "--directory", "file")
    assert run.code == 2
    assert "--directory file: the files cannot be written there (that is a file); choose another" in run.stderr


@pytest.mark.parametrize(("model", "data", "expected"), [
    ("net.py:drifting", "net.py:data", ["differs from PyTorch in output 0",
                                        "the first layer that differs is '2' (CONV_2D)"]),
    ("net.py:good", "net.py:dice", ["differs from PyTorch on the validation split: unsteady is",
                                    "it is the metric that is not the same twice"]),
    ("net.py:good", "net.py:labels", ["net.py:labels: test: labels out of range: the model has 3 classes (0 to 2), the "
                                      "targets run from 0 to 4"]),
    ("net.py:weightless", "net.py:data", ["no convolution or linear layer with constant weights: nothing to search"]),
    ("net.py:dying", "net.py:data", ["its worker process died", "net.py:dying"]),
    ("search:make", "net.py:data", ["hidden by this tool's own package 'search'", "search.py:make"]),
    ("net.py:good", None, ["--model net.py:good: its data are missing", "orchestrator init"]),
])
def test_what_is_wrong_is_said_in_one_line(model: str, data: str | None, expected: list[str], folder: Folder) -> None:
    run = folder.search("--model", model, *(("--data", data) if data else ()))
    assert run.code == 2, run.stderr
    said = [line for line in run.stderr.splitlines() if not line.startswith("[")]
    assert len(said) == 1, run.stderr
    assert said[0].startswith("orchestrator: ")
    for part in expected:
        assert part in said[0]
    assert run.stdout == ""
    assert folder.studies() == []
    logs = [log.name for log in (folder.path / "store" / "logs").iterdir()]
    own = [name for name in logs if not name.startswith("workers-")]
    assert bool(own) is ("dying" in model), "a refused study leaves no log, unless there is something to say"


def test_a_long_error_is_cut_and_debug_shows_it_whole(folder: Folder) -> None:
    with (folder.path / "net.py").open("a") as file:
        file.write("\ndef wordy(): raise RuntimeError('first line\\nsecond line\\nthird line')\n")
    words = ("--model", "net.py:wordy", "--data", "net.py:data", "--device", "sim")
    short = folder.search(*words).stderr
    said = [line for line in short.splitlines() if not line.startswith("[")]
    assert len(said) == 1
    assert said[0].startswith("orchestrator: net.py:wordy() failed with RuntimeError: first line (")
    assert re.search(r"/net\.py:\d+; --debug shows the other 2 lines\)$", said[0])
    assert "third line" in folder.search(*words, "--debug").stderr


def test_a_model_without_data_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("schema: 1\nmodel: net.py:make\n")
    with pytest.raises(UsageError, match=r"study\.yaml: model net\.py:make: its data are missing"):
        load_config(file, {})


def test_several_inputs_and_outputs_with_metrics_of_ones_own(folder: Folder) -> None:
    found = document(folder.search(
        "--model", "net.py:pair", "--data", "net.py:two", "--max-drop", "5", "--require", "seen >= 1 abs",
        "--baselines", "needed", "--measurements", "6", "--format", "json"))
    assert found["objective"] == "closeness"
    float32 = next(entry for entry in found["baselines"] if entry["name"] == "float32")
    assert float32["metrics"]["test"]["seen"] == 1
    assert -1e-4 < float32["metrics"]["validation"]["closeness"] <= 0
    assert found["budget"]["minimum"].keys() == {"closeness", "seen"}
    assert set(found["winner"]["layers"]) == {"look", "mean", "weigh", "head"}


def test_a_float_tflite_model_is_searched_as_it_is(folder: Folder) -> None:
    (folder.path / "dense.tflite").write_bytes(dense_bytes(np.eye(8, 16, dtype=np.float32)))
    found = document(folder.search(
        "--model", "dense.tflite", "--data", "net.py:vectors", "--max-drop", "20", "--baselines", "needed",
        "--measurements", "4", "--format", "json"))
    float32 = next(entry for entry in found["baselines"] if entry["name"] == "float32")
    assert float32["accuracy"]["validation"] == 1
    assert len(found["winner"]["layers"]) == 1


def test_the_published_schema_of_study_yaml_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == study_schema(), "run: python -m orchestrator.schemas docs/schemas"
