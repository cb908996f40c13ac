"""A float .tflite model that a user gives as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recipes.compilers.graph import Graph, Port
from recipes.compilers.tflite.graph import read_graph
from recipes.errors import DataError, ModelError
from recipes.ports import Ports, PortSpec

INTEGERS = ("INT32", "INT64", "BOOL")
"""Types of indices and shapes: a float model has these besides FLOAT32."""


def read_float_model(model: bytes, name: str, inputs: tuple[str, ...], positional: bool) -> Ports:
    """Check that a .tflite model is float32 with a batch of one, and describe its ports.

    Args:
        model: the file.
        name: for messages.
        inputs: names of the inputs in the user's data.
        positional: the data are one array without a name.

    Raises:
        ModelError: no .tflite file, quantised, another batch, or other inputs than the data have.
    """
    try:
        graph = read_graph(model)
    except ValueError as error:
        raise ModelError(f"{name}: {error}") from error
    port_tensors = {port.tensor for port in (*graph.inputs, *graph.outputs)}
    for index, tensor in enumerate(graph.tensors):
        plain = tensor.dtype == "FLOAT32" or tensor.dtype in INTEGERS or (
            index in port_tensors and tensor.dtype == "UINT8")
        if tensor.scales or not plain:
            raise ModelError(f"{name}: the tensor {tensor.name!r} is {tensor.dtype}"
                             f"{' with a scale' if tensor.scales else ''}: the model is quantised already; expected "
                             "the float32 model that it was made from")
    for port in (*graph.inputs, *graph.outputs):
        shape = graph.tensors[port.tensor].shape
        if not shape or shape[0] != 1:
            raise ModelError(f"{name}: {port.name} has the shape {shape}; expected a batch of one, (1, ...)")
    given = [port.name for port in graph.inputs]
    if (positional and len(given) != 1) or (not positional and set(given) != set(inputs)):
        got = "one array" if positional else f"a mapping with {', '.join(inputs)}"
        raise ModelError(f"{name}: the model has the inputs {', '.join(given)}, the data are {got}; expected a "
                         "mapping with the model's names")
    outputs = sorted(graph.outputs, key=lambda port: port.position)
    return Ports(tuple(_port(graph, port, "input" if positional else port.name) for port in graph.inputs),
                 tuple(_port(graph, port, str(port.position)) for port in outputs))


def _port(graph: Graph, port: Port, source: str) -> PortSpec:
    tensor = graph.tensors[port.tensor]
    return PortSpec(port.name, port.position, source, tensor.shape, tensor.dtype.lower(), channels_last=False)


def check_inputs(ports: Ports, found: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
    """Compare the data's inputs (shape (N, ...) and type) with the model's. Raises DataError."""
    for port in ports.inputs:
        shape, dtype = found[port.source]
        if shape[1:] != port.shape[1:] or (dtype.kind == "f") != (port.dtype == "float32"):
            raise DataError(f"calibration: the model's input {port.name} is {port.dtype} (N, "
                            f"{', '.join(map(str, port.shape[1:]))}), the data are {dtype} (N, "
                            f"{', '.join(map(str, shape[1:]))}); give them in the .tflite model's own layout")


def value_count(model: bytes) -> int:
    """Return the number of float constants of a model: its weights and biases."""
    graph = read_graph(model)
    return sum({t.buffer: t.elements for t in graph.tensors if t.constant and t.dtype == "FLOAT32"}.values())
