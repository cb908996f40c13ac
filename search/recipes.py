"""The uniform recipes of the ecosystem and the per-operator-kind seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from search.candidate import Candidate
from search.space import FLOAT32, LayerConfig, Scheme, SearchSpace

UNIFORM: Mapping[str, LayerConfig] = {
    "float32": FLOAT32,
    "fp16": LayerConfig(weight_bits=16),
    "dynamic_int8": LayerConfig(8, 32, Scheme.DYNAMIC),
    "weight_only_int8": LayerConfig(8, 32, Scheme.WEIGHT_ONLY),
    "int8": LayerConfig(8, 8, Scheme.STATIC),
    "int4": LayerConfig(4, 8, Scheme.STATIC),
}
"""What every tool offers: one configuration for all layers."""

WEIGHTED = ":weighted"
"""Ends the names of recipes of all layers with weights."""


@dataclass(frozen=True, slots=True)
class Named:
    """A candidate with a name that a report can print."""

    name: str
    candidate: Candidate
    widened: tuple[str, ...] = ()
    """Layers with weights that took the next wider legal configuration."""


def uniform(space: SearchSpace, name: str, threads: int) -> Named | str:
    """Return the uniform recipe `name` on `space`, or the reason why there is none."""
    config = UNIFORM[name]
    weighted = [layer for layer in space.layers if layer.weights]
    if not any(config in layer.choices for layer in weighted):
        return f"no layer of this network can take {config.label} on this compiler and runtime"
    chosen = {layer.name: layer.widen(config) for layer in space.layers}
    widened = tuple(layer.name for layer in weighted if chosen[layer.name] != config)
    return Named(name, Candidate.of(space, chosen, threads), widened)


def uniforms(space: SearchSpace, names: Iterable[str], threads: int) -> tuple[list[Named], dict[str, str]]:
    """Return the uniform recipes that there are on `space`, and name -> why there is none."""
    made = {name: uniform(space, name, threads) for name in names}
    return ([found for found in made.values() if isinstance(found, Named)],
            {name: found for name, found in made.items() if isinstance(found, str)})


def seeds(space: SearchSpace, threads: int) -> Iterator[Named]:
    """Yield per-operator-kind recipes, the most promising first.

    Names: `int8:weighted` (all layers with weights), `int8:CONV_2D` (one kind of them),
    `int8:weighted+SOFTMAX` (and one kind without weights).
    """
    for recipe in ("int8", "dynamic_int8", "int4"):
        if isinstance(uniform(space, recipe, threads), str):
            continue
        yield _kinds(space, f"{recipe}{WEIGHTED}", recipe, _weighted_kinds(space), threads)
    if len(_weighted_kinds(space)) > 1:
        for kind in _weighted_kinds(space):
            yield _kinds(space, f"int8:{kind}", "int8", (kind,), threads)
    others = tuple(dict.fromkeys(layer.kind for layer in space.layers if not layer.weights))
    if len(others) > 1:
        for kind in others:
            yield _kinds(space, weightless_seed(kind), "int8", (*_weighted_kinds(space), kind), threads)


def weightless_seed(kind: str) -> str:
    """Return the name of the seed in which layers with weights and one kind without are static int8."""
    return f"int8{WEIGHTED}+{'NORM' if '+' in kind else kind}"


def _weighted_kinds(space: SearchSpace) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer.kind for layer in space.layers if layer.weights))


def _kinds(space: SearchSpace, name: str, recipe: str, kinds: tuple[str, ...], threads: int) -> Named:
    config = UNIFORM[recipe]
    chosen = {layer.name: layer.widen(config) if layer.kind in kinds else layer.choices[0]
              for layer in space.layers}
    widened = tuple(layer.name for layer in space.layers
                    if layer.kind in kinds and layer.weights and chosen[layer.name] != config)
    return Named(name, Candidate.of(space, chosen, threads), widened)
