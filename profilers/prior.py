"""What an analytic model says of every layer's latency, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from profilers.simulation import UNPACKED_INT4, Roofline
from recipes.compilers.tflite.graph import Graph as Operators
from recipes.compilers.tflite.graph import Operator, Tensor
from recipes.compilers.tflite.layers import LayerMap
from search.adaptive.graph import Graph, Option, Site, Tables
from search.space import LayerConfig, Scheme


def sites_of(layers: LayerMap) -> Graph:
    """Return the layers as the engine sees them: their options, and who reads whom.

    A layer reads those whose outputs reach it through operators that are no variables.
    """
    order = sorted(layers.space.layers, key=lambda layer: min(layers.operators[layer.name]))
    number = {layer.name: index for index, layer in enumerate(order)}
    sites = []
    for layer in order:
        own = number[layer.name]
        read = dict.fromkeys(number[name] for _, name in _inputs(layers, layer.name) if number[name] < own)
        source, *skips = [*read, -1][:1] + [*read][1:]
        options = tuple(Option(config.label, "int" if config.scheme is Scheme.STATIC else "float",
                               (f"w{config.weight_bits}", str(_computing(config)))) for config in layer.choices)
        sites.append(Site(layer.name, layer.kind, options, source, tuple(skips)))
    return Graph(tuple(sites))


def _computing(config: LayerConfig) -> Scheme:
    """Return how activations are treated; float arithmetic is the same whatever the weights are stored as."""
    return Scheme.FLOAT if config.scheme is Scheme.WEIGHT_ONLY else config.scheme


def roofline_prior(layers: LayerMap, sites: Graph, roofline: Roofline, threads: int) -> Tables:
    """Return seconds of every option, and of the conversions where neighbours differ in format.

    The figures need not be right, only in proportion: the engine corrects them with what it measures.
    """
    graph = layers.graph

    def operator_s(op: Operator, config: LayerConfig) -> float:
        return roofline.operator_s(typed(graph, [op], config), op, threads)

    return tables_of(layers, sites, operator_s, lambda tensor, kind: roofline.conversion_s(tensor.elements, threads))


def tables_of(layers: LayerMap, sites: Graph, operator_s: Callable[[Operator, LayerConfig], float],
              conversion_s: Callable[[Tensor, str], float]) -> Tables:
    """Return a prior that is a sum over operators.

    Args:
        layers: of the float model.
        sites: what `sites_of` made of them.
        operator_s: seconds of an operator in a configuration.
        conversion_s: seconds of `QUANTIZE` or `DEQUANTIZE` on a tensor.
    """
    graph, space = layers.graph, layers.space
    own = np.zeros((sites.length, sites.width, sites.width))
    for index, site in enumerate(sites.sites):
        operators = [graph.operators[i] for i in layers.operators[site.name]]
        for option, config in enumerate(space.by_name[site.name].choices):
            own[index, :, option] = sum(operator_s(op, config) for op in operators)
    number = {site.name: index for index, site in enumerate(sites.sites)}
    edges = np.zeros((len(sites.edges), sites.width, sites.width))
    for e, (a, b) in enumerate(sites.edges):
        moved = [graph.tensors[t] for t, name in _inputs(layers, sites.sites[b].name) if number[name] == a]
        cost = {kind: sum(conversion_s(tensor, kind) for tensor in moved) for kind in ("QUANTIZE", "DEQUANTIZE")}
        for i, one in enumerate(sites.sites[a].options):
            for j, other in enumerate(sites.sites[b].options):
                if one.format != other.format:
                    edges[e, i, j] = cost["QUANTIZE" if other.format == "int" else "DEQUANTIZE"]
    return Tables(sites, own, edges)


def _inputs(layers: LayerMap, name: str) -> Iterable[tuple[int, str]]:
    """Yield (tensor that a layer reads, the layer whose value it carries)."""
    graph = layers.graph
    own = set(layers.operators[name])
    for index in layers.operators[name]:
        waiting = [(t, t) for t in graph.activations(graph.operators[index])]
        while waiting:
            tensor, read = waiting.pop(0)
            writer = graph.producer.get(tensor)
            if writer is None or writer.index in own:
                continue
            if writer.index in layers.layer_of:
                yield read, layers.layer_of[writer.index]
            else:
                waiting.extend((t, read) for t in graph.activations(writer))


def typed(graph: Operators, operators: Iterable[Operator], config: LayerConfig) -> Operators:
    """Return the graph as if these operators ran in a configuration."""
    tensors = list(graph.tensors)
    static = config.scheme is Scheme.STATIC

    def retype(index: int, dtype: str) -> None:
        tensor: Tensor = tensors[index]
        if tensor.dtype == "FLOAT32":
            tensors[index] = replace(tensor, dtype=dtype)

    for op in operators:
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
