"""`orchestrator search --sampler`: what it lists, and what it refuses before anything is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from search.samplers import SAMPLERS

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from orchestrator.cli.app import main; main()"


def search(folder: Path, *words: str, code: str = "from orchestrator.cli.app import main; main()",
           columns: str = "80") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": columns, "XDG_DATA_HOME": str(folder / "data")}
    return subprocess.run([sys.executable, "-c", code, "search", *words], cwd=folder, env=environ,
                          capture_output=True, text=True, check=False)


def test_help_has_one_line_for_every_sampler_at_80_columns(tmp_path: Path) -> None:
    lines = search(tmp_path, "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    shown = [line.split() for line in lines]
    for name, sampler in SAMPLERS.items():
        assert [name, *sampler.line.split()] in shown


def test_a_sampler_whose_package_is_missing_is_refused_at_once(tmp_path: Path) -> None:
    done = search(tmp_path, "--sampler", "gp", "--device", "sim", "--store", "store", code=WITHOUT_TORCH)
    assert done.returncode == 2
    assert done.stderr == ("orchestrator: --sampler: the sampler 'gp' needs torch, which is not installed; run \"pip "
                           "install 'hil-orchestrator[tflite]'\", or choose another sampler\n")
    assert not (tmp_path / "store").exists()


def test_an_unknown_sampler_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    done = search(tmp_path, "--sampler", "grid", "--device", "sim", "--store", "store")
    assert done.returncode == 2
    *others, last = SAMPLERS
    assert f"--sampler: expected {', '.join(others)} or {last}, got 'grid'" in done.stderr
