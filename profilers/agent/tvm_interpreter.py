"""TVM's runtime behind the interface of LiteRT's interpreter: all that a session needs of it."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from typing import Any

import numpy as np

DESCRIPTION = "ports"
"""The function of an artifact that returns its inputs and outputs as JSON, and the layers of its kernels."""
MIN_PROFILED = 5
"""Runs that are profiled at least, however slow the artifact is."""
MAX_PROFILED = 200
OWN_KERNEL = re.compile(r"_[0-9a-f]{16}$")
"""Names of kernels of ours end like this; the description has the layer of each of their calls, in order."""


class Interpreter:
    """One artifact: a shared library.

    Args:
        model_content: its bytes.
        num_threads: its kernels have one thread.

    Raises:
        RuntimeError: the library cannot be loaded here.
        ValueError: more threads are asked for.
    """

    def __init__(self, model_content: bytes, num_threads: int) -> None:
        if num_threads != 1:
            raise ValueError("the compiler tvm makes kernels of one thread, asked for {}".format(num_threads))
        import tvm
        from tvm.runtime.vm import VirtualMachine

        self._tensor = tvm.runtime.tensor
        self._machine = VirtualMachine(_loaded(model_content), tvm.cpu())
        self._invoke = self._machine.module["invoke_stateful"]
        described = json.loads(str(self._machine[DESCRIPTION]()))
        self._inputs = [_detail(place, entry) for place, entry in enumerate(described["inputs"])]
        self._outputs = [_detail(place, entry) for place, entry in enumerate(described["outputs"])]
        self._layers: list[str] = described.get("layers", [])
        self._given: list[Any] = [None] * len(self._inputs)

    def allocate_tensors(self) -> None:
        """Nothing: memory is taken at the first run, and kept."""

    def get_input_details(self) -> list[dict[str, Any]]:
        """Return `name`, `index`, `shape` and `dtype` of every input."""
        return self._inputs

    def get_output_details(self) -> list[dict[str, Any]]:
        """Return the same of every output."""
        return self._outputs

    def set_tensor(self, index: int, value: Any) -> None:
        """Set an input."""
        self._given[index] = self._tensor(np.ascontiguousarray(value))
        if all(array is not None for array in self._given):
            self._machine.set_input("main", *self._given)

    def invoke(self) -> None:
        """Run once. Raises RuntimeError."""
        self._invoke("main")

    def get_tensor(self, index: int) -> Any:
        """Return an output of the last run."""
        return self._machine.get_outputs("main")[index].numpy()

    def profile(self, max_s: float) -> list[list[Any]]:
        """Run for some more time with a clock around every kernel.

        Returns:
            [kernel, layer, median nanoseconds] of every call of a run, in order.
        """
        names: list[str] = []
        times: list[int] = []
        clock, runs, begun = time.perf_counter_ns, 0, 0

        def around(function: Any, name: str, before: bool, returned: Any, *arguments: Any) -> None:
            nonlocal begun
            if before:
                begun = clock()
                return
            took = clock() - begun
            if not name.startswith("vm."):
                names.append(name)
                times.append(took)

        self._machine.set_instrument(around)
        end = time.monotonic() + max_s
        while runs < MIN_PROFILED or (runs < MAX_PROFILED and time.monotonic() < end):
            self._invoke("main")
            runs += 1
        calls = len(names) // runs
        medians = np.median(np.array(times).reshape(runs, calls), axis=0) if calls else []
        layers = iter(self._layers)
        return [[name, next(layers, "") if OWN_KERNEL.search(name) else "", int(median)]
                for name, median in zip(names[:calls], medians)]  # noqa: B905 - boards have Python 3.8


def try_out() -> None:
    """Import the runtime, and see that it makes tensors. Raises whatever it raises."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type] # TVM would import it where there is one
    import tvm
    import tvm.runtime.vm

    tvm.runtime.tensor(np.ones(1, np.float32)).numpy()


def _loaded(content: bytes) -> Any:
    """Load a library from memory, by way of a file that is gone when this returns."""
    import tvm

    number, name = tempfile.mkstemp(suffix=".so")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        return tvm.runtime.load_module(name)
    finally:
        os.unlink(name)


def _detail(index: int, entry: dict[str, Any]) -> dict[str, Any]:
    return {"name": entry["name"], "index": index, "shape": np.array(entry["shape"], np.int32),
            "dtype": np.dtype(entry["dtype"]).type}
