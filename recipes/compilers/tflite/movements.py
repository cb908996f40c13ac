"""Take out of a float .tflite model what only moves channels to and fro.

PyTorch has the channels second and TFLite has them last, so a conversion leaves TRANSPOSEs where the
order matters: before a linear layer that reads an image, before a mean over its pixels, around
convolutions over time. Most of them can be done once, in the weights, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from recipes.compilers.graph import Graph, Operator
from recipes.compilers.tflite.edit import constant, new_constant, new_tensor, reshape
from recipes.compilers.tflite.graph import read_graph
from recipes.ports import Array

REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX")


@dataclass(frozen=True, slots=True)
class Moved:
    """A tensor that TRANSPOSEs and RESHAPEs make of another one."""

    tensor: int
    source: int
    order: Array
    """In the tensor's shape: which element of the source stands where."""

    @property
    def in_order(self) -> bool:
        """Tell whether the elements stay where they are in memory."""
        return bool((self.order.ravel() == np.arange(self.order.size)).all())


def without_needless_movements(model: bytes) -> bytes:
    """Return a model that computes the same with fewer TRANSPOSEs.

    An operator reads what stands before the TRANSPOSE instead where all elements keep their order in
    memory; where it is a FULLY_CONNECTED, whose columns take the other order; or where it is a
    reduction, which can be done over other axes.
    """
    from ai_edge_litert.tools import flatbuffer_utils as flat

    graph = read_graph(model)
    if not any(op.kind == "TRANSPOSE" for op in graph.operators):
        return model
    parsed = flat.convert_bytearray_to_object(bytearray(model))
    changed = False
    for op in graph.operators:
        moved = None if _moves(graph, op) else _moved(parsed, graph, op.inputs[0] if op.inputs else -1)
        if moved is not None:
            changed |= (moved.in_order and _read_source(parsed, graph, op, moved)) or _into_weights(
                parsed, graph, op, moved) or _into_axes(parsed, graph, op, moved)
    if not changed:
        return model
    _drop_unused(parsed, graph)
    return bytes(flat.convert_object_to_bytearray(parsed))


def _moves(graph: Graph, op: Operator) -> bool:
    return op.kind == "RESHAPE" or (op.kind == "TRANSPOSE" and graph.tensors[op.inputs[1]].constant)


def _moved(parsed: Any, graph: Graph, tensor: int) -> Moved | None:
    """Go back from a tensor over the operators that only move; None for indices, or without a TRANSPOSE."""
    steps: list[Operator] = []
    source = tensor
    while (writer := graph.producer.get(source)) is not None and _moves(graph, writer):
        steps.insert(0, writer)
        source = writer.inputs[0]
    if graph.tensors[source].dtype != "FLOAT32" or not any(step.kind == "TRANSPOSE" for step in steps):
        return None
    order = np.arange(graph.tensors[source].elements).reshape(graph.tensors[source].shape)
    for step in steps:
        order = order.transpose(constant(parsed, step.inputs[1])) if step.kind == "TRANSPOSE" \
            else order.reshape(graph.tensors[step.outputs[0]].shape)
    return Moved(tensor, source, order)


def _read_source(parsed: Any, graph: Graph, reader: Operator, moved: Moved) -> bool:
    """Let an operator read the source, through one RESHAPE where the shapes differ."""
    read = moved.source
    if graph.tensors[moved.source].shape != graph.tensors[moved.tensor].shape:
        read = _reshaped(parsed, graph, reader, moved)
    entry = _entry(parsed, reader)
    entry.inputs = [read, *entry.inputs[1:]]
    return True


def _into_weights(parsed: Any, graph: Graph, reader: Operator, moved: Moved) -> bool:
    """Put the columns of a linear layer into the order of the source."""
    if reader.kind != "FULLY_CONNECTED":
        return False
    weights = graph.tensors[reader.inputs[1]]
    shared = len(graph.consumers[reader.inputs[1]]) > 1 or sum(t.buffer == weights.buffer for t in graph.tensors) > 1
    if shared or not weights.constant or weights.dtype != "FLOAT32" or weights.shape[1] != moved.order.size:
        return False
    columns = constant(parsed, reader.inputs[1])
    placed = np.empty_like(columns)
    placed[:, moved.order.ravel()] = columns
    parsed.buffers[weights.buffer].data = np.frombuffer(placed.tobytes(), np.uint8)
    return _read_source(parsed, graph, reader, moved)


