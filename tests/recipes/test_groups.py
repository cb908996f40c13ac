"""Which channels are coupled, which cannot be narrowed and why, and that narrowing keeps the function."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recipes.compress.find import find_groups
from recipes.compress.fold import fold
from recipes.compress.groups import Axis, ChannelGroup, Plan, legal_widths, prune_group
from recipes.compress.narrow import narrow
from recipes.compress.planning import PruneSettings, plan_pruning
from recipes.compress.watch import affordable
from recipes.demo import networks
from recipes.models.network import Network, call, settle
from recipes.models.source import parse_model
from tests.recipes.odd_networks import LEFT_OUT, PRUNABLE, SIZE, NormFirst, Series, SplitPath, Twice

Factory = Callable[[], nn.Module]


def sample(factory: Factory, count: int = 4) -> dict[str, torch.Tensor]:
    shape: tuple[int, ...] = (1, 28, 28) if factory.__module__ == networks.__name__ else (3, SIZE, SIZE)
    if factory is Series:
        shape = (3, 16)
    return {"x": torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))}


def network_of(factory: Factory) -> Network:
    """Make a network with normalisations that do something."""
    torch.manual_seed(0)
    module = factory()
    if factory.__module__ != networks.__name__:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 2)
                nn.init.uniform_(part.bias)
                part.running_mean = torch.rand_like(part.weight)
                part.running_var = torch.rand_like(part.weight) + 0.5
    settle(module, "network")
    return Network(module)


def plan_of(factory: Factory) -> tuple[Network, Plan]:
    folded = fold(network_of(factory), sample(factory), True).network
    return folded, find_groups(folded, sample(factory), True)


def shape_of(group: ChannelGroup) -> tuple[set[str], set[str], set[str]]:
    found = {axis: {m.module for m in group.members if m.axis is axis} for axis in Axis}
    return found[Axis.OUT], found[Axis.BOTH], found[Axis.IN]


def test_the_residual_trunk_is_one_group_and_every_blocks_inside_is_another() -> None:
    groups = {group.name: shape_of(group) for group in plan_of(networks.residual)[1].groups}
    assert groups == {
        "stem.0": ({"stem.0", "blocks.0.second.0"}, set(),
                   {"blocks.0.first.0", "blocks.1.first.0", "blocks.1.shortcut.0"}),
        "blocks.0.first.0": ({"blocks.0.first.0"}, set(), {"blocks.0.second.0"}),
        "blocks.1.first.0": ({"blocks.1.first.0"}, set(), {"blocks.1.second.0"}),
        "blocks.1.second.0": ({"blocks.1.second.0", "blocks.1.shortcut.0"}, set(),
                              {"blocks.2.first.0", "blocks.2.shortcut.0"}),
        "blocks.2.first.0": ({"blocks.2.first.0"}, set(), {"blocks.2.second.0"}),
        "blocks.2.second.0": ({"blocks.2.second.0", "blocks.2.shortcut.0"}, set(), {"head"})}


def test_a_depthwise_convolution_goes_with_what_feeds_it() -> None:
    groups = {group.name: shape_of(group) for group in plan_of(networks.separable)[1].groups}
    writers = ["stem.0", *(f"blocks.{i}.pointwise.0" for i in range(3))]
    assert groups == {
        **{writer: ({writer}, {f"blocks.{i}.depthwise.0"}, {f"blocks.{i}.pointwise.0"})
           for i, writer in enumerate(writers)},
        "blocks.3.pointwise.0": ({"blocks.3.pointwise.0"}, set(), {"head"})}


def test_of_a_transformer_only_the_hidden_layer_of_each_perceptron_is_narrowed() -> None:
    plan = plan_of(networks.transformer)[1]
    assert {group.name: shape_of(group) for group in plan.groups} == {
        f"blocks.{i}.expand": ({f"blocks.{i}.expand"}, set(), {f"blocks.{i}.contract"}) for i in range(4)}
    reasons = {entry.name: entry.reason for entry in plan.left_out}
    assert set(reasons) == {"patches", "head", *(f"blocks.{i}.attention.query" for i in range(4))}
    assert "normalises over them" in reasons["patches"]
    assert "heads of an attention" in reasons["blocks.0.attention.query"]


@pytest.mark.parametrize("factory", PRUNABLE, ids=lambda f: f.__name__)
def test_what_can_be_narrowed_is_found(factory: Factory) -> None:
    plan = plan_of(factory)[1]
    assert tuple(group.name for group in plan.groups) == PRUNABLE[factory]
    assert [entry.reason for entry in plan.left_out] == ["they are an output of the network"]


@pytest.mark.parametrize("factory", LEFT_OUT, ids=lambda f: f.__name__)
def test_what_cannot_be_narrowed_is_named_with_a_reason(factory: Factory) -> None:
    plan = plan_of(factory)[1]
    reasons = {entry.name: entry.reason for entry in plan.left_out}
    for name, pattern in LEFT_OUT[factory].items():
        assert name not in [group.name for group in plan.groups]
        assert re.search(pattern, reasons[name]), reasons


@pytest.mark.parametrize("factory", [*PRUNABLE, networks.residual, networks.separable, networks.transformer],
                         ids=lambda f: f.__name__)
def test_dropping_dead_channels_changes_nothing(factory: Factory) -> None:
    """Kill the second half of each group where it is written and where it is read; cut it; compare."""
    network, plan = plan_of(factory)
    for group in plan.groups:
        dead = set(range(group.channels // 2, group.channels))
        for member in group.members:
            rows = [p for p, channel in zip(member.positions, member.channels, strict=True) if channel in dead]
            weight = network.module.get_parameter(f"{member.module}.weight")
            if member.axis is Axis.IN:
                weight.data[:, rows] = 0
            elif member.axis is Axis.OUT:
                weight.data[rows] = 0
    before = call(network, sample(factory), True)
    count = sum(parameter.numel() for parameter in network.module.parameters())
    narrow(network.module, plan.groups, {g.name: range(g.channels // 2) for g in plan.groups})
    assert sum(parameter.numel() for parameter in network.module.parameters()) < 0.8 * count
    assert all(parameter.is_contiguous() for parameter in network.module.parameters())
    for one, other in zip(before, call(network, sample(factory), True), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_a_frozen_network_has_the_groups_of_a_trained_one() -> None:
    network = network_of(networks.residual)
    network.module.requires_grad_(False)
    found = find_groups(network, sample(networks.residual), True)
    assert len(found.groups) == 6
    assert not any(parameter.requires_grad for parameter in network.module.parameters())


def test_looking_leaves_the_network_as_it_was() -> None:
    network = network_of(networks.separable)
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    find_groups(fold(network, sample(networks.separable), True).network, sample(networks.separable), True)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.module.state_dict().items())


def test_folding_keeps_the_function_and_says_what_the_scales_were() -> None:
    for factory, folded_away in ((networks.residual, 9), (NormFirst, 0), (SplitPath, 0)):
        network = network_of(factory)
        found = fold(network, sample(factory), True)
        norms = [m for m in found.network.module.modules() if isinstance(m, nn.BatchNorm2d)]
        all_norms = [m for m in network.module.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(all_norms) - len(norms) == folded_away
        for one, other in zip(call(network, sample(factory), True), call(found.network, sample(factory), True),
                              strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    scales = fold(network_of(networks.residual), sample(networks.residual), True).scales
    assert torch.equal(scales["stem.0"], network_of(networks.residual).module.get_parameter("stem.1.weight").abs())


def test_a_network_that_cannot_be_traced_is_left_alone_with_the_reason() -> None:
    class Stubborn(Twice):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.detach().numpy())  # type: ignore[arg-type]

    network = network_of(Stubborn)
    plan = find_groups(network, sample(Twice), True)
    assert plan.groups == ()
    assert plan.left_out[0].name == ""
    assert "tracing the network for pruning failed with" in plan.left_out[0].reason


@pytest.mark.parametrize(("channels", "widths"), [
    (16, (16, 8)), (32, (32, 24, 16, 8)), (64, (64, 56, 48, 40, 32, 24, 16, 8)), (20, (20, 16, 8)), (10, (10, 8)),
    (8, (8,)), (3, (3,)), (128, (128, 112, 96, 80, 64, 48, 32, 16))])
def test_widths_are_few_and_suit_the_kernels(channels: int, widths: tuple[int, ...]) -> None:
    assert legal_widths(channels) == widths


def test_a_group_in_the_space_names_layers_and_not_normalisations() -> None:
    group = plan_of(networks.separable)[1].groups[0]
    layers = frozenset({"stem.0", "blocks.0.depthwise.0", "blocks.0.pointwise.0"})
    found = prune_group(group, layers)
    assert found.produced_by == ("stem.0", "blocks.0.depthwise.0")
    assert found.read_by == ("blocks.0.depthwise.0", "blocks.0.pointwise.0")
    assert found.widths == (64, 56, 48, 40, 32, 24, 16, 8)


def test_a_plan_is_read_back_as_it_was() -> None:
    plan = plan_of(networks.residual)[1]
    ordered = replace(plan, groups=tuple(replace(g, order=tuple(reversed(range(g.channels)))) for g in plan.groups))
    assert Plan.from_bytes(ordered.to_bytes()) == ordered
    with pytest.raises(ValueError, match="group stem.0: its channels are not ordered yet"):
        plan.groups[0].kept(8)


def test_a_network_that_takes_no_batch_is_left_alone_with_the_reason(tmp_path: Path) -> None:
    class Single(networks.Separable):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.reshape(1, 1, 28, 28))

    (tmp_path / "net.py").touch()
    plan = plan_pruning(parse_model("net.py:make", tmp_path), Network(Single().eval()),
                        {"x": np.zeros((8, 1, 28, 28), np.float32)}, True, PruneSettings("obs", 0))
    assert plan.groups == ()
    assert "takes no batch: running a copy of it on 4 inputs at once failed" in plan.left_out[0].reason


def test_of_a_large_network_fewer_examples_are_held() -> None:
    network, few = network_of(networks.separable), sample(networks.separable)
    assert affordable(network, few, True, 256) == 256
    pixels = {"x": torch.zeros(1, 1, 512, 512)}
    assert 16 <= affordable(network, pixels, True, 256) < 64
