"""A runtime in plain Python that does what a file says: prints, fails or dies as real ones do."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
import os, time
import numpy as np

WEIGHTS = np.array([[1, 2], [3, 4]], np.float32)


class Interpreter:
    def __init__(self, model_content, num_threads):
        self._script = model_content if model_content[4:8] != b"TFL3" else b""
        self._x = None

    def allocate_tensors(self):
        os.write(1, b"a native library prints a line\\n{\\"type\\": \\"result\\"}\\n")

    def get_input_details(self):
        return [{"index": 0, "name": "x", "shape": np.array([1, 2]), "dtype": np.float32}]

    def get_output_details(self):
        return [{"index": 1}]

    def set_tensor(self, index, value):
        self._x = value

    def get_tensor(self, index):
        return self._x @ WEIGHTS.T

    def invoke(self):
        exec(self._script.decode())
'''


def scripted_runtime(folder: Path) -> str:
    """Write the runtime and return what to give as `--runtime`; an artifact's bytes are its script."""
    package = folder / "scripted" / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(SOURCE)
    return str(package.parent)
