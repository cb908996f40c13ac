"""Inputs and outputs: .npz files with `i0`, `i1`... and `o0`, `o1`..., in the order of the artifact."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from profilers.agent.protocol import BAD_INPUTS, INLINE_BYTES, NOT_FINITE, Refusal


def read(path: str, interpreter: Any) -> list[Any]:
    """Return one array (runs, *tensor shape) per input of the artifact.

    The file's arrays are (examples, ...); an artifact with batch B takes B examples in a run.

    Raises:
        Refusal: an array is missing, or has another type or shape than the artifact's input.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise Refusal(BAD_INPUTS, f"{path} is not an .npz file: {error}") from error
    batches = []
    for position, detail in enumerate(interpreter.get_input_details()):
        name, shape, dtype = f"i{position}", tuple(detail["shape"].tolist()), np.dtype(detail["dtype"])
        array = arrays.get(name)
        if array is None:
            raise Refusal(BAD_INPUTS, f"{path}: the artifact's input {position} ({detail['name']}) needs an "
                          f"array {name}, the file has: {', '.join(sorted(arrays))}")
        if not shape or array.shape[1:] != shape[1:] or array.dtype != dtype or len(array) % shape[0]:
            raise Refusal(BAD_INPUTS, f"{path}: {name}: the artifact's input {detail['name']} is {dtype} {shape}, "
                          f"the array is {array.dtype} {array.shape}")
        batches.append(array.reshape((len(array) // shape[0],) + shape))
    runs = sorted({len(batch) for batch in batches})
    if len(runs) != 1 or runs[0] == 0:
        raise Refusal(BAD_INPUTS, f"{path}: expected the same number of examples (at least one) in every "
                      f"array, got {runs}")
    return batches


def run(interpreter: Any, batches: list[Any], runs: int, forward: Callable[[], None],
        progress: Callable[[int], None] = lambda done: None) -> list[Any]:
    """Run the first `runs` of the batches and return one array (examples, ...) per output."""
    inputs = [detail["index"] for detail in interpreter.get_input_details()]
    outputs = [detail["index"] for detail in interpreter.get_output_details()]
    rows: list[list[Any]] = [[] for _ in outputs]
    for done in range(runs):
        for position, index in enumerate(inputs):
            interpreter.set_tensor(index, batches[position][done])
        forward()
        for position, index in enumerate(outputs):
            rows[position].append(interpreter.get_tensor(index))
        progress(done + 1)
    return [np.concatenate([np.atleast_1d(value) for value in row]) for row in rows]


def check_finite(outputs: list[Any]) -> None:
    """Raise Refusal where a float output holds NaN or infinity."""
    for position, output in enumerate(outputs):
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            bad = int(output.size - np.isfinite(output).sum())
            raise Refusal(NOT_FINITE, f"output {position} holds NaN or infinity in {bad} of "
                          f"{output.size} values")


def inline_or_write(outputs: list[Any], path: str) -> dict[str, str]:
    """Return small outputs as base64 of an .npz file, and write large ones to `path`."""
    buffer = io.BytesIO()
    np.savez(buffer, **_named(outputs))
    if buffer.tell() <= INLINE_BYTES:
        return {"inline": base64.b64encode(buffer.getvalue()).decode()}
    write(outputs, path)
    return {"path": path}


def write(outputs: list[Any], path: str) -> None:
    """Write an .npz file whole or not at all. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **_named(outputs))
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _named(outputs: list[Any]) -> dict[str, Any]:
    return {f"o{position}": output for position, output in enumerate(outputs)}
