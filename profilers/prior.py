"""What an analytic model says of every layer's latency, before anything is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from profilers.simulation import UNPACKED_INT4, Roofline
from profilers.sites import inputs_of
from recipes.compilers.graph import Graph as Operators
from recipes.compilers.graph import Operator, Tensor
from recipes.compilers.layers import LayerMap
from search.adaptive.graph import Floats, Tables
from search.sites import Sites
from search.space import LayerConfig, Scheme

MIXING = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Their weights have output channels first and input channels last."""


def roofline_prior(layers: LayerMap, sites: Sites, roofline: Roofline, threads: int) -> Tables:
    """Return seconds of every option, and of the conversions where neighbours differ in format.

    The figures need not be right, only in proportion: the engine corrects them with what it measures.
    """

    def operator_s(graph: Operators, op: Operator, config: LayerConfig) -> float:
        return roofline.operator_s(typed(graph, [op], config), op, threads)

    return tables_of(layers, sites, operator_s, lambda tensor, kind: roofline.conversion_s(tensor.elements, threads))


def tables_of(layers: LayerMap, sites: Sites, operator_s: Callable[[Operators, Operator, LayerConfig], float],
              conversion_s: Callable[[Tensor, str], float]) -> Tables:
    """Return a prior that is a sum over operators.

    Args:
        layers: of the float model.
        sites: what `sites_of` made of them.
        operator_s: seconds of an operator of a (narrowed) float graph in a configuration.
        conversion_s: seconds of `QUANTIZE` or `DEQUANTIZE` on a tensor.
    """
    graph = sites.graph
    own = np.zeros((graph.length, graph.depth, graph.width))
    for layer, index in zip(sites.layers, graph.timed, strict=True):
        site, choices = graph.sites[index], layer.choices
        alone = _alone(layers.graph, [layers.graph.operators[i] for i in layers.operators[site.name]])
        made = sites.shares(index)
        tied = site.source >= 0 and site.group != "" and graph.sites[site.source].group == site.group
        for entering, read in enumerate(sites.shares(site.source) if site.source >= 0 else (1.0,)):
            for level, share in enumerate(made):
                narrowed = _narrowed(alone, share if tied else read, share)  # what is tied never differs
                for choice, config in enumerate(choices):
                    own[index, entering, level * len(choices) + choice] = sum(
                        operator_s(narrowed, op, config) for op in narrowed.operators)
    return Tables(graph, own, _conversions(layers, sites, conversion_s))


def _conversions(layers: LayerMap, sites: Sites, conversion_s: Callable[[Tensor, str], float]) -> Floats:
    """Return seconds of the conversion on every edge: (edges, width, width).

    A tensor is converted once for all that read it: each of its readers bears an equal share.
    """
    graph = sites.graph
    number = {site.name: index for index, site in enumerate(graph.sites)}
    read = {(a, b): {t for t, name in inputs_of(layers, graph.sites[b].name) if number[name] == a}
            for a, b in graph.edges}
    readers = Counter(tensor for tensors in read.values() for tensor in tensors)
    edges = np.zeros((len(graph.edges), graph.width, graph.width))
    for e, (a, b) in enumerate(graph.edges):
        moved = [(layers.graph.tensors[t], readers[t]) for t in sorted(read[a, b])]
        cost = {(kind, level): sum(conversion_s(_scaled(tensor, 1.0, share), kind) / among for tensor, among in moved)
                for kind in ("QUANTIZE", "DEQUANTIZE") for level, share in enumerate(sites.shares(a))}
        for i, one in enumerate(graph.sites[a].options):
            for j, other in enumerate(graph.sites[b].options):
                if one.format != other.format:
                    edges[e, i, j] = cost["QUANTIZE" if other.format == "int" else "DEQUANTIZE", one.level]
    return edges


def _alone(graph: Operators, operators: Iterable[Operator]) -> Operators:
    """Return some operators and the tensors that they touch as a graph of their own."""
    kept: dict[int, int] = {}
    found: list[Operator] = []
    for op in operators:
        inputs = tuple(t if t < 0 else kept.setdefault(t, len(kept)) for t in op.inputs)
        outputs = tuple(kept.setdefault(t, len(kept)) for t in op.outputs)
        found.append(Operator(len(found), op.kind, inputs, outputs))
    tensors = tuple(replace(graph.tensors[t], constant=graph.is_constant(t)) for t in kept)
    return Operators(tensors, tuple(found), (), ())


def _narrowed(graph: Operators, read: float, made: float) -> Operators:
    """Return operators as if they read and made these shares of their channels."""
    if read == made == 1.0:
        return graph
    tensors = list(graph.tensors)

    def scale(index: int, first: float, last: float) -> None:
        tensors[index] = _scaled(graph.tensors[index], first, last)

    for op in graph.operators:
        for index in (*op.inputs, *op.outputs):
            if index < 0:
                continue
            if index in op.outputs:
                scale(index, 1.0, made)
            elif not graph.is_constant(index):
                scale(index, 1.0, read)
            elif op.kind in MIXING and len(graph.tensors[index].shape) > 1:
                scale(index, made, read)
            else:
                scale(index, 1.0, made)
    return replace(graph, tensors=tuple(tensors))


def _scaled(tensor: Tensor, first: float, last: float) -> Tensor:
    """Return a tensor with shares of its first and last axis."""
    shape = [*tensor.shape]
    if shape:
        shape[0] = max(1, round(shape[0] * first))
        shape[-1] = max(1, round(shape[-1] * last))
    return replace(tensor, shape=tuple(shape))


def typed(graph: Operators, operators: Iterable[Operator], config: LayerConfig) -> Operators:
    """Return the graph as if these operators ran in a configuration."""
    tensors = list(graph.tensors)
    static = config.scheme is Scheme.STATIC

    def retype(index: int, dtype: str) -> None:
        tensor: Tensor = tensors[index]
        if tensor.dtype == "FLOAT32":
            tensors[index] = replace(tensor, dtype=dtype)

    for op in graph.operators:
        activations = set(graph.activations(op))
        for index in (*op.inputs, *op.outputs):
            if index < 0:
                continue
            if index in activations or index in op.outputs:
                retype(index, "INT8" if static else "FLOAT32")
            elif config.scheme in (Scheme.DYNAMIC, Scheme.STATIC):
                retype(index, "INT4" if config.weight_bits == 4 else "INT8")
            elif config.scheme is Scheme.WEIGHT_ONLY and config.weight_bits == 4:
                retype(index, UNPACKED_INT4)
    return replace(graph, tensors=tuple(tensors))
