"""Collect the range of every tensor of the float model on the calibration inputs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from recipes.compilers.ranges import MASKED, Histogram
from recipes.compilers.tflite.graph import read_graph
from recipes.ports import Array, Ports
from search.space import Calibration

Ranges = dict[str, dict[str, Array]]
"""Tensor name -> {min, max}."""


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
    from ai_edge_quantizer.utils import qsv_utils

    encoded = {port.name: port.encode(inputs[port.source]) for port in ports.inputs}
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    collector = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    collector.calibrate({None: [{name: array[:1] for name, array in encoded.items()}]}, manager)
    found = {name: dict(qsv) for name, qsv in sorted(collector.get_model_qsvs().items())}
    for tensors in _run(model, ports, inputs, found, 1):
        for name, values in tensors.items():
            found[name] = {"min": np.minimum(found[name]["min"], values.min()),
                           "max": np.maximum(found[name]["max"], values.max())}
    return _document(found, Calibration.MIN_MAX, len(next(iter(encoded.values()))))


def clip(model: bytes, ports: Ports, inputs: Mapping[str, Array], statistics: bytes) -> dict[Calibration, bytes]:
    """Return the statistics of the methods that clip what is rare, from histograms.

    A tensor that is masked with huge or infinite values keeps its range: there is nothing to be clipped between.

    Args:
        model: a float .tflite model.
        ports: of that model.
        inputs: those that `calibrate` was given.
        statistics: what it returned.
    """
    whole = load_statistics(statistics)
    ends = {name: (float(qsv["min"].min()), float(qsv["max"].max())) for name, qsv in whole.items()}
    finite = {name: pair for name, pair in ends.items() if max(map(abs, pair)) < MASKED}
    histograms: dict[str, Histogram] = {}
    for tensors in _run(model, ports, inputs, finite, 0):
        for name, values in tensors.items():
            if name not in histograms:
                histograms[name] = Histogram.between(*finite[name])
            histograms[name].add(values)
    count = len(next(iter(inputs.values())))
    return {method: _document({**whole, **{name: _as_wide(whole[name], *ranged(histogram))
                                           for name, histogram in histograms.items()}}, method, count)
            for method, ranged in ((Calibration.PERCENTILE, Histogram.percentile), (Calibration.MSE, Histogram.mse))}


def load_statistics(data: bytes) -> Ranges:
    """Read `calibrate`'s bytes back: tensor name -> {min, max}, as the quantiser's own loader does."""
    document = json.loads(data)
    return {name: {key: np.array(value) for key, value in qsv.items()}
            for name, qsv in document["model_qsvs"].items()}


def _run(model: bytes, ports: Ports, inputs: Mapping[str, Array], names: Collection[str],
         first: int) -> Iterator[dict[str, Array]]:
    """Yield the values of those named tensors that are computed at run time, input by input from the first one."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    graph, places = read_graph(model), interpreter.get_input_details()
    watched = {tensor.name: index for index, tensor in enumerate(graph.tensors)
               if tensor.name in names and not graph.is_constant(index)}
    encoded = {port.position: port.encode(inputs[port.source]) for port in ports.inputs}
    for example in range(first, min(map(len, encoded.values()))):
        for position, array in encoded.items():
            interpreter.set_tensor(places[position]["index"], array[example:example + 1])
        interpreter.invoke()
        yield {name: interpreter.get_tensor(index) for name, index in watched.items()}


def _as_wide(known: Mapping[str, Array], low: float, high: float) -> dict[str, Array]:
    """Return a range in the shape and type that the quantiser wants."""
    return {"min": np.full_like(known["min"], low), "max": np.full_like(known["max"], high)}


def _document(found: Mapping[str, Mapping[str, Any]], method: Calibration, count: int) -> bytes:
    from ai_edge_quantizer.utils import calibration_utils

    document = {"model_qsvs": found, "metadata": {"num_samples_calibrated": count, "update": method.value,
                                                  "ai_edge_quantizer": version("ai-edge-quantizer")}}
    return json.dumps(document, cls=calibration_utils.NumpyEncoder, sort_keys=True).encode()
