"""Whole searches in processes of their own, as a user starts them, and a quick model to search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from orchestrator.store.records import StudyRecord, TrialHistory, TrialState
from orchestrator.store.store import Store
from tests.orchestrator.processes import MARK, end_family, wait_until_gone

LIMIT_S = 240.0
"""Of a whole search; searches of other tests may hold the board first."""
DATA = '''
import numpy as np
from recipes.demo.data import fashion_mnist

def last(images, count):
    return np.ascontiguousarray(np.moveaxis(images[:count], 1, -1))

def data():
    """Fewer images, in the layout of a .tflite model."""
    found = fashion_mnist()
    splits = {name: (last(found[name].inputs, 500), found[name].targets[:500]) for name in ("validation", "test")}
    return {"calibration": last(found["calibration"], 64), **splits}
'''


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """What `--format json` printed: one document and nothing else."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Quick:
    """A folder with the demo network as .tflite: it needs no PyTorch, so a search starts in a second."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def model(self, **options: str) -> list[str]:
        return ["--model", options.get("model", "separable.tflite"), "--data", "small.py:data"]

    def search(self, *options: str, study: str, model: bool = True) -> Ran:
        """Run `orchestrator search` to its end; nothing that it started may be left."""
        return run(*(self.model() if model else ()), *options, "--study", study, "--store", str(self.store),
                   cwd=self.folder)

    def start(self, *options: str, study: str, mark: str) -> subprocess.Popen[str]:
        """Start one whose standard error can be followed."""
        argv = command(*options, "--study", study, "--store", str(self.store))
        return subprocess.Popen(argv, cwd=self.folder, env=environment(mark, self.folder), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def histories(self, study: str) -> tuple[StudyRecord, tuple[TrialHistory, ...]]:
        with Store.open(self.store) as store:
            record = store.study(study)
            return record, store.histories(record.id)


def command(*options: str) -> list[str]:
    """Return a search with the sampler that needs the host least, unless another is named."""
    sampler = () if "--sampler" in options else ("--sampler", "tpe")
    return [sys.executable, "-m", "orchestrator.cli.app", "search", *sampler, *options]


def environment(mark: str, folder: Path) -> Mapping[str, str]:
    """Return an environment with a mark, no settings of the user's, and a folder of its own for temporary files."""
    temporary(folder).mkdir(exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
    return {**clean, MARK: mark, "TMPDIR": str(temporary(folder)), "PYTHONPATH": str(Path(__file__).parents[2])}


def temporary(folder: Path) -> Path:
    return folder / "tmp"


def run(*options: str, cwd: Path) -> Ran:
    """Run `orchestrator search` to its end; no process and no temporary file may be left."""
    mark = f"{cwd}-{os.getpid()}"
    try:
        done = subprocess.run(command(*options), cwd=cwd, env=environment(mark, cwd), capture_output=True, text=True,
                              timeout=LIMIT_S, check=False)
        assert wait_until_gone(mark, 10) == {}
        assert list(temporary(cwd).iterdir()) == []
    finally:
        end_family(mark)
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def complete(histories: tuple[TrialHistory, ...]) -> list[TrialHistory]:
    return [history for history in histories if history.trial.state is TrialState.COMPLETE]


def once(factory: pytest.TempPathFactory, name: str) -> tuple[Path, FileLock]:
    """Return a folder that all workers of a test run share, and the lock under which it is made."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return shared / name, FileLock(shared / f"{name}.lock")


def demo_search(factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """Search `demo:separable` once in a test run; return the folder and what was printed."""
    folder, lock = once(factory, "demo-search")
    with lock:
        if not (folder / "ran.json").exists():
            folder.mkdir()
            ran = run("--model", "demo:separable", "--budget", "0.8x", "--measurements", "9", "--format", "json",
                      "--study", "demo", "--store", str(folder / "store"), cwd=folder)
            (folder / "ran.json").write_text(json.dumps([ran.code, ran.stdout, ran.stderr]))
    return folder, Ran(*json.loads((folder / "ran.json").read_text()))


def quick_model(factory: pytest.TempPathFactory, folder: Path) -> Quick:
    """Write the converted demo network and its data into a folder."""
    searched, _ = demo_search(factory)
    (folder / "separable.tflite").write_bytes((searched / "store" / "recipes" / "demo" / "float.tflite").read_bytes())
    (folder / "small.py").write_text(DATA)
    return Quick(folder)
