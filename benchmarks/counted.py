"""One artifact in this process: its outputs, and under the emulator the instructions of a run; `emulated` starts it.

    python -m benchmarks.counted RUNTIME ARTIFACT INPUTS.npz OUTPUTS.npy [COUNTER]

COUNTER is the file in which the emulator counts (tests/aarch64/count.c). Prints the instructions of each of five runs,
after two that are not counted, as a line of JSON. Needs what a board has: Python 3.10, numpy and the runtime.
"""

from __future__ import annotations

import importlib
import json
import mmap
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from profilers.agent import tensors
from profilers.agent.protocol import RUNTIMES

WARMUP, RUNS = 2, 5


def counter(name: str) -> Callable[[], int]:
    """Return what reads the emulator's count."""
    with open(name, "rb") as file:
        shared = mmap.mmap(file.fileno(), 8, mmap.MAP_SHARED, mmap.PROT_READ)
    return lambda: int(struct.unpack_from("<Q", shared)[0])


def instructions(invoke: Callable[[], None], read: Callable[[], int]) -> list[int]:
    """Return the instructions of each run, without those that reading the count takes."""
    for _ in range(WARMUP):
        invoke()
        first = read()
        reading = read() - first
    found = []
    for _ in range(RUNS):
        before = read()
        invoke()
        found.append(read() - before - reading)
    return found


def main() -> None:
    """Write the first output for all examples, then count."""
    name, artifact, inputs, outputs, *count = sys.argv[1:]
    runtime = importlib.import_module(RUNTIMES[name][0])
    if hasattr(runtime, "try_out"):
        runtime.try_out()
    interpreter = runtime.Interpreter(model_content=Path(artifact).read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    batches = tensors.read(inputs, interpreter)
    np.save(outputs, tensors.run(interpreter, batches, len(batches[0]), interpreter.invoke)[0])
    print(json.dumps([found for file in count for found in instructions(interpreter.invoke, counter(file))]))


if __name__ == "__main__":
    main()
