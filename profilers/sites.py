"""The layers of a converted network by data flow: who reads whom, what may be chosen, whose channels go together."""

from __future__ import annotations

from collections.abc import Iterable

from recipes.compilers.layers import LayerMap
from search.adaptive.graph import Graph, Option, Site
from search.sites import Sites, sites_for_all
from search.space import LayerConfig, Scheme


def sites_of(layers: LayerMap) -> Sites:
    """Return the layers by data flow, their options, and who reads whom.

    A layer reads those whose outputs reach it through operators that are no variables. A layer without weights
    passes on the channels that it reads. What is chosen for all layers together comes last.
    """
    space = layers.space
    order = sorted(space.layers, key=lambda layer: min(layers.operators[layer.name]))
    number = {layer.name: index for index, layer in enumerate(order)}
    produced = {name: group.name for group in space.groups for name in group.produced_by}
    sites: list[Site] = []
    for layer in order:
        own = number[layer.name]
        read = dict.fromkeys(number[name] for _, name in inputs_of(layers, layer.name) if number[name] < own)
        source, *skips = [*read, -1][:1] + [*read][1:]
        group = produced.get(layer.name, "")
        if not layer.weights and source >= 0 and _passes_on(layers, layer.name):
            group = sites[source].group
        levels = len(space.group_of[group].widths) if group else 1
        options = tuple(Option(config.label, "int" if config.scheme is Scheme.STATIC else "float",
                               (f"w{config.weight_bits}", str(_computing(config)), f"p{level}"), level,
                               str(_computing(config)))
                        for level in range(levels) for config in layer.choices)
        sites.append(Site(layer.name, layer.kind, options, source, tuple(skips), group))
    return Sites(space, Graph((*sites, *sites_for_all(space))))


def inputs_of(layers: LayerMap, name: str) -> Iterable[tuple[int, str]]:
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


def _passes_on(layers: LayerMap, name: str) -> bool:
    """Tell whether a layer's outputs have the channels of its inputs: as many along the last axis."""
    graph = layers.graph
    for index in layers.operators[name]:
        operator = graph.operators[index]
        given = [graph.tensors[t].shape[-1:] for t in graph.activations(operator)]
        if any(graph.tensors[t].shape[-1:] not in given for t in operator.outputs):
            return False
    return True


def _computing(config: LayerConfig) -> Scheme:
    """Return how activations are treated; float arithmetic is the same whatever the weights are stored as."""
    return Scheme.FLOAT if config.scheme is Scheme.WEIGHT_ONLY else config.scheme
