"""The seam of recovery: a network, widths and a level in, a narrowed network out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipes.compress.groups import Plan
from recipes.compress.narrow import narrow
from recipes.compress.reconstruct import Rebuilt, reconstruct
from recipes.compress.repeatable import repeatable
from recipes.compress.watch import affordable
from recipes.models.network import Network
from search.candidate import Recovery

if TYPE_CHECKING:
    import torch

REVISION = 1
"""Counts the changes of what recovery computes, so that a cache does not give what an older version did."""


@dataclass(frozen=True, slots=True)
class Report:
    """What recovery did."""

    level: Recovery
    rebuilt: tuple[Rebuilt, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovered:
    """A narrowed network with contiguous parameters, and what was done to it."""

    network: Network
    report: Report


def recover(network: Network, plan: Plan, widths: Mapping[str, int], inputs: Mapping[str, torch.Tensor],
            positional: bool, level: Recovery, seed: int) -> Recovered:
    """Narrow a copy of a network and win its accuracy back.

    The same arguments give the same bits on the same kind of computer.

    Args:
        network: at full width, folded; it stays as it is.
        plan: its groups, with their channels in order.
        widths: group name -> kept channels.
        inputs: calibration inputs; of a large network only the first ones are used, see `watch.affordable`.
        positional: pass the inputs by position and not by name.
        level: how much effort; `none` only narrows.
        seed: of levels that draw; narrowing and least squares do not.
    """
    unknown = sorted(set(widths) - {group.name for group in plan.groups})
    if unknown:
        raise ValueError(f"no group is called {', '.join(unknown)}; groups: "
                         f"{', '.join(group.name for group in plan.groups) or 'none'}")
    kept = {group.name: group.kept(widths[group.name]) for group in plan.groups if group.name in widths}
    narrowed = Network(copy.deepcopy(network.module), network.arguments, network.shapes)
    narrow(narrowed.module, plan.groups, kept)
    if level is Recovery.NONE:
        return Recovered(narrowed, Report(level))
    with repeatable(seed):
        count = affordable(network, inputs, positional, len(next(iter(inputs.values()))))
        few = {name: tensor[:count] for name, tensor in inputs.items()}
        rebuilt = reconstruct(narrowed, network, plan.groups, kept, few, positional)
    return Recovered(narrowed, Report(level, rebuilt))
