"""The layers of a float .tflite model, by the names that its converter left."""

from __future__ import annotations

import re

from recipes.compilers.channels_last import WRAPPED
from recipes.compilers.graph import Graph, Operator
from recipes.compilers.layers import LayerMap, layers_of, weight_tensor
from recipes.compilers.tflite.legal import legal_choices, legal_for_all
from recipes.target import Target

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
    return layers_of("tflite", graph, lambda op: module_path(graph, op), lambda op: _is_leaf(graph, op),
                     lambda kind: legal_choices(kind, target.runtime), legal_for_all)


def _is_leaf(graph: Graph, op: Operator) -> bool:
    """Tell whether a module of PyTorch's own computes an operator; its operators without weights share a name."""
    return LEAF.search(_module_of(_first_name(graph, op))) is not None


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
