"""Layer-by-layer least squares: a narrowed network answers, layer by layer, as the whole one did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.compress.groups import Axis, ChannelGroup
from recipes.compress.moments import matrix, moments, row_count, rows
from recipes.compress.narrow import positions
from recipes.compress.watch import execution, first_input, plain_attention
from recipes.models.network import Network, call

if TYPE_CHECKING:
    import torch

DAMPING = 0.01
"""Ridge towards the kept weights, as a share of the mean variance of what a layer reads."""
TINY = 1e-12
"""Least variance by which is divided: a layer may read or answer a constant."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One layer before and after: squared error of its output as a share of the whole network's variance there."""

    layer: str
    before: float
    after: float


def reconstruct(narrowed: Network, whole: Network, groups: Sequence[ChannelGroup], kept: Mapping[str, Sequence[int]],
                inputs: Mapping[str, torch.Tensor], positional: bool) -> tuple[Rebuilt, ...]:
    """Fit, in place, every layer from the first reader of dropped channels on.

    One pass over all examples: when a layer is reached, everything before it is fitted already, so it reads what
    it will read. Its targets are the whole network's outputs. As in ThiNet (Luo et al. 2017, eq. 7) and channel
    pruning (He et al. 2017, eq. 2), with a ridge towards the weights that it had.

    Layers that are executed several times, and such whose weights are computed, keep their weights.

    Args:
        narrowed: the network to fit; its parameters are written.
        whole: the network before it was narrowed.
        groups: of the whole network.
        kept: group name -> channels that stay.
        inputs: calibration inputs, all at once.
        positional: pass the inputs by position and not by name.
    """
    stay = positions(whole.module, groups, kept)
    layers = _layers_to_fit(whole, stay, {name: tensor[:1] for name, tensor in inputs.items()}, positional)
    targets: dict[str, torch.Tensor] = {}

    def keep(path: str, layer: Any, given: torch.Tensor, output: torch.Tensor) -> None:
        axis = 1 if hasattr(layer, "kernel_size") else output.ndim - 1
        stays = stay.get((path, Axis.OUT), stay.get((path, Axis.BOTH)))
        targets[path] = output.clone() if stays is None else output.index_select(axis, stays)

    with _hooked(whole, layers, after=keep):
        call(whole, inputs, positional)
    report: list[Rebuilt] = []

    def fit(path: str, layer: Any, given: torch.Tensor) -> None:
        report.append(Rebuilt(path, *_fit(layer, given, targets.pop(path))))

    with _hooked(narrowed, layers, before=fit):
        call(narrowed, inputs, positional)
    return tuple(report)


