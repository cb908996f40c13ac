"""Wrap a network so that inputs and outputs that it convolves over are channels last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recipes.models.network import Network, call, flatten, watched

if TYPE_CHECKING:
    import torch


def convolution_ranks(network: Network, given: Mapping[str, torch.Tensor],
                      positional: bool) -> tuple[tuple[torch.Tensor, ...], set[int]]:
    """Run the network; return its outputs and the ranks (3 to 5) of the tensors that it convolves."""
    import torch

    ranks: set[int] = set()

    def look(operator: Any, arguments: tuple[Any, ...], result: Any) -> None:
        if operator is torch.ops.aten.convolution.default:
            ranks.add(arguments[0].ndim)

    with watched(look):
        return call(network, given, positional), ranks


def artifact_module(network: torch.nn.Module, names: tuple[str, ...] | None, last_in: Sequence[bool],
                    last_out: Sequence[bool]) -> torch.nn.Module:
    """Wrap `network` (as the attribute `net`) so that chosen inputs and outputs are channels last."""
    import torch

    class ArtifactModule(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network
            self.training = False

        def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
            args = [a.movedim(-1, 1) if last else a for a, last in zip(arrays, last_in, strict=True)]
            result = self.net(*args) if names is None else self.net(**dict(zip(names, args, strict=True)))
            return tuple(o.movedim(1, -1) if last else o
                         for o, last in zip(flatten(result), last_out, strict=True))

    return ArtifactModule()
