"""ONNX Runtime on the same networks: float32, and int8 by static quantisation with the same inputs."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.compiler_rows import SETTINGS, Case, Row, Timed, expected_of
from recipes.ports import Array

OPSET = 17


def missing() -> str | None:
    """Say what is not installed, or None."""
    absent = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    return f"no rows of ONNX Runtime: run 'pip install {' '.join(absent)}'" if absent else None


def rows_of(name: str, case: Case, folder: Path) -> Iterator[Row]:
    """Yield the network in float32 and int8, measured once."""
    inputs, floats, integers = case.inputs(), folder / f"{name}.onnx", folder / f"{name}-int8.onnx"
    given, expected = folder / f"{name}.npy", expected_of(case)
    np.save(given, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(case.make().eval(), (torch.from_numpy(inputs[:1]),), floats, dynamo=False, input_names=["x"],
                          opset_version=OPSET)
    made = {"float32": floats}
    try:
        _quantise(floats, integers, inputs)
        made["static_w8a8"] = integers
    except Exception as error:  # noqa: BLE001 - whatever the other tool's reason, its row is missing
        print(f"{name}, onnx, static_w8a8: {error}", flush=True)
    for scheme, file in made.items():
        row = _row(name, scheme, file, given)
        row.first(expected)
        yield row


class _Reader:
    """Gives one example at a time; ONNX Runtime's CalibrationDataReader asks no more."""

    def __init__(self, inputs: Array) -> None:
        self._rows = iter(inputs)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next example, or None."""
        row = next(self._rows, None)
        return None if row is None else {"x": row[None]}


def _quantise(floats: Path, integers: Path, inputs: Array) -> None:
    """Quantise as its documentation says: prepared, then QDQ nodes; a scale for each channel."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = floats.with_suffix(".prepared.onnx")
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(str(floats), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared), str(integers), _Reader(inputs), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)


def _row(name: str, scheme: str, file: Path, given: Path) -> Row:
    import onnx

    weights = sum(tensor.ByteSize() for tensor in onnx.load(file).graph.initializer)
    return Row(name, "onnx", scheme, file.stat().st_size, weights, None, lambda: _session(file, given))


def _session(file: Path, given: Path) -> Timed:
    result = file.with_suffix(".npz")
    subprocess.run([sys.executable, "-m", "benchmarks.onnx_session", file, given, result,
                    str(SETTINGS.max_warmup_s), str(SETTINGS.max_sampling_s)], check=True)
    with np.load(result) as found:
        arrays: dict[str, Any] = dict(found)
    return Timed(float(np.median(arrays["wall_ns"])) / 1e9, (arrays["outputs"],))
