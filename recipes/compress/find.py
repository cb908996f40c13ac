"""Find the coupled channel groups of a network, and prove that each can be narrowed."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from recipes.boundary import foreign
from recipes.compress.fold import SAME
from recipes.compress.groups import ROUND_TO, Axis, ChannelGroup, LeftOut, Member, Plan, legal_widths
from recipes.compress.narrow import narrow, positions
from recipes.compress.watch import execution, plain_attention
from recipes.errors import ModelError
from recipes.models.network import Network, call, deviation, flatten

if TYPE_CHECKING:
    import torch

NOTHING = "the network has no convolution or linear layer whose channels another one reads"


class _Refused(Exception):
    """A group that cannot be handled; the message is the reason."""


def find_groups(network: Network, inputs: Mapping[str, torch.Tensor], positional: bool) -> Plan:
    """Return the groups that can be narrowed, in the order of execution, and the others with a reason.

    torch-pruning's dependency graph (Fang et al. 2023, arXiv 2301.12900) says which layers share channels. It
    guesses how operators move channels, so every group is tried: the narrowed network must compute what the
    whole one computes when the layers that read the dropped channels ignore them.

    Args:
        network: in evaluation mode; see `fold`.
        inputs: a few examples.
        positional: pass the inputs by position and not by name.
    """
    try:
        with foreign("tracing the network for pruning", ModelError):
            found = _coupled(network, inputs, positional)
            order = _execution_order(network, inputs, positional)
    except ModelError as error:
        return Plan((), (LeftOut("", str(error)),))
    groups: list[ChannelGroup] = []
    left_out: list[LeftOut] = []
    for members in sorted(found, key=lambda items: min(order.get(item.path, len(order)) for item in items)):
        written = [item for item in members if item.writes]
        name = min(written or members, key=lambda item: order.get(item.path, len(order))).path
        try:
            group = _group(network.module, name, members, order)
            _prove(network, [*groups, group], inputs, positional)
        except _Refused as refused:
            left_out.append(LeftOut(name, str(refused)))
        else:
            groups.append(group)
    if not groups and not left_out:
        left_out.append(LeftOut("", NOTHING))
    return Plan(tuple(groups), tuple(left_out))


@dataclass(frozen=True, slots=True)
class _Item:
    """A node of torch-pruning's group."""

    path: str
    """Of the module; `` for an operator."""
    module: Any
    kind: str
    """torch-pruning's word: CONV, LINEAR, PARAMETER, ..."""
    writes: bool
    positions: tuple[int, ...]
    channels: tuple[int, ...]
    tied: bool
    """Dropping one channel drops others of the group too."""


def _coupled(network: Network, inputs: Mapping[str, torch.Tensor], positional: bool) -> list[list[_Item]]:
    """Ask torch-pruning for all groups of the network."""
    import torch
    import torch_pruning

    traced = Network(copy.deepcopy(network.module), network.arguments, network.shapes)
    for parameter in traced.module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)  # the graph is read from autograd
    given, by_position = traced.arrange(inputs, positional)

    def forward(module: Any, example: Any) -> Any:
        return flatten(module(*given.values()) if by_position else module(**given))

    with warnings.catch_warnings(), torch.enable_grad(), plain_attention():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(
            traced.module, list(given.values()), forward_fn=forward, verbose=False)
        paths = {id(module): path for path, module in traced.module.named_modules()}
        paths |= {id(parameter): path for path, parameter in traced.module.named_parameters()}
        groups = list(graph.get_all_groups())
        return [[_item(graph, group, number, paths) for number in range(len(group))] for group in groups]


def _item(graph: Any, group: Any, number: int, paths: Mapping[int, str]) -> _Item:
    entry = group[number]
    node, handler = entry.dep.target, entry.dep.handler
    tied = False
    if number == 0 and len(entry.idxs) > 1:
        alone = graph.get_pruning_group(node.module, handler, [entry.idxs[0]])
        tied = len(alone[0].idxs) > 1
    reads = handler.__name__ == "prune_in_channels" and node.type.name in ("CONV", "LINEAR")
    return _Item(paths.get(id(node.module), ""), node.module, node.type.name,
                 node.type.name in ("CONV", "LINEAR") and not reads,
                 tuple(int(i) for i in entry.idxs), tuple(int(i) for i in entry.root_idxs), tied)


def _execution_order(network: Network, inputs: Mapping[str, torch.Tensor], positional: bool) -> dict[str, int]:
    order: dict[str, int] = {}
    for executed in execution(network, inputs, positional):
        order.setdefault(executed.path, len(order))
    return order


