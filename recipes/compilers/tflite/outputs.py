"""Give a float .tflite model what the quantiser needs: a signature, and outputs that nothing else reads."""

from __future__ import annotations

from typing import Any

from recipes.compilers.tflite.edit import new_tensor, reshape
from recipes.compilers.tflite.graph import read_graph


def with_own_outputs(model: bytes) -> bytes:
    """Return a model in which no operator reads an output of the model: such an output becomes a copy.

    Where a layer reads an output too, and reads it quantised, the quantiser would take its quantised copy
    for the output.
    """
    from ai_edge_litert.tools import flatbuffer_utils as flat

    graph = read_graph(model)
    read = [port.tensor for port in graph.outputs if port.tensor in graph.consumers and port.tensor in graph.producer
            and graph.tensors[port.tensor].dtype == "FLOAT32"]
    if not read:
        return model
    parsed = flat.convert_bytearray_to_object(bytearray(model))
    sub = parsed.subgraphs[0]
    for tensor in read:
        inner = new_tensor(parsed, f"{graph.tensors[tensor].name}_inner", graph.tensors[tensor].shape)
        for op in sub.operators:
            op.inputs = [inner if t == tensor else t for t in op.inputs]
            op.outputs = [inner if t == tensor else t for t in op.outputs]
        sub.operators.append(reshape(parsed, inner, tensor, graph.tensors[tensor].shape))
    return bytes(flat.convert_object_to_bytearray(parsed))


def with_signature(model: bytes) -> bytes:
    """Return a model with one signature; where it has none, one that names the tensors as they are named."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils as flat

    parsed = flat.convert_bytearray_to_object(bytearray(model))
    if parsed.signatureDefs:
        return model
    graph = read_graph(model)

    def entry(name: str, tensor: int) -> Any:
        port = schema.TensorMapT()
        port.name, port.tensorIndex = name.encode(), tensor
        return port

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [entry(port.name, port.tensor) for port in graph.inputs]
    signature.outputs = [entry(port.name, port.tensor) for port in graph.outputs]
    parsed.signatureDefs = [signature]
    return bytes(flat.convert_object_to_bytearray(parsed))