def _into_axes(parsed: Any, graph: Graph, reader: Operator, moved: Moved) -> bool:
    """Reduce over those axes of the source that hold the same elements."""
    if reader.kind not in REDUCTIONS or not graph.tensors[reader.inputs[1]].constant:
        return False
    asked = tuple(int(axis) % moved.order.ndim for axis in constant(parsed, reader.inputs[1]).ravel())
    wanted, shape = _groups(moved.order, asked), graph.tensors[moved.source].shape
    source = np.arange(moved.order.size).reshape(shape)
    result = graph.tensors[reader.outputs[0]].shape
    for count in range(1, len(shape) + 1):
        for axes in combinations(range(len(shape)), count):
            left = tuple(n for axis, n in enumerate(shape) if axis not in axes)
            keep = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
            if result in (left, keep) and np.array_equal(_groups(source, axes), wanted):
                entry = _entry(parsed, reader)
                entry.inputs = [moved.source, new_constant(parsed, f"axes_{reader.index}", np.array(axes))]
                entry.builtinOptions.keepDims = result != left
                return True
    return False


def _groups(order: Array, axes: tuple[int, ...]) -> Array:
    """Return which elements a reduction over some axes takes together: one sorted row per result."""
    last = np.moveaxis(order, axes, range(order.ndim - len(axes), order.ndim))
    rows = last.reshape(-1, int(np.prod([order.shape[axis] for axis in axes])))
    return np.sort(rows, axis=1)


def _entry(parsed: Any, op: Operator) -> Any:
    """Find an operator of the graph in the parsed model, where others have been put in since: by its output."""
    return next(entry for entry in parsed.subgraphs[0].operators if int(entry.outputs[0]) == op.outputs[0])


def _reshaped(parsed: Any, graph: Graph, reader: Operator, moved: Moved) -> int:
    """Put a RESHAPE of the source to the moved tensor's shape before its reader; return what it writes."""
    operators, tensor = parsed.subgraphs[0].operators, graph.tensors[moved.tensor]
    written = new_tensor(parsed, f"{tensor.name}_{reader.index}", tensor.shape)
    operators.insert(operators.index(_entry(parsed, reader)), reshape(parsed, moved.source, written, tensor.shape))
    return written


def _drop_unused(parsed: Any, graph: Graph) -> None:
    """Remove the movements that nothing reads any more, and the tensors that nothing refers to."""
    sub = parsed.subgraphs[0]
    idle = {op.outputs[0] for op in graph.operators if _moves(graph, op)} - {int(t) for t in sub.outputs}
    while True:
        read = {int(t) for op in sub.operators for t in op.inputs}
        left = [op for op in sub.operators if int(op.outputs[0]) not in idle or int(op.outputs[0]) in read]
        if len(left) == len(sub.operators):
            break
        sub.operators = left
    used = {int(t) for op in sub.operators for t in (*op.inputs, *op.outputs) if t >= 0}
    used |= {int(t) for t in (*sub.inputs, *sub.outputs)}
    number = {old: new for new, old in enumerate(sorted(used))}
    number[-1] = -1  # an absent input
    for unused in {t.buffer for t in sub.tensors} - {sub.tensors[t].buffer for t in used}:
        parsed.buffers[unused].data = None
    sub.tensors = [sub.tensors[old] for old in sorted(used)]
    for op in sub.operators:
        op.inputs, op.outputs = [number[int(t)] for t in op.inputs], [number[int(t)] for t in op.outputs]
    sub.inputs, sub.outputs = [number[int(t)] for t in sub.inputs], [number[int(t)] for t in sub.outputs]
    for signature in parsed.signatureDefs or ():
        for port in (*signature.inputs, *signature.outputs):
            port.tensorIndex = number[int(port.tensorIndex)]