def _layers_to_fit(whole: Network, stay: Mapping[tuple[str, Axis], torch.Tensor], example: Mapping[str, torch.Tensor],
                   positional: bool) -> list[str]:
    from torch import nn

    calls = execution(whole, example, positional)
    times = Counter(found.path for found in calls)
    reading = {path for path, axis in stay if axis is not Axis.OUT}
    first = next((i for i, found in enumerate(calls) if found.path in reading), len(calls))
    return [found.path for found in calls[first:]
            if isinstance(found.module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and times[found.path] == 1
            and isinstance(found.module.weight, nn.Parameter)
            and type(found.module).forward in (nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward,
                                               nn.Conv3d.forward)]


@contextmanager
def _hooked(network: Network, layers: Sequence[str], before: Any = None, after: Any = None) -> Iterator[None]:
    """Call `before(path, layer, input)` and `after(path, layer, input, output)` around the named layers."""
    handles = []
    for path in layers:
        layer = network.module.get_submodule(path)

        def enter(module: Any, args: Any, kwargs: Any, path: str = path) -> None:
            before(path, module, first_input(args, kwargs))

        def leave(module: Any, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
            after(path, module, first_input(args, kwargs), output)

        if before is not None:
            handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
        if after is not None:
            handles.append(layer.register_forward_hook(leave, with_kwargs=True))
    try:
        with plain_attention():
            yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, slots=True)
class _Solved:
    weight: torch.Tensor
    """(b, o, k)."""
    bias: torch.Tensor
    """(b, o)."""
    before: float
    after: float


def _fit(layer: Any, given: torch.Tensor, wanted: torch.Tensor) -> tuple[float, float]:
    """Write the least squares solution into a layer, where it is better; return the error before and after."""
    import torch

    few = row_count(layer, wanted) < matrix(layer).shape[2]
    solved = _from_rows(layer, given, wanted) if few else _from_moments(layer, given, wanted)
    if solved.after >= solved.before:  # it reads what it read in the whole network
        return solved.before, solved.before
    layer.weight.data = solved.weight.reshape(layer.weight.shape).float().contiguous()
    if layer.bias is None:
        layer.bias = torch.nn.Parameter(torch.zeros(layer.weight.shape[0]))
    layer.bias.data = solved.bias.flatten().float()
    return solved.before, solved.after


def _from_moments(layer: Any, given: torch.Tensor, wanted: torch.Tensor) -> _Solved:
    """Solve for the weights: there are more patches than values in one."""
    import torch

    found, old = moments(layer, given, wanted), matrix(layer)
    damping = (DAMPING * found.xx.diagonal(dim1=1, dim2=2).mean(1)).clamp(min=TINY)
    ridge = found.xx + damping.reshape(-1, 1, 1) * torch.eye(found.xx.shape[1], dtype=found.xx.dtype)
    new = old + torch.linalg.solve(ridge, found.xy - found.xx @ old.transpose(1, 2)).transpose(1, 2)
    bias = found.y - (new @ found.x.unsqueeze(2)).squeeze(2)

    def error(weight: torch.Tensor, bias: torch.Tensor) -> float:
        shift = found.y - (weight @ found.x.unsqueeze(2)).squeeze(2) - bias
        read = (weight * (weight @ found.xx)).sum(2)
        crossed = (weight * found.xy.transpose(1, 2)).sum(2)
        total = float((found.yy - 2 * crossed + read + shift * shift).sum())
        return max(0.0, total) / max(float(found.yy.sum()), TINY)

    return _Solved(new, bias, error(old, _bias(layer, bias)), error(new, bias))


def _from_rows(layer: Any, given: torch.Tensor, wanted: torch.Tensor) -> _Solved:
    """Solve for the patches' shares (the dual problem): a flattened image has more values than there are images."""
    import torch

    pieces = list(rows(layer, given, wanted))
    x, y = (torch.cat(side, 1).double() for side in zip(*pieces, strict=True))
    mean_x, mean_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    x, y, old, count = x - mean_x, y - mean_y, matrix(layer), x.shape[1]
    damping = (DAMPING * x.square().mean((1, 2))).clamp(min=TINY)
    ridge = x @ x.transpose(1, 2) / count + damping.reshape(-1, 1, 1) * torch.eye(count, dtype=x.dtype)
    missing = y - x @ old.transpose(1, 2)
    new = old + torch.linalg.solve(ridge, missing).transpose(1, 2) @ x / count
    bias = (mean_y - mean_x @ new.transpose(1, 2)).squeeze(1)

    def error(weight: torch.Tensor, bias: torch.Tensor) -> float:
        answered = (x + mean_x) @ weight.transpose(1, 2) + bias.unsqueeze(1)
        return float((answered - y - mean_y).square().sum()) / max(float(y.square().sum()), TINY)

    return _Solved(new, bias, error(old, _bias(layer, bias)), error(new, bias))


def _bias(layer: Any, like: torch.Tensor) -> torch.Tensor:
    import torch

    if layer.bias is None:
        return torch.zeros_like(like)
    bias: torch.Tensor = layer.bias.detach().double().reshape(like.shape)
    return bias
