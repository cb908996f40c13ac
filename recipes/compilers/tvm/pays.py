"""Which formats pay on a kind of board: those that measurements show to be no gain are not offered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from recipes.compilers.layers import LayerMap
from recipes.compilers.tvm.kernels.isa import Isa
from recipes.compilers.tvm.network import FloatNetwork
from recipes.compilers.tvm.templates import DEPTHWISE, Template, template_of
from search.space import LayerConfig

CLEARLY = 0.98
"""A format is faster than another below this share of its time."""


@dataclass(frozen=True, slots=True)
class KernelCost:
    """What a kernel takes on a kind of board, with its best tile."""

    ns: int
    code_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a format of a layer takes."""

    ns: float
    size_bytes: float

    def pays_beside(self, other: Cost) -> bool:
        """Tell whether it is clearly faster than another, or smaller."""
        return self.ns < CLEARLY * other.ns or self.size_bytes < other.size_bytes


def paying(network: FloatNetwork, layers: LayerMap, isa: Isa,
           measured: Mapping[str, KernelCost]) -> tuple[LayerMap, Mapping[str, tuple[LayerConfig, ...]]]:
    """Leave out formats of layers that are neither faster nor smaller than a more precise one.

    A layer is judged where all its formats were measured; code that several layers share counts in parts.

    Args:
        network: the float network.
        layers: what its kernels can compute.
        isa: of the board.
        measured: `Template.key` -> what it takes there.

    Returns:
        What pays, and layer -> formats that were left out.
    """
    kernels = _kernels(network, layers, isa)
    shared = Counter(template.key for found in kernels.values() for templates in found.values()
                     for template in templates)
    dropped: dict[str, tuple[LayerConfig, ...]] = {}
    for name, found in kernels.items():
        if all(template.key in measured for templates in found.values() for template in templates):
            costs = {config: _cost(templates, measured, shared) for config, templates in found.items()}
            kept: list[LayerConfig] = []
            for config in layers.space.by_name[name].choices:  # more precise ones come first
                if all(costs[config].pays_beside(costs[other]) for other in kept):
                    kept.append(config)
            left = tuple(config for config in found if config not in kept)
            if left:
                dropped[name] = left
    space = layers.space
    reduced = tuple(replace(layer, choices=tuple(c for c in layer.choices if c not in dropped.get(layer.name, ())))
                    for layer in space.layers)
    return replace(layers, space=replace(space, layers=reduced)), dropped


def _kernels(network: FloatNetwork, layers: LayerMap,
             isa: Isa) -> dict[str, dict[LayerConfig, tuple[Template, ...]]]:
    """Return layer -> format -> its kernels, for layers with weights."""
    pieces = {piece.operator.index: piece for piece in network.pieces}
    found: dict[str, dict[LayerConfig, tuple[Template, ...]]] = {}
    for name, indices in layers.operators.items():
        own = [(pieces[i], weighted) for i in indices if (weighted := pieces[i].weighted) is not None]
        if own:
            found[name] = {config: tuple(template_of(network, piece, weighted, config, isa) for piece, weighted in own)
                           for config in layers.space.by_name[name].choices}
    return found


def _cost(templates: tuple[Template, ...], measured: Mapping[str, KernelCost], shared: Mapping[str, int]) -> Cost:
    costs = [measured[template.key] for template in templates]
    code = sum(cost.code_bytes / shared[template.key] for cost, template in zip(costs, templates, strict=True))
    return Cost(sum(cost.ns for cost in costs), code + _weight_bytes(templates[0]))


def _weight_bytes(template: Template) -> float:
    """Return the bytes of a layer's weights; operators of one layer share them."""
    window = template.window
    kernels = 1 if template.kind == DEPTHWISE else window.kernels
    bits = 8 * np.dtype(template.arithmetic.weight).itemsize if template.arithmetic.is_float else template.bits
    return math.prod(window.kernel) * window.channels * kernels * bits / 8
