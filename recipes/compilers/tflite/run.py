"""Run a float .tflite model in this process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recipes.compilers.tflite.graph import read_graph
from recipes.ports import Array, Ports


def tflite_outputs(model: bytes, ports: Ports, inputs: Mapping[str, Array], limit: int) -> tuple[Array, ...]:
    """Run a float .tflite model in this process on the first `limit` inputs; return its outputs, (N, ...) each."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    places = interpreter.get_input_details(), interpreter.get_output_details()
    given = {port.position: port.encode(inputs[port.source][:limit]) for port in ports.inputs}
    found: dict[str, list[Array]] = {f"o{port.position}": [] for port in ports.outputs}
    for example in range(min(limit, len(next(iter(given.values()))))):
        for position, array in given.items():
            interpreter.set_tensor(places[0][position]["index"], array[example:example + 1])
        interpreter.invoke()
        for port in ports.outputs:
            found[f"o{port.position}"].append(interpreter.get_tensor(places[1][port.position]["index"]))
    return ports.decode({name: np.concatenate(pieces) for name, pieces in found.items()})


def plain_tensors(model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> dict[int, Array]:
    """Run a model once with plain kernels and return what its operators compute, by tensor."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True,
                              experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    interpreter.allocate_tensors()
    places = interpreter.get_input_details()
    for port in ports.inputs:
        interpreter.set_tensor(places[port.position]["index"], port.encode(inputs[port.source]))
    interpreter.invoke()
    return {tensor: interpreter.get_tensor(tensor) for op in read_graph(model).operators for tensor in op.outputs}
