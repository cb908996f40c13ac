"""The layers of a float .tflite model, by the names that its converter left."""

from __future__ import annotations

import re

from recipes.compilers.graph import Graph, Operator
from recipes.compilers.kinds import ARITHMETIC
from recipes.compilers.layers import LayerMap, has_weights, macs, weight_count, weight_tensor
from recipes.compilers.tflite.legal import legal_choices, legal_for_all
from recipes.target import Target
from search.space import Layer, SearchSpace

MAX_LAYERS = 400
WRAPPED = "net"
"""The attribute under which `convert.ArtifactModule` holds the user's network."""
CONSTANT = "arith.constant"
"""What the converter calls a constant that several operators share; the output then tells the layer."""
OUTPUT = "serving_default_"
"""How the converter names the outputs of the model, whatever module computes them."""
SEGMENT = re.compile(r"^[\w.<>]+\.[A-Za-z]\w*$")
KERNEL = re.compile(r"/torch\.nn\.modules\.(conv|linear)\.\w+$")
LEAF = re.compile(r"(?:^|/)torch\.nn\.modules\.[a-z_]+\.[A-Z]\w*$")


def map_layers(graph: Graph, target: Target) -> LayerMap:
    """Find the variables of a float graph for a target; operators that share weights are one.

    Raises ValueError when the network has nothing to choose, or too many layers.
    """
    names = _Names()
    members: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    leaves: dict[str, str] = {}
    owners: dict[int, str] = {}
    for op in graph.operators:
        path, weight = module_path(graph, op), weight_tensor(graph, op)
        if weight is not None and weight in owners:
            name = owners[weight]
        elif weight is not None:
            name = owners[weight] = names.unique(path or op.kind.lower())
        elif op.kind in ARITHMETIC:
            name = _weightless_name(graph, op, path, names, leaves)
        else:
            continue
        members.setdefault(name, []).append(op.index)
        kinds.setdefault(name, op.kind)
    layers = []
    for name, indices in members.items():
        ops = [graph.operators[i] for i in indices]
        kind = kinds[name] if len(ops) == 1 else "+".join(dict.fromkeys(op.kind for op in ops))
        shared = set.intersection(*(set(legal_choices(op.kind, target.runtime)) for op in ops))
        choices = tuple(sorted(shared, key=lambda c: c.sort_key))
        if len(choices) < 2 and not any(has_weights(graph, op) for op in ops):
            continue
        layers.append(Layer(name, kind, choices, weight_count(graph, ops),
                            sum(macs(graph, op) for op in ops)))
    if not any(layer.weights for layer in layers):
        raise ValueError("the model has no convolution or linear layer with constant weights: nothing to search")
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"the model has {len(layers)} layers; at most {MAX_LAYERS} can be searched")
    return LayerMap(graph, SearchSpace("tflite", tuple(layers), (), *legal_for_all(layers)),
                    {layer.name: tuple(members[layer.name]) for layer in layers})


class _Names:
    """Gives every layer a name of its own: `path`, `path.1`, `path.2`, ..."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def unique(self, wanted: str) -> str:
        count = self._given.get(wanted, 0)
        self._given[wanted] = count + 1
        return wanted if count == 0 else f"{wanted}.{count}"


def _weightless_name(graph: Graph, op: Operator, path: str, names: _Names, leaves: dict[str, str]) -> str:
    """Name an operator without weights; those of one leaf module (a LayerNorm) share a name."""
    if LEAF.search(_module_of(_first_name(graph, op))):
        if path not in leaves:
            leaves[path] = names.unique(path)
        return leaves[path]
    return names.unique(f"{path}.{op.kind.lower()}" if path else op.kind.lower())


def _first_name(graph: Graph, op: Operator) -> str:
    return graph.tensors[op.outputs[0]].name.split(";")[0]


def _module_of(raw: str) -> str:
    """Cut the attribute off the last segment: `a/torch.nn.modules.conv.Conv2d_c1` -> `.../Conv2d`."""
    head, slash, last = raw.rpartition("/")
    return f"{head}{slash}{last.partition('_')[0]}"


def module_path(graph: Graph, op: Operator) -> str:
    """Return the PyTorch module path of an operator, `` where its tensors do not tell.

    litert-torch names tensors `package.Class_attribute/.../package.Class_attribute;n`, and joins the
    names of fused modules by `;;`: the first kernel is the layer itself, others made the same constant.
    In other files the name is the path.
    """
    weight = weight_tensor(graph, op)
    if weight is not None:
        pieces = [p for p in graph.tensors[weight].name.split(";") if "/" in p]
        kernels = [p for p in pieces if KERNEL.search(p)]
        nameless = graph.tensors[weight].name.startswith(CONSTANT)
        raw = _first_name(graph, op) if nameless else [*kernels, *reversed(pieces), graph.tensors[weight].name][0]
    else:
        raw = _first_name(graph, op)
    if raw.startswith(OUTPUT):
        return ""
    segments = [s for s in raw.split("/") if s]
    if not all(SEGMENT.match(s) for s in segments):
        return ".".join(segments)
    names = [s.rsplit(".", 1)[-1].partition("_")[2] for s in segments[1:]]
    return ".".join(names[1:] if names[:1] == [WRAPPED] else names)
