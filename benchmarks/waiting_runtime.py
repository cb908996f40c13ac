"""A runtime for test boards whose timed runs are waits, so that many boards can share one machine.

It computes with LiteRT and then waits: a session of 20 runs (golden, warm-up, timed) takes the seconds that the
environment variable HIL_WAIT_S names, whatever the artifact. Nothing of it is in the product.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

RUNS = 20
_SOURCE = '''
import importlib.util, os, sys, time
import numpy as np

FOLDER = {folder!r}
WAIT_S = float(os.environ["HIL_WAIT_S"]) / {runs}

def _real():
    spec = importlib.util.spec_from_file_location("ai_edge_litert.real", FOLDER + "/interpreter.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

WEIGHTS = np.array([[1, 2], [3, 4]], np.float32)  # what an agent tries a runtime with
_MODULE = None if FOLDER is None else _real()


class Interpreter:
    """Runs once in earnest; every further run is a wait."""

    def __init__(self, model_content, num_threads):
        real = _MODULE is not None and model_content[4:8] == b"TFL3"
        self._real = _MODULE.Interpreter(model_content=model_content, num_threads=num_threads) if real else None

    def allocate_tensors(self):
        if self._real is not None:
            self._real.allocate_tensors()

    def get_input_details(self):
        if self._real is not None:
            return self._real.get_input_details()
        return [{{"index": 0, "name": "x", "shape": np.array([1, 2]), "dtype": np.float32}}]

    def get_output_details(self):
        return self._real.get_output_details() if self._real is not None else [{{"index": 1}}]

    def set_tensor(self, index, value):
        self._x = value
        if self._real is not None:
            self._real.set_tensor(index, value)

    def get_tensor(self, index):
        return self._real.get_tensor(index) if self._real is not None else self._x @ WEIGHTS.T

    def invoke(self):
        started = time.perf_counter()
        if self._real is not None:
            self._real.invoke()
        time.sleep(max(0.0, WAIT_S - (time.perf_counter() - started)))
'''


def write_runtime(folder: Path, real: bool) -> None:
    """Write the package into a folder that takes the place of LiteRT's; `real`: it computes, else outputs are zeros."""
    package = folder / "ai_edge_litert"
    package.mkdir(parents=True)
    found = importlib.util.find_spec("ai_edge_litert") if real else None
    there = str(Path(found.origin).parent) if found is not None and found.origin else None
    paths = f"__path__.append({there!r})\n" if there else ""
    (package / "__init__.py").write_text(paths)
    (package / "interpreter.py").write_text(_SOURCE.format(folder=there, runs=RUNS))
