"""Collect the range of every tensor of the float model on the calibration inputs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib.metadata import version

import numpy as np

from recipes.compilers.tflite.graph import read_graph
from recipes.ports import Array, Ports


def calibrate(model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> bytes:
    """Return calibration statistics in the quantiser's own JSON format, and with its own values.

    The range of a tensor is the least minimum and the greatest maximum over all inputs: the quantiser's default,
    a moving average, clips (normalised error 6e-3 against 4e-5, measured). Its calibrator says which tensors count
    and what their ranges are on the first input; how the others widen these is found here, for a small transformer
    in a tenth of the time.

    Args:
        model: a float .tflite model.
        ports: of that model.
        inputs: argument name -> array (N, ...) in the PyTorch model's layout.
    """
    from ai_edge_quantizer import calibrator, recipe, recipe_manager
    from ai_edge_quantizer.utils import calibration_utils, qsv_utils

    encoded = {port.name: port.encode(inputs[port.source]) for port in ports.inputs}
    count = min(len(array) for array in encoded.values())
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    collector = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    collector.calibrate({None: [{name: array[:1] for name, array in encoded.items()}]}, manager)
    found = {name: qsv for name, qsv in sorted(collector.get_model_qsvs().items())}
    rest = {port.position: encoded[port.name][1:count] for port in ports.inputs}
    for name, (low, high) in _ranges(model, rest, found).items():
        qsv = found[name]
        found[name] = {"min": np.minimum(qsv["min"], low), "max": np.maximum(qsv["max"], high)}
    document = {"model_qsvs": found,
                "metadata": {"num_samples_calibrated": count, "update": "min_max",
                             "ai_edge_quantizer": version("ai-edge-quantizer")}}
    return json.dumps(document, cls=calibration_utils.NumpyEncoder, sort_keys=True).encode()


def _ranges(model: bytes, inputs: Mapping[int, Array], names: Collection[str]) -> dict[str, tuple[Array, Array]]:
    """Return least and greatest value of those named tensors that are computed at run time, over all inputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    graph, places = read_graph(model), interpreter.get_input_details()
    watched = {tensor.name: index for index, tensor in enumerate(graph.tensors)
               if tensor.name in names and not graph.is_constant(index)}
    found: dict[str, tuple[Array, Array]] = {}
    for example in range(min(map(len, inputs.values()))):
        for position, array in inputs.items():
            interpreter.set_tensor(places[position]["index"], array[example:example + 1])
        interpreter.invoke()
        for name, index in watched.items():
            values = interpreter.get_tensor(index)
            low, high = values.min(), values.max()
            known = found.get(name, (low, high))
            found[name] = min(low, known[0]), max(high, known[1])
    return found


def load_statistics(data: bytes) -> dict[str, dict[str, Array]]:
    """Read `calibrate`'s bytes back: tensor name -> {min, max}, as the quantiser's own loader does."""
    document = json.loads(data)
    return {name: {key: np.array(value) for key, value in qsv.items()}
            for name, qsv in document["model_qsvs"].items()}
