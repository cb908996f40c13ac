"""Which channels go, and what least squares wins back; every claim against a computation of its own."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recipes.compress import moments as moments_module
from recipes.compress.criteria import CRITERIA, Subject, order_channels
from recipes.compress.find import find_groups
from recipes.compress.fold import Folded, fold
from recipes.compress.groups import Axis, Plan, legal_widths
from recipes.compress.moments import matrix, moments
from recipes.compress.obs import DAMPING, Consumer, removal_order
from recipes.compress.reconstruct import _from_moments, _from_rows
from recipes.compress.recover import recover
from recipes.compress.weights import load_weights, weights_bytes
from recipes.demo import networks
from recipes.demo.data import fashion_mnist
from recipes.errors import ModelError
from recipes.models.network import Network, call, settle
from search.candidate import Recovery
from tests.recipes.odd_networks import SIZE, Base, Concatenated, Flattened, Series, Twice

ROOT = Path(__file__).parents[2]
FEW = 4


@cache
def data() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], np.ndarray[Any, Any]]:
    """Return calibration inputs, validation inputs and validation labels."""
    found = fashion_mnist()
    pictures, labels = found["validation"]
    return {"x": torch.from_numpy(found["calibration"])}, {"x": torch.from_numpy(pictures)}, labels


def accuracy(network: Network) -> float:
    _, pictures, labels = data()
    return float((call(network, pictures, True)[0].argmax(1).numpy() == labels).mean())


def folded(name: str) -> Folded:
    module = getattr(networks, name)()
    settle(module, name)
    return fold(Network(module), {"x": data()[0]["x"][:FEW]}, True)


@cache
def planned(name: str, criterion: str = "obs") -> tuple[Folded, Plan]:
    found = folded(name)
    plan = find_groups(found.network, {"x": data()[0]["x"][:FEW]}, True)
    return found, order_channels(plan, Subject(found, data()[0], True), criterion)


def at(plan: Plan, ratio: float) -> dict[str, int]:
    return {group.name: min(legal_widths(group.channels), key=lambda width: abs(width - ratio * group.channels))
            for group in plan.groups}


@cache
def cut(name: str, ratio: float, level: Recovery, criterion: str = "obs") -> Any:
    found, plan = planned(name, criterion)
    return recover(found.network, plan, at(plan, ratio), data()[0], True, level, 0)


def deviation(network: Network, name: str) -> float:
    """Return the squared error of the logits on images that nothing was fitted to."""
    whole, pictures = planned(name)[0].network, data()[1]
    return float((call(network, pictures, True)[0] - call(whole, pictures, True)[0]).square().mean())


@pytest.mark.parametrize("name", ["residual", "separable", "transformer"])
@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_least_squares_lowers_the_error_of_every_layer_and_of_the_network(name: str, ratio: float) -> None:
    plain, rebuilt = cut(name, ratio, Recovery.NONE), cut(name, ratio, Recovery.RECONSTRUCT)
    assert plain.report.rebuilt == ()
    assert len(rebuilt.report.rebuilt) >= 8
    assert all(layer.after < layer.before or layer.before < 1e-9 for layer in rebuilt.report.rebuilt)
    assert sum(layer.before > 1e-9 for layer in rebuilt.report.rebuilt) >= 7
    assert deviation(rebuilt.network, name) < 0.6 * deviation(plain.network, name)


def test_at_a_quarter_of_the_work_least_squares_beats_estimating_the_normalisations_anew() -> None:
    """Facts of the field say that only the latter is no recovery; both are measured here."""
    module = networks.residual()
    settle(module, "residual")
    plan = planned("residual")[1]
    whole = Network(module)
    unfolded = find_groups(whole, {"x": data()[0]["x"][:FEW]}, True)
    order = {group.name: group.order for group in plan.groups}
    groups = tuple(replace(group, order=order[group.name]) for group in unfolded.groups)
    narrowed = recover(whole, Plan(groups, ()), at(plan, 0.5), data()[0], True, Recovery.NONE, 0).network
    for part in narrowed.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None
            part.train()
    with torch.no_grad():
        narrowed.module(data()[0]["x"])
    narrowed.module.eval()
    weights = [sum(p.numel() for p in n.module.parameters()) for n in (whole, narrowed)]
    assert weights[1] < 0.3 * weights[0]
    estimated, rebuilt = accuracy(narrowed), accuracy(cut("residual", 0.5, Recovery.RECONSTRUCT).network)
    assert rebuilt > 0.85
    assert estimated < rebuilt - 0.2


def test_obs_is_at_least_as_good_as_magnitude_on_average() -> None:
    cases = list(itertools.product(("residual", "separable"), (0.75, 0.5)))
    obs, norm = (np.mean([accuracy(cut(name, ratio, Recovery.RECONSTRUCT, criterion).network)
                          for name, ratio in cases]) for criterion in ("obs", "magnitude"))
    assert obs >= norm


def test_the_first_channels_to_go_are_those_that_cost_least_when_all_are_tried() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(8, 8, generator=generator)
    read = torch.randn(500, 8, generator=generator) @ mixed
    weight = torch.randn(5, 8, generator=generator).double()
    moment = (read.T @ read / len(read)).double()
    columns = [[2 * channel, 2 * channel + 1] for channel in range(4)]
    found = removal_order([Consumer(weight, moment, columns)], 4)
    ridge = moment + DAMPING * moment.diagonal().mean() * torch.eye(8, dtype=torch.float64)

    def cost(gone: tuple[int, ...]) -> float:
        """Return the least squared error of a reader that may only use the other columns."""
        kept = [c for channel in range(4) if channel not in gone for c in columns[channel]]
        best = torch.linalg.solve(ridge[kept][:, kept], ridge[kept] @ weight.T).T
        whole = torch.zeros_like(weight)
        whole[:, kept] = best
        return float(((whole - weight) @ ridge * (whole - weight)).sum())

    assert found[0] == min(range(4), key=lambda c: cost((c,)))
    assert found[1] == min((c for c in range(4) if c != found[0]), key=lambda c: cost((found[0], c)))
    assert sorted(found) == [0, 1, 2, 3]


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(6, 4), (6,)), (nn.Linear(6, 4, bias=False), (5, 6)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 9, 8)), (nn.Conv2d(4, 6, (1, 3), padding=(0, 2)), (4, 9, 8)),
    (nn.Conv2d(4, 6, 3, dilation=2, padding="same"), (4, 9, 8)), (nn.Conv2d(4, 6, 2, padding="valid"), (4, 9, 8)),
    (nn.Conv2d(4, 4, 3, groups=4, padding=1), (4, 9, 8)), (nn.Conv2d(4, 6, 3, groups=2), (4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 9, 8)), (nn.Conv1d(4, 6, 3, stride=2), (4, 20)),
    (nn.Conv3d(4, 6, 2, padding=1), (4, 5, 6, 7))]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: str(v) if isinstance(v, nn.Module) else "")
@pytest.mark.parametrize("rows", [moments_module.ROWS, 10], ids=["every place", "every second place"])
def test_a_layer_is_the_linear_map_of_its_patches(layer: Any, shape: tuple[int, ...], rows: int,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments_module, "ROWS", rows)
    given = torch.randn(7, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answered = layer(given)
    found = moments(layer, given, answered)
    weight = matrix(layer)
    torch.testing.assert_close(found.xx @ weight.transpose(1, 2), found.xy, rtol=1e-4, atol=1e-5)
    bias = 0 if layer.bias is None else layer.bias.detach().double().reshape(found.y.shape)
    torch.testing.assert_close((weight @ found.x.unsqueeze(2)).squeeze(2) + bias, found.y, rtol=1e-4, atol=1e-5)
    image = hasattr(layer, "kernel_size")
    every = slice(None, None, 2) if image and rows == 10 else slice(None)
    outputs = answered[(..., *[every] * (answered.ndim - 2))].movedim(1, -1) if image else answered
    torch.testing.assert_close(found.yy.flatten(), outputs.reshape(-1, outputs.shape[-1]).double().var(0, correction=0),
                               rtol=1e-4, atol=1e-6)


def test_a_layer_with_more_values_than_there_are_patches_is_solved_the_other_way_round() -> None:
    """Both ways give the least squares solution of the same problem."""
    torch.manual_seed(0)
    layer, given, wanted = nn.Linear(40, 3), torch.randn(50, 40), torch.randn(50, 3)
    one, other = _from_moments(layer, given, wanted), _from_rows(layer, given, wanted)
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.bias, other.bias, rtol=1e-4, atol=1e-5)
    assert one.before == pytest.approx(other.before, rel=1e-4)
    assert one.after == pytest.approx(other.after, rel=1e-4)


def test_what_others_can_say_is_won_back_whole() -> None:
    """Channels 8 to 15 repeat 0 to 7: without them the readers can answer as before."""
    torch.manual_seed(0)
    module = Flattened()
    for parameter in module.stem.parameters():
        parameter.data[8:] = parameter.data[:8]
    network, given = Network(module.eval()), {"x": torch.rand(600, 3, SIZE, SIZE)}
    plan = find_groups(network, {"x": given["x"][:FEW]}, True)
    ordered = Plan((replace(plan.groups[0], order=tuple(range(16))),), ())
    errors = [float((call(recover(network, ordered, {"stem": 8}, given, True, level, 0).network, given, True)[0]
                     - call(network, given, True)[0]).square().mean()) for level in Recovery]
    assert errors[0] > 1e-4
    assert errors[1] < 0.01 * errors[0]


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "bn_scale"])
@pytest.mark.parametrize("factory", [Base, Concatenated, Series])
def test_dead_channels_go_first(criterion: str, factory: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = factory().eval()
    given = {"x": torch.randn(200, *((3, 16) if factory is Series else (3, SIZE, SIZE)))}
    network = Network(module)
    group = find_groups(network, {"x": given["x"][:FEW]}, True).groups[0]
    dead = {1, 5, 11}
    for member in group.members:
        rows = [p for p, channel in zip(member.positions, member.channels, strict=True) if channel in dead]
        layer: Any = module.get_submodule(member.module)
        if member.axis is Axis.OUT:
            layer.weight.data[rows] = 0
            layer.bias.data[rows] = 0
    plan = order_channels(Plan((group,), ()), Subject(Folded(network, {}), given, True), criterion)
    order = plan.groups[0].order
    assert sorted(order) == list(range(group.channels))
    assert set(order[-3:]) == dead
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_scales_of_normalisations_order_the_channels_that_they_scale() -> None:
    found, plan = planned("separable", "bn_scale")
    scales = found.scales["stem.0"]
    assert list(plan.groups[0].order) == scales.argsort(descending=True, stable=True).tolist()
    with pytest.raises(ModelError, match="--prune-criterion bn_scale: no batch normalisation follows the layers of "
                                         "group blocks.0.expand; choose another: obs, magnitude, taylor, activation"):
        planned("transformer", "bn_scale")


def test_a_layer_on_two_paths_keeps_its_weights_and_the_others_are_fitted() -> None:
    torch.manual_seed(0)
    network, given = Network(Twice().eval()), {"x": torch.rand(64, 3, SIZE, SIZE)}
    plan = find_groups(network, {"x": given["x"][:FEW]}, True)
    plan = order_channels(plan, Subject(Folded(network, {}), given, True), "magnitude")
    found = recover(network, plan, {"stem": 8, "last": 8}, given, True, Recovery.RECONSTRUCT, 0)
    assert [layer.layer for layer in found.report.rebuilt] == ["last", "head"]
    assert call(found.network, given, True)[0].shape == (64, 5)


def test_parameters_in_channels_last_are_cut_like_others_and_become_contiguous() -> None:
    module = networks.residual().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plan = planned("residual")[1]
    settle(module, "residual")
    found = fold(Network(module), {"x": data()[0]["x"][:FEW]}, True)
    narrowed = recover(found.network, plan, at(plan, 0.5), data()[0], True, Recovery.RECONSTRUCT, 0).network
    assert all(tensor.is_contiguous() for tensor in narrowed.module.state_dict().values())
    assert weights_bytes(narrowed.module) == weights_bytes(cut("residual", 0.5, Recovery.RECONSTRUCT).network.module)


def test_the_same_widths_give_the_same_bytes_in_another_process_and_on_more_threads() -> None:
    code = ("import hashlib, torch; torch.set_num_threads(2); from tests.recipes.test_recover import *; "
            "print(hashlib.sha256(weights_bytes(cut('separable', .5, Recovery.RECONSTRUCT).network.module))"
            ".hexdigest())")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    here = weights_bytes(cut("separable", 0.5, Recovery.RECONSTRUCT).network.module)
    assert printed.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_the_whole_network_stays_as_it_was() -> None:
    found, plan = planned("residual")
    before = weights_bytes(found.network.module)
    recover(found.network, plan, at(plan, 0.5), data()[0], True, Recovery.RECONSTRUCT, 0)
    assert weights_bytes(found.network.module) == before


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    found, plan = planned("residual")
    with pytest.raises(ValueError, match="no group is called gone; groups: stem.0, blocks.0.first.0"):
        recover(found.network, plan, {"gone": 8}, data()[0], True, Recovery.NONE, 0)


def test_weights_go_back_into_a_network_of_the_same_build_only() -> None:
    module = networks.separable()
    kept: Mapping[str, torch.Tensor] = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    written = weights_bytes(module)
    other = networks.Separable().eval()
    load_weights(other, written, "net.py:make")
    assert all(torch.equal(kept[name], tensor) for name, tensor in other.state_dict().items())
    for wrong in (networks.Residual(), nn.Sequential(other, nn.Linear(2, 2))):
        with pytest.raises(ModelError, match="net.py:make: the network is not built as it was when the study began"):
            load_weights(wrong, written, "net.py:make")
