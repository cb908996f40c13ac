"""Constraints that nothing can meet, answered as soon as that is known and not after a long search."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.config import StudyConfig
from orchestrator.errors import UsageError
from orchestrator.units import parse_size_budget, show_bytes
from search.goal import Evidence, Requirement, resolve_minimum
from search.space import SearchSpace

BESIDE = 0.9
"""Every artifact holds at least this share of what float32's holds beside its weights."""
GAIN = 0.01
"""By more than this no candidate is better than float32: rounding may gain a little on a validation split."""


def refuse_hopeless(config: StudyConfig, metric: str, spaces: Mapping[str, SearchSpace],
                    float32: Mapping[str, Evidence], size_bytes: float | None = None) -> None:
    """Refuse constraints that contradict the network, as far as it is known by now.

    Args:
        config: the study.
        metric: the objective.
        spaces: compiler -> its whole space.
        float32: compiler -> what is known of it, where it was measured.
        size_bytes: the size budget, where it is a share of a baseline that was measured.

    Raises:
        UsageError: which says what was asked, what is possible and what to change.
    """
    again = f"; to change it: orchestrator search --study {config.study} --resume" if float32 else ""
    if config.size_budget is not None:
        limit = size_bytes or parse_size_budget(config.size_budget).absolute
        least = min(least_bytes(space, float32.get(name)) for name, space in spaces.items())
        if limit is not None and limit < least:
            prune = "" if config.prune else ", or --prune in a new study"
            raise UsageError(f"--size-budget {config.size_budget} ({show_bytes(limit)}): every artifact of this "
                             f"network is larger than {show_bytes(least)}, also with all layers in their narrowest "
                             f"formats; give a larger one{prune}{again}{' --size-budget SIZE' if again else ''}")
    if not float32:
        return
    metrics = next(iter(float32.values())).metrics
    requirements = [Requirement.parse(text) for text in config.require]
    for name, bound in resolve_minimum(metric, None, requirements, metrics).items():
        if metrics[name] < bound - GAIN:
            raise UsageError(f"--require asks for {name} >= {bound:.4f}, but float32 itself has "
                             f"{metrics[name]:.4f}, and narrower formats do not gain a point{again} "
                             f"--require '{name} >= -0.01' allows one point less than float32 has")


def least_bytes(space: SearchSpace, float32: Evidence | None) -> float:
    """Return a size that no artifact goes below: the weights at their narrowest, and most of what float32 holds beside.

    Channels of a layer may be narrowed on both sides.
    """
    narrowest = min((group.widths[-1] / group.channels for group in space.groups), default=1.0)
    least = sum(layer.weights * min(c.weight_bits for c in layer.choices) / 8 for layer in space.layers)
    beside = 0.0
    if float32 is not None:
        beside = max(float32.size_bytes - sum(layer.weights * 4 for layer in space.layers), 0.0)
    return narrowest ** 2 * (least + BESIDE * beside)
