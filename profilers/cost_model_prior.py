"""What a cost model says of every layer's latency, in the shape of `roofline_prior`."""

from __future__ import annotations

from profilers.cost_model import CostModel, Variant
from profilers.cost_model_rows import Conditions
from profilers.prior import tables_of
from profilers.simulation import Roofline
from recipes.compilers.tflite.graph import Operator, Tensor
from recipes.compilers.tflite.layers import LayerMap
from recipes.compilers.tflite.single_layer import CONVERSIONS, LayerShape, shape_of
from search.adaptive.graph import Graph, Tables
from search.space import FLOAT32, LayerConfig


def learned_prior(layers: LayerMap, sites: Graph, model: CostModel, variant: Variant, where: Conditions,
                  roofline: Roofline) -> Tables:
    """Return seconds of every option, and of the conversions where neighbours differ in format.

    Args:
        layers: of the float model.
        sites: what `profilers.prior.sites_of` made of them.
        model: trained on measured layers.
        variant: which of its two predictions.
        where: the board that the study searches on.
        roofline: what the variant `both` corrects, and what stands in for operators that were never measured.
    """
    graph = layers.graph
    wanted: dict[tuple[LayerShape, LayerConfig], float] = {}
    for layer in layers.space.layers:
        for index in layers.operators[layer.name]:
            wanted |= {(shape_of(graph, graph.operators[index]), config): 0.0 for config in layer.choices}
    for tensor in graph.tensors:
        if not tensor.constant:
            wanted |= {(_conversion(tensor, kind), FLOAT32): 0.0 for kind in CONVERSIONS}
    keys = list(wanted)
    predicted = dict(zip(keys, model.predict(variant, keys, where, roofline).tolist(), strict=True))

    def operator_s(op: Operator, config: LayerConfig) -> float:
        return float(predicted[shape_of(graph, op), config])

    def conversion_s(tensor: Tensor, kind: str) -> float:
        return float(predicted[_conversion(tensor, kind), FLOAT32])

    return tables_of(layers, sites, operator_s, conversion_s)


def _conversion(tensor: Tensor, kind: str) -> LayerShape:
    return LayerShape(kind, (tensor.shape,), None, tensor.shape)
