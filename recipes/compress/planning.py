"""Plan the pruning of a network, once for a study: groups, and the order of their channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from recipes.boundary import foreign
from recipes.compress.groups import LeftOut, Plan
from recipes.errors import ModelError
from recipes.models.network import Network, tensors
from recipes.models.source import Reference
from recipes.ports import Array

REVISION = 1
"""Counts the changes of what planning finds, so that a cache does not give what an older version did."""
FEW = 4
"""Examples on which structure is looked at: what is executed, what is coupled."""
FIXED: Mapping[str, str] = MappingProxyType({
    "tflite": "a .tflite model has fixed shapes and no PyTorch network to narrow; give the network as FILE.py:FACTORY",
    "onnx": "an ONNX graph has fixed shapes; give the network as FILE.py:FACTORY",
    "pt2": "an exported .pt2 graph has fixed shapes; give the network as FILE.py:FACTORY"})
"""Kinds of references that cannot be pruned, and why."""


@dataclass(frozen=True, slots=True)
class PruneSettings:
    """What a study says of pruning."""

    criterion: str
    """In which order channels go: a name of `recipes.compress.criteria.CRITERIA`."""
    seed: int
    """Of recovery that draws."""


@dataclass(frozen=True, slots=True)
class PruneInputs:
    """Everything but widths and level that decides a narrowed network."""

    model: Reference
    positional: bool
    """Its inputs are passed by position and not by name."""
    weights: str
    """Blob: of the network at full width."""
    plan: str
    """Blob: the groups, their channels in order."""
    calibration: str
    """Blob: the calibration split."""
    seed: int


def plan_pruning(reference: Reference, network: Network | None, inputs: Mapping[str, Array], positional: bool,
                 settings: PruneSettings) -> Plan:
    """Find the groups of a network and order their channels on the calibration inputs.

    Raises ModelError where the criterion does not apply to the network.
    """
    if network is None or reference.kind in FIXED:
        return Plan((), (LeftOut("", FIXED[reference.kind]),))
    from recipes.compress.criteria import Subject, order_channels
    from recipes.compress.find import find_groups
    from recipes.compress.fold import fold
    from recipes.compress.repeatable import repeatable
    from recipes.compress.watch import affordable

    few = tensors(inputs, 0, FEW)
    with repeatable(settings.seed):
        try:
            with foreign(f"running a copy of it on {FEW} inputs at once", ModelError):
                folded = fold(network, few, positional)
        except ModelError as error:
            return Plan((), (LeftOut("", f"the network cannot be copied, or takes no batch: {error}"),))
        plan = find_groups(folded.network, few, positional)
        count = affordable(folded.network, few, positional, len(next(iter(inputs.values()))))
        subject = Subject(folded, tensors(inputs, 0, count), positional)
        return order_channels(plan, subject, settings.criterion)
