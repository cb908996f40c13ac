"""Read a .tflite file into plain data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.compilers.graph import Graph, Operator, Port, Tensor


def _names(table: type[Any]) -> dict[int, str]:
    """Invert an enumeration class of the schema."""
    return {value: name for name, value in vars(table).items() if isinstance(value, int)}


def read_graph(model: bytes | Path) -> Graph:
    """Parse a .tflite model (bytes or a file).

    Raises:
        ValueError: when it is no .tflite file, or has several subgraphs or signatures.
    """
    from ai_edge_litert.tools import flatbuffer_utils as flat

    data = model.read_bytes() if isinstance(model, Path) else model
    if data[4:8] != b"TFL3":
        raise ValueError("not a .tflite file: the identifier TFL3 is missing at byte 4")
    parsed = flat.convert_bytearray_to_object(bytearray(data))
    signatures = parsed.signatureDefs or []
    if len(parsed.subgraphs) != 1 or len(signatures) > 1:
        raise ValueError(f"expected one subgraph and at most one signature, got {len(parsed.subgraphs)} "
                         f"and {len(signatures)}: control flow and several entry points are not supported")
    sub = parsed.subgraphs[0]
    dtypes, kinds = _names(flat.TensorType), _names(flat.BuiltinOperator)
    sizes = [_buffer_size(buffer) for buffer in parsed.buffers]
    tensors = tuple(_tensor(t, dtypes, sizes) for t in sub.tensors)
    operators = []
    for index, op in enumerate(sub.operators):
        code = parsed.operatorCodes[op.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        inputs = tuple(int(i) for i in (op.inputs if op.inputs is not None else ()))
        operators.append(Operator(index, kind, inputs, tuple(int(i) for i in op.outputs)))
    given, made = [int(i) for i in sub.inputs], [int(i) for i in sub.outputs]
    if signatures:
        ports_in = tuple(_port(m, given) for m in signatures[0].inputs)
        ports_out = tuple(_port(m, made) for m in signatures[0].outputs)
    else:
        ports_in = tuple(Port(tensors[t].name, t, i) for i, t in enumerate(given))
        ports_out = tuple(Port(tensors[t].name, t, i) for i, t in enumerate(made))
    return Graph(tensors, tuple(operators), ports_in, ports_out)


def _port(entry: Any, order: list[int]) -> Port:
    if int(entry.tensorIndex) not in order:
        raise ValueError(f"the signature's port {_text(entry.name)} is tensor {entry.tensorIndex}, which is not among "
                         f"the graph's own {order}")
    return Port(_text(entry.name), int(entry.tensorIndex), order.index(int(entry.tensorIndex)))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _buffer_size(buffer: Any) -> int:
    if buffer.data is not None:
        return len(buffer.data)
    return int(buffer.size or 0)


def _tensor(tensor: Any, dtypes: Mapping[int, str], sizes: list[int]) -> Tensor:
    shape = tuple(int(n) for n in (tensor.shape if tensor.shape is not None else ()))
    quantisation = tensor.quantization
    scales = quantisation.scale if quantisation is not None and quantisation.scale is not None else ()
    zeros = quantisation.zeroPoint if quantisation is not None and quantisation.zeroPoint is not None else ()
    return Tensor(_text(tensor.name), dtypes[tensor.type], shape, sizes[tensor.buffer] > 0, int(tensor.buffer),
                  tuple(float(s) for s in scales), tuple(int(z) for z in zeros))
