"""What the tests of boards share: a Python with nothing in it, and runtimes that are fetched once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def bare_python(folder: Path) -> Path:
    """Make an environment without any package and return its Python: that of a board nobody has set up."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def fetched(factory: pytest.TempPathFactory) -> Path:
    """Return the cache of fetched runtimes that all processes of one test run share."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fetched"
    folder.mkdir(exist_ok=True)
    return folder
