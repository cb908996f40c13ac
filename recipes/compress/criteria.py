"""In which order a group's channels go: criteria, chosen by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from recipes.compress.fold import Folded
from recipes.compress.groups import ChannelGroup, Member, Plan
from recipes.compress.obs import Consumer, removal_order
from recipes.compress.watch import first_input, plain_attention
from recipes.errors import ModelError
from recipes.models.network import call, flatten

if TYPE_CHECKING:
    import torch

WIDE = 2600
"""Columns of a reader that structured OBS looks at; its work grows with their cube."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A folded network and the inputs on which its channels are judged."""

    folded: Folded
    inputs: Mapping[str, torch.Tensor]
    positional: bool

    def layer(self, member: Member) -> Any:
        return self.folded.network.module.get_submodule(member.module)


Criterion = Callable[[Subject, ChannelGroup], Sequence[int]]
"""Returns all channels of the group, the most important first."""


def order_channels(plan: Plan, subject: Subject, criterion: str) -> Plan:
    """Order every group's channels. Raises ModelError where the criterion does not apply to the network."""
    rank = CRITERIA[criterion]
    return replace(plan, groups=tuple(replace(group, order=tuple(int(c) for c in rank(subject, group)))
                                      for group in plan.groups))


def obs(subject: Subject, group: ChannelGroup) -> Sequence[int]:
    """Order by structured Optimal Brain Surgeon, see `obs.removal_order`."""
    from recipes.compress.moments import matrix, moments

    consumers: list[Consumer] = []
    members = {member.module: member for member in group.readers}

    def look(path: str, layer: Any, given: torch.Tensor, output: torch.Tensor) -> None:
        weight = matrix(layer)[0]
        columns = _columns(members[path], group.channels, weight.shape[1] // layer.weight.shape[1])
        used = [column for own in columns for column in own]
        found = moments(layer, given, output, used)
        place = {column: index for index, column in enumerate(used)}
        consumers.append(Consumer(weight[:, used], found.xx[0], [[place[c] for c in own] for own in columns]))

    _visit(subject, group.readers, look)
    return tuple(reversed(removal_order(consumers, group.channels)))


def magnitude(subject: Subject, group: ChannelGroup) -> Sequence[int]:
    """Order by the norm of the weights that write a channel (Li et al. 2017, arXiv 1608.08710)."""
    import torch

    scores = torch.zeros(group.channels, dtype=torch.float64)
    for member in group.writers:
        rows = subject.layer(member).weight.detach().flatten(1).double().square().sum(1)
        scores.index_add_(0, torch.tensor(member.channels), rows[list(member.positions)])
    return _descending(scores)


def bn_scale(subject: Subject, group: ChannelGroup) -> Sequence[int]:
    """Order by the scales of the batch normalisations of a channel (Liu et al. 2017, arXiv 1708.06519)."""
    import torch

    scores = torch.zeros(group.channels, dtype=torch.float64)
    members = [member for member in group.writers if member.module in subject.folded.scales]
    if not members:
        others = ", ".join(name for name in CRITERIA if name != "bn_scale")
        raise ModelError("--prune-criterion bn_scale: no batch normalisation follows the layers of group "
                         f"{group.name}; choose another: {others}")
    for member in members:
        scale = subject.folded.scales[member.module].double()
        scores.index_add_(0, torch.tensor(member.channels), scale[list(member.positions)])
    return _descending(scores)


def activation(subject: Subject, group: ChannelGroup) -> Sequence[int]:
    """Order by the mean square of what the readers read of a channel."""
    import torch

    scores = torch.zeros(group.channels, dtype=torch.float64)
    members = {member.module: member for member in group.readers}

    def look(path: str, layer: Any, given: torch.Tensor, output: torch.Tensor) -> None:
        squares = _by_channel(layer, given).double().square().mean(0)
        scores.index_add_(0, torch.tensor(members[path].channels), squares[list(members[path].positions)])

    _visit(subject, group.readers, look)
    return _descending(scores)


def taylor(subject: Subject, group: ChannelGroup) -> Sequence[int]:
    """Order by the squared first-order change of the loss (Molchanov et al. 2019, arXiv 1906.10771, eq. 8).

    The loss needs no labels: cross entropy with the network's own decision for class scores (n, classes), else
    half the squared output.
    """
    import torch

    scores = torch.zeros(group.channels, dtype=torch.float64)
    members = {member.module: member for member in group.readers}
    read: list[tuple[str, torch.Tensor]] = []

    def follow(path: str, layer: Any, given: torch.Tensor) -> torch.Tensor:
        given = given.detach().requires_grad_(True) if not given.requires_grad else given
        given.retain_grad()
        read.append((path, given))
        return given

    network, module = subject.folded.network, subject.folded.network.module
    handles = [module.get_submodule(path).register_forward_pre_hook(
        lambda layer, args, path=path: (follow(path, layer, args[0]), *args[1:])) for path in members]
    given, positional = network.arrange(subject.inputs, subject.positional)
    try:
        with torch.enable_grad(), plain_attention():
            outputs = flatten(module(*given.values()) if positional else module(**given))
            sum(_own_loss(output) for output in outputs).backward()  # type: ignore[union-attr]
    finally:
        for handle in handles:
            handle.remove()
        module.zero_grad(set_to_none=True)
    for path, tensor in read:
        if tensor.grad is None:
            continue
        member, layer = members[path], module.get_submodule(path)
        effect = _by_channel(layer, tensor.detach() * tensor.grad, len(tensor)).double().sum(1).square().mean(0)
        scores.index_add_(0, torch.tensor(member.channels), effect[list(member.positions)])
    return _descending(scores)


CRITERIA: Mapping[str, Criterion] = MappingProxyType({
    "obs": obs, "magnitude": magnitude, "bn_scale": bn_scale, "taylor": taylor, "activation": activation})


def _own_loss(output: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    if output.ndim == 2 and output.shape[1] > 1:
        return functional.cross_entropy(output, output.detach().argmax(1), reduction="sum")
    return output.float().square().sum() / 2


def _visit(subject: Subject, members: Sequence[Member], look: Callable[[str, Any, Any, Any], None]) -> None:
    """Run the network and show every member's layer, its input and its output."""
    network = subject.folded.network

    def hook(path: str) -> Any:
        return lambda layer, args, kwargs, output: look(path, layer, first_input(args, kwargs), output)

    handles = [network.module.get_submodule(m.module).register_forward_hook(hook(m.module), with_kwargs=True)
               for m in members]
    try:
        with plain_attention():
            call(network, subject.inputs, subject.positional)
    finally:
        for handle in handles:
            handle.remove()


def _by_channel(layer: Any, tensor: torch.Tensor, examples: int | None = None) -> torch.Tensor:
    """Bring an input of a layer into the form (rows, channels), or (examples, rows, channels)."""
    last = tensor if hasattr(layer, "in_features") else tensor.movedim(1, -1)
    return last.reshape(-1, last.shape[-1]) if examples is None else last.reshape(examples, -1, last.shape[-1])


def _columns(member: Member, channels: int, kernel: int) -> list[list[int]]:
    """Return, for every channel of the group, the columns of the reader's matrix that belong to it.

    Of a reader with more than `WIDE` columns, evenly spread ones.
    """
    columns: list[list[int]] = [[] for _ in range(channels)]
    for position, channel in zip(member.positions, member.channels, strict=True):
        columns[channel] += range(position * kernel, (position + 1) * kernel)
    every = -(-channels * len(columns[0]) // WIDE)
    return [own[::every] for own in columns]


def _descending(scores: torch.Tensor) -> list[int]:
    order: list[int] = scores.argsort(descending=True, stable=True).tolist()
    return order
