"""What a cost model says of every layer's latency, in the shape of `roofline_prior`."""

from __future__ import annotations

from profilers.cost_model import CostModel, Variant
from profilers.cost_model_rows import Conditions
from profilers.prior import tables_of
from profilers.simulation import Roofline
from recipes.compilers.graph import Graph as Operators
from recipes.compilers.graph import Operator, Tensor
from recipes.compilers.layers import LayerMap
from recipes.compilers.shapes import LayerShape, shape_of
from search.adaptive.graph import Tables
from search.sites import Sites
from search.space import FLOAT32, LayerConfig


def learned_prior(layers: LayerMap, sites: Sites, model: CostModel, variant: Variant, where: Conditions,
                  roofline: Roofline) -> Tables:
    """Return seconds of every option, and of the conversions where neighbours differ in format.

    Args:
        layers: of the float model.
        sites: what `profilers.sites.sites_of` made of them.
        model: trained on measured layers.
        variant: which of its two predictions.
        where: the board that the study searches on.
        roofline: what the variant `both` corrects, and what stands in for operators that were never measured.
    """
    wanted: dict[tuple[LayerShape, LayerConfig], None] = {}

    def ask(graph: Operators, op: Operator, config: LayerConfig) -> float:
        wanted[shape_of(graph, op), config] = None
        return 0.0

    def ask_conversion(tensor: Tensor, kind: str) -> float:
        wanted[_conversion(tensor, kind), FLOAT32] = None
        return 0.0

    tables_of(layers, sites, ask, ask_conversion)  # what is wanted, so that it is predicted in one go
    keys = list(wanted)
    predicted = dict(zip(keys, model.predict(variant, keys, where, roofline).tolist(), strict=True))
    return tables_of(layers, sites, lambda graph, op, config: float(predicted[shape_of(graph, op), config]),
                     lambda tensor, kind: float(predicted[_conversion(tensor, kind), FLOAT32]))


def _conversion(tensor: Tensor, kind: str) -> LayerShape:
    return LayerShape(kind, (tensor.shape,), None, tensor.shape)