def _group(module: torch.nn.Module, name: str, items: Sequence[_Item], order: Mapping[str, int]) -> ChannelGroup:
    """Turn torch-pruning's group into ours. Raises _Refused where a member is none that can be cut."""
    owners = _owners(module)
    members: list[Member] = []
    for item in items:
        if item.kind == "PARAMETER":
            raise _Refused(f"the parameter {item.path} has them too")
        if not item.path:
            continue
        members.append(_member(module.get_submodule(item.path), item, owners))
    channels = len(items[0].positions)
    if items[0].tied:
        raise _Refused("some of them are computed from others of them")
    if not any(member.axis is Axis.IN for member in members):
        raise _Refused("they are an output of the network")
    if len(legal_widths(channels)) < 2:
        raise _Refused(f"{channels} are too few: kept channels are multiples of {ROUND_TO}")
    members.sort(key=lambda member: (order.get(member.module, len(order)), member.axis))
    return ChannelGroup(name, channels, tuple(members))


def _member(layer: Any, item: _Item, owners: Mapping[int, list[str]]) -> Member:
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
    from torch.nn.modules.instancenorm import _InstanceNorm

    shared = [path for parameter in layer.parameters(recurse=False) for path in owners[id(parameter)]
              if path != item.path]
    if shared:
        raise _Refused(f"{item.path} shares its weights with {shared[0]}")
    if isinstance(layer, (_ConvNd, nn.Linear)):
        kind: Any = next(known for known in type(layer).__mro__ if known.__module__.startswith("torch.nn.modules"))
        if isinstance(layer, _ConvTransposeNd):
            raise _Refused(f"{item.path} is a transposed convolution")
        if type(layer).forward is not kind.forward:
            raise _Refused(f"{item.path} is a {kind.__name__} with a forward of its own ({type(layer).__name__})")
        if not isinstance(layer.weight, nn.Parameter):
            raise _Refused(f"the weights of {item.path} are computed from others (a parametrisation)")
        if item.kind == "DEPTHWISE_CONV" and layer.in_channels == layer.out_channels:
            return Member(item.path, Axis.BOTH, item.positions, item.channels)
        if getattr(layer, "groups", 1) != 1:
            raise _Refused(f"{item.path} is a convolution in {layer.groups} groups")
        reader = Member(item.path, Axis.IN, item.positions, item.channels)
        return replace(reader, axis=Axis.OUT) if item.writes else reader
    if isinstance(layer, _BatchNorm) or (isinstance(layer, nn.PReLU) and layer.num_parameters > 1):
        return Member(item.path, Axis.BOTH, item.positions, item.channels)
    if isinstance(layer, nn.PReLU):
        return Member(item.path, Axis.BOTH, (), ())
    if isinstance(layer, (nn.LayerNorm, nn.GroupNorm, _InstanceNorm)):
        raise _Refused(f"{item.path} ({type(layer).__name__}) normalises over them")
    raise _Refused(f"{item.path} is a {type(layer).__name__}, which cannot be narrowed")


def _owners(module: torch.nn.Module) -> dict[int, list[str]]:
    """Return the modules that hold each parameter."""
    owners: defaultdict[int, list[str]] = defaultdict(list)
    for path, part in module.named_modules():
        for parameter in part.parameters(recurse=False):
            owners[id(parameter)].append(path)
    return owners


def _prove(network: Network, groups: Sequence[ChannelGroup], inputs: Mapping[str, torch.Tensor],
           positional: bool) -> None:
    """Narrow all groups to channels drawn at random and compare with a network that ignores the others.

    Raises _Refused when the last group does not fit.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    kept = {group.name: torch.randperm(group.channels, generator=generator)[:legal_widths(group.channels)[-1]].tolist()
            for group in groups}
    deaf = Network(copy.deepcopy(network.module), network.arguments, network.shapes)
    for (path, axis), stays in positions(deaf.module, groups, kept).items():
        if axis is Axis.IN:
            layer: Any = deaf.module.get_submodule(path)
            gone = torch.ones(layer.weight.shape[1], dtype=torch.bool)
            gone[stays] = False
            layer.weight.data[:, gone] = 0
    smaller = Network(copy.deepcopy(network.module), network.arguments, network.shapes)
    narrow(smaller.module, groups, kept)
    expected = call(deaf, inputs, positional)
    try:
        with foreign("with fewer of them the network", ModelError):
            got = call(smaller, inputs, positional)
    except ModelError as error:
        raise _Refused(f"something else depends on their number: {error}") from error
    if [one.shape for one in got] != [one.shape for one in expected]:
        raise _Refused("they are an output of the network")
    for one, other in zip(got, expected, strict=True):
        if deviation(one.numpy(), other.numpy(), other.numpy()) > SAME:
            raise _Refused("their place matters (the heads of an attention, for example): without some of them the "
                           "network computes something else")
