"""What the measured recipes leave of every layer's choices: the reduced space of searchers on an ordinal scale."""

from __future__ import annotations

from collections.abc import Mapping

from search.goal import Evidence, Goal
from search.space import LayerConfig, Scheme, SearchSpace

MARGIN = 0.02
LOSS = 0.002


def reduced_choices(space: SearchSpace, weighted: Mapping[LayerConfig, Evidence],
                    weightless: Mapping[str, Evidence], goal: Goal) -> dict[str, tuple[LayerConfig, ...]]:
    """Keep, per layer, float32 and what the measured recipes do not rule out.

    Args:
        space: the whole space.
        weighted: configuration -> evidence of the candidate in which all layers with weights take it
            and the others stay float32. A configuration that was not measured is left out, and so is
            one that another dominates: faster by more than `MARGIN`, no worse in the objective by more
            than `LOSS`, and (where the size counts) no larger.
        weightless: kind of operator without weights -> evidence of static int8 weights with that kind
            static too. A kind that makes it slower by more than `MARGIN` stays float32.
        goal: says what counts.
    """
    kept = {config for config, evidence in weighted.items()
            if not any(_dominates(other, evidence, goal) for key, other in weighted.items() if key != config)}
    base = next((e for config, e in weighted.items() if config.scheme is Scheme.STATIC and config.weight_bits == 8),
                None)
    slow = {kind for kind, evidence in weightless.items()
            if base is not None and evidence.latency_s > base.latency_s * (1 + MARGIN)}
    choices = {}
    for layer in space.layers:
        if layer.weights:
            choices[layer.name] = tuple(c for c in layer.choices if c in kept or c == layer.choices[0])
        else:
            choices[layer.name] = layer.choices[:1] if layer.kind in slow else layer.choices
    return choices


def _dominates(one: Evidence, other: Evidence, goal: Goal) -> bool:
    sized = goal.size_budget_bytes is not None or (goal.front is not None and goal.front.size)
    smaller = not sized or one.size_bytes <= other.size_bytes
    return (smaller and one.latency_s < other.latency_s * (1 - MARGIN)
            and one.metrics[goal.objective] >= other.metrics[goal.objective] - LOSS)
