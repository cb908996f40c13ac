"""Layer-by-layer least squares: a narrowed network answers, layer by layer, as the whole one did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.compress.groups import Axis, ChannelGroup
from recipes.compress.moments import Moments, matrix, moments
from recipes.compress.narrow import positions
from recipes.compress.watch import execution, first_input, plain_attention
from recipes.models.network import Network, call

if TYPE_CHECKING:
    import torch

DAMPING = 0.01
"""Ridge towards the kept weights, as a share of the mean variance of what a layer reads."""


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
        rows = stay.get((path, Axis.OUT), stay.get((path, Axis.BOTH)))
        targets[path] = output.clone() if rows is None else output.index_select(axis, rows)

    with _hooked(whole, layers, after=keep):
        call(whole, inputs, positional)
    report: list[Rebuilt] = []

    def fit(path: str, layer: Any, given: torch.Tensor) -> None:
        report.append(Rebuilt(path, *_fit(layer, moments(layer, given, targets.pop(path)))))

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


def _fit(layer: Any, found: Moments) -> tuple[float, float]:
    """Write the least squares solution into a layer; return the error before and after."""
    import torch

    weight = matrix(layer)
    bias = torch.zeros_like(found.y) if layer.bias is None else layer.bias.detach().double().reshape(found.y.shape)
    before = _error(found, weight, bias)
    size = found.xx.shape[1]
    damping = DAMPING * found.xx.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    ridge = found.xx + damping.reshape(-1, 1, 1) * torch.eye(size, dtype=found.xx.dtype)
    weight = weight + torch.linalg.solve(ridge, found.xy - found.xx @ weight.transpose(1, 2)).transpose(1, 2)
    bias = found.y - (weight @ found.x.unsqueeze(2)).squeeze(2)
    layer.weight.data = weight.reshape(layer.weight.shape).float().contiguous()
    if layer.bias is None:
        layer.bias = torch.nn.Parameter(torch.zeros(layer.weight.shape[0]))
    layer.bias.data = bias.flatten().float()
    return before, _error(found, weight, bias)


def _error(found: Moments, weight: torch.Tensor, bias: torch.Tensor) -> float:
    """Return the mean squared error of a layer's output, as a share of the wanted output's variance."""
    shift = found.y - (weight @ found.x.unsqueeze(2)).squeeze(2) - bias
    read = (weight * (weight @ found.xx)).sum(2)
    crossed = (weight * found.xy.transpose(1, 2)).sum(2)
    error = float((found.yy - 2 * crossed + read + shift * shift).sum())
    return max(0.0, error) / max(float(found.yy.sum()), 1e-12)
