"""Candidate -> the quantiser's own recipe -> artifact bytes, in milliseconds for a small model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.readback import check_asked
from recipes.ports import Array
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import Clipping, Granularity, LayerConfig, Scheme

Recipe = list[dict[str, Any]]

_KINDS = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
"""The quantiser's names of operators, where they differ from the schema's."""
_GRAIN = {Granularity.CHANNEL: "CHANNELWISE", Granularity.TENSOR: "TENSORWISE"}


def quantiser_recipe(layers: LayerMap, candidate: Candidate, io: str = "float") -> Recipe:
    """Write a candidate as ai-edge-quantizer's JSON recipe: one explicit rule per operator.

    A rule for all operators would skip silently what it cannot do.

    Args:
        layers: of the float model.
        candidate: of `layers.space`.
        io: `float`, or `int8` for an artifact with int8 inputs and outputs.
    """
    rules: Recipe = []
    for index, config in sorted(layers.operator_configs(candidate).items()):
        if config.scheme is Scheme.FLOAT and config.weight_bits == 32:
            continue
        op = layers.graph.operators[index]
        scope = ";".join(layers.graph.tensors[t].name for t in op.outputs)
        rules.append({"regex": f"^{re.escape(scope)};?$", "operation": _KINDS.get(op.kind, op.kind),
                      **_algorithm(config, weightless=not layers.has_weights(op), clipping=candidate.clipping)})
    if io == "int8":
        static = _algorithm(LayerConfig(8, 8, Scheme.STATIC), weightless=False)
        rules += [{"regex": ".*", "operation": port, **static} for port in ("INPUT", "OUTPUT")]
    return rules


def _algorithm(config: LayerConfig, weightless: bool, clipping: Clipping = Clipping.NONE) -> dict[str, Any]:
    if config.scheme is Scheme.FLOAT:
        return {"algorithm_key": "float_casting",
                "op_config": {"weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
                              "compute_precision": "FLOAT", "explicit_dequantize": True}}
    grain = "TENSORWISE" if weightless else _GRAIN[config.granularity]
    op_config: dict[str, Any] = {
        "weight_tensor_config": {"num_bits": config.weight_bits, "symmetric": True, "granularity": grain,
                                 "dtype": "INT"},
        "compute_precision": "FLOAT" if config.scheme is Scheme.WEIGHT_ONLY else "INTEGER",
        "explicit_dequantize": config.scheme is Scheme.WEIGHT_ONLY}
    if config.scheme is Scheme.STATIC:
        op_config["activation_tensor_config"] = {
            "num_bits": config.activation_bits, "symmetric": False, "granularity": "TENSORWISE", "dtype": "INT"}
    octav = clipping is Clipping.OCTAV and not weightless
    return {"algorithm_key": "OCTAV" if octav else "min_max_uniform_quantize", "op_config": op_config}


class Quantiser:
    """One float model with its statistics, parsed once; quantises any number of candidates."""

    def __init__(self, model: bytes, statistics: Mapping[str, Mapping[str, Array]], layers: LayerMap) -> None:
        self._model = model
        self._statistics = statistics
        self.layers = layers

    def quantise(self, candidate: Candidate, io: str = "float") -> bytes:
        """Return the bytes of a candidate's artifact, read back and found to be what was asked.

        Raises:
            InfeasibleCandidate: when the quantiser refuses, or made something else.
        """
        recipe = quantiser_recipe(self.layers, candidate, io)
        data = self._model if not recipe else self.apply(recipe)
        check_asked(self.layers, candidate, data, io)
        return data

    def apply(self, recipe: Recipe) -> bytes:
        """Quantise by a recipe. Raises InfeasibleCandidate with the quantiser's reason."""
        from ai_edge_quantizer import quantizer

        worker = quantizer.Quantizer(bytearray(self._model), recipe)
        statistics = {name: dict(qsv) for name, qsv in self._statistics.items()} if worker.need_calibration else None
        try:
            result = worker.quantize(statistics, enable_progress_report=False, enable_progress_bar=False)
        except (ValueError, RuntimeError, KeyError, IndexError, NotImplementedError) as error:
            raise InfeasibleCandidate(f"the quantiser refuses: {str(error).splitlines()[0]}") from error
        if result.quantized_model is None:
            raise InfeasibleCandidate("the quantiser returned no model")
        return bytes(result.quantized_model)
