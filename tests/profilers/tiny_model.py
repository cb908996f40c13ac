"""Artifacts of one float FULLY_CONNECTED, written byte by byte: no converter, a millisecond each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from recipes.artifact import Artifact


def dense_bytes(weights: NDArray[np.float32], batch: int = 1) -> bytes:
    """Return a model that computes x @ weights.T; weights are (outputs, inputs), x is (batch, inputs)."""
    buffers = [schema.BufferT(), schema.BufferT()]
    buffers[1].data = np.frombuffer(weights.astype(np.float32).tobytes(), np.uint8)
    outputs, inputs = weights.shape
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(b"x", (batch, inputs), 0), _tensor(b"w", (outputs, inputs), 1),
                     _tensor(b"y", (batch, outputs), 0)]
    graph.inputs, graph.outputs = [0], [2]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, -1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def dense(folder: Path, weights: NDArray[np.float32], name: str = "dense", batch: int = 1) -> Artifact:
    """Write such a model and describe it."""
    path = folder / f"{name}.tflite"
    path.write_bytes(dense_bytes(weights, batch))
    return Artifact.of(path)


def examples(folder: Path, array: NDArray[Any], name: str = "golden") -> Path:
    """Write an inputs file with one input."""
    path = folder / f"{name}.npz"
    np.savez(path, i0=array)
    return path


def _tensor(name: bytes, shape: tuple[int, ...], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), schema.TensorType.FLOAT32, buffer
    return tensor
