"""From the operators of a float network to the variables of a search space."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from recipes.compilers.graph import Graph, Operator
from recipes.compilers.kinds import ARITHMETIC, FOLLOWERS, WEIGHTED
from search.candidate import Candidate
from search.space import FLOAT32, Calibration, Clipping, Layer, LayerConfig, Scheme, SearchSpace

MAX_LAYERS = 400


@dataclass(frozen=True)
class LayerMap:
    """A search space, and which operators of the float graph each of its layers stands for."""

    graph: Graph
    space: SearchSpace
    operators: Mapping[str, tuple[int, ...]]
    """Layer name -> operator indices."""

    @cached_property
    def layer_of(self) -> Mapping[int, str]:
        """Operator index -> layer name."""
        return {index: name for name, indices in self.operators.items() for index in indices}

    def has_weights(self, op: Operator) -> bool:
        """Tell whether an operator of the float graph has constant weights."""
        return has_weights(self.graph, op)

    def operator_configs(self, candidate: Candidate) -> dict[int, LayerConfig]:
        """Return the configuration of every operator, with the followers' rule applied.

        A follower runs static when the operator that writes its input does; at the model's input,
        when all its readers do; one that moves indices never does. Every other operator that is no
        variable stays float32.
        """
        configs = {index: candidate.config_of[name] for index, name in self.layer_of.items()}
        for op in self.graph.operators:
            if op.index in configs:
                continue
            configs[op.index] = self._follow(op, configs) if op.kind in FOLLOWERS else FLOAT32
        return configs

    def _follow(self, op: Operator, configs: Mapping[int, LayerConfig]) -> LayerConfig:
        if self.graph.tensors[op.outputs[0]].dtype != "FLOAT32":
            return FLOAT32
        sources = [self.graph.producer.get(t) for t in self.graph.activations(op)]
        if all(source is None for source in sources):
            readers = [r for t in op.outputs for r in self.graph.consumers.get(t, ())]
            formats = {configs.get(r.index, FLOAT32) for r in readers}
        else:
            formats = {configs[source.index] if source else FLOAT32 for source in sources}
        static = [f for f in formats if f.scheme is Scheme.STATIC]
        if len(static) == len(formats) and static:
            return LayerConfig(8, static[0].activation_bits, Scheme.STATIC)
        return FLOAT32


def layers_of(compiler: str, graph: Graph, path: Callable[[Operator], str], is_leaf: Callable[[Operator], bool],
              legal: Callable[[str], tuple[LayerConfig, ...]],
              legal_for_all: Callable[[list[Layer]], tuple[tuple[Calibration, ...], tuple[Clipping, ...]]]) -> LayerMap:
    """Find the variables of a float graph; operators that share weights are one.

    Args:
        compiler: its name.
        graph: the network.
        path: PyTorch module path of an operator, `` where it is not known.
        is_leaf: whether one module computes an operator together with others: those without weights share its name.
        legal: configurations that an operator of a kind may have, widest first.
        legal_for_all: choices for all layers together.

    Raises ValueError when the network has nothing to choose, or too many layers.
    """
    names = _Names()
    members: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    leaves: dict[str, str] = {}
    owners: dict[int, str] = {}
    for op in graph.operators:
        where, weight = path(op), weight_tensor(graph, op)
        if weight is not None and weight in owners:
            name = owners[weight]
        elif weight is not None:
            name = owners[weight] = names.unique(where or op.kind.lower())
        elif op.kind not in ARITHMETIC:
            continue
        elif is_leaf(op):
            if where not in leaves:
                leaves[where] = names.unique(where)
            name = leaves[where]
        else:
            name = names.unique(f"{where}.{op.kind.lower()}" if where else op.kind.lower())
        members.setdefault(name, []).append(op.index)
        kinds.setdefault(name, op.kind)
    layers = []
    for name, indices in members.items():
        ops = [graph.operators[i] for i in indices]
        kind = kinds[name] if len(ops) == 1 else "+".join(dict.fromkeys(op.kind for op in ops))
        shared = set.intersection(*(set(legal(op.kind)) for op in ops))
        choices = tuple(sorted(shared, key=lambda c: c.sort_key))
        if len(choices) < 2 and not any(has_weights(graph, op) for op in ops):
            continue
        layers.append(Layer(name, kind, choices, weight_count(graph, ops), sum(macs(graph, op) for op in ops)))
    if not any(layer.weights for layer in layers):
        raise ValueError("the model has no convolution or linear layer with constant weights: nothing to search")
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"the model has {len(layers)} layers; at most {MAX_LAYERS} can be searched")
    return LayerMap(graph, SearchSpace(compiler, tuple(layers), (), *legal_for_all(layers)),
                    {layer.name: tuple(members[layer.name]) for layer in layers})


class _Names:
    """Gives every layer a name of its own: `path`, `path.1`, `path.2`, ..."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def unique(self, wanted: str) -> str:
        count = self._given.get(wanted, 0)
        self._given[wanted] = count + 1
        return wanted if count == 0 else f"{wanted}.{count}"


def weight_tensor(graph: Graph, op: Operator) -> int | None:
    if op.kind not in WEIGHTED:
        return None
    tensor = op.inputs[1]
    return tensor if graph.is_constant(tensor) else None


def has_weights(graph: Graph, op: Operator) -> bool:
    return weight_tensor(graph, op) is not None


def weight_count(graph: Graph, ops: Iterable[Operator]) -> int:
    """Count the weights of a layer; operators that share them count once."""
    tensors = {weight_tensor(graph, op) for op in ops}
    return sum(graph.tensors[tensor].elements for tensor in tensors if tensor is not None)


def macs(graph: Graph, op: Operator) -> int:
    """Count the multiply-accumulates of one operator; 0 for those that have none."""
    output = graph.tensors[op.outputs[0]]
    if op.kind in ("CONV_2D", "TRANSPOSE_CONV"):
        return output.elements * math.prod(graph.tensors[op.inputs[1]].shape[1:])
    if op.kind == "DEPTHWISE_CONV_2D":
        kernel = graph.tensors[op.inputs[1]].shape
        return output.elements * kernel[1] * kernel[2]
    if op.kind in ("FULLY_CONNECTED", "BATCH_MATMUL"):
        return output.elements * graph.tensors[op.inputs[0]].shape[-1]
    return 0
