"""Small changes to a parsed .tflite model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recipes.ports import Array


def constant(parsed: Any, tensor: int) -> Array:
    """Return the value of a constant of float32 or int32."""
    from ai_edge_litert.tools import flatbuffer_utils as flat

    entry = parsed.subgraphs[0].tensors[tensor]
    dtype = np.float32 if entry.type == flat.TensorType.FLOAT32 else np.int32
    return np.frombuffer(bytes(parsed.buffers[entry.buffer].data), dtype).reshape(tuple(entry.shape))


def rename(model: bytes, names: Mapping[str, str]) -> bytes:
    """Return a model in whose tensors' names every key is replaced by its value."""
    from ai_edge_litert.tools import flatbuffer_utils as flat

    if not names:
        return model
    parsed = flat.convert_bytearray_to_object(bytearray(model))
    for tensor in parsed.subgraphs[0].tensors:
        for old, new in names.items():
            tensor.name = tensor.name.replace(old.encode(), new.encode())
    return bytes(flat.convert_object_to_bytearray(parsed))


def new_constant(parsed: Any, name: str, value: Array) -> int:
    """Add a constant of 32-bit integers and return its tensor."""
    from ai_edge_litert.tools import flatbuffer_utils as flat

    buffer = flat.BufferT()
    buffer.data = np.frombuffer(value.astype(np.int32).tobytes(), np.uint8)
    parsed.buffers.append(buffer)
    tensor = new_tensor(parsed, name, value.shape)
    entry = parsed.subgraphs[0].tensors[tensor]
    entry.type, entry.buffer = flat.TensorType.INT32, len(parsed.buffers) - 1
    return tensor


def new_tensor(parsed: Any, name: str, shape: tuple[int, ...]) -> int:
    """Add a float32 tensor that an operator will write and return it."""
    from ai_edge_litert.tools import flatbuffer_utils as flat

    tensor = flat.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), flat.TensorType.FLOAT32
    tensor.buffer = 0  # by convention the empty one
    parsed.subgraphs[0].tensors.append(tensor)
    return len(parsed.subgraphs[0].tensors) - 1


def reshape(parsed: Any, source: int, written: int, shape: tuple[int, ...]) -> Any:
    """Return a RESHAPE operator from one tensor to another; the caller puts it into its place."""
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.inputs = [source, new_constant(parsed, f"shape_{written}", np.array(shape))]
    operator.outputs = [written]
    operator.opcodeIndex = _reshape_code(parsed)
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = list(shape)
    return operator


def _reshape_code(parsed: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema

    kind = schema.BuiltinOperator.RESHAPE
    for index, code in enumerate(parsed.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == kind:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, kind, 1
    parsed.operatorCodes.append(code)
    return len(parsed.operatorCodes) - 1
