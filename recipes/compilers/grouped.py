"""Bring the groups of a network into the search space of its converted model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from recipes.compilers.layers import LayerMap
from recipes.compress.groups import Axis, ChannelGroup, LeftOut, Plan, prune_group


@dataclass(frozen=True, slots=True)
class Grouped:
    """Layers whose space has groups, and what cannot be pruned."""

    layers: LayerMap
    left_out: tuple[LeftOut, ...]


def with_groups(layers: LayerMap, plan: Plan) -> Grouped:
    """Add a plan's groups to a space; one with a layer that the converted model does not have is left out."""
    known = frozenset(layers.space.by_name)
    groups, left_out = [], list(plan.left_out)
    for group in plan.groups:
        lost = _lost(group, known)
        if lost:
            left_out.append(LeftOut(group.name, f"the converted model has no layer of the name {', '.join(lost)}"))
        else:
            groups.append(prune_group(group, known))
    return Grouped(replace(layers, space=replace(layers.space, groups=tuple(groups))), tuple(left_out))


def _lost(group: ChannelGroup, known: frozenset[str]) -> list[str]:
    return [m.module for m in group.members if m.axis is not Axis.BOTH and m.module not in known]
