"""Wrap a network so that inputs and outputs that it convolves over are channels last, and export it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.boundary import foreign, origin
from recipes.errors import ModelError
from recipes.models.network import Network, call, flatten, tensors, watched
from recipes.ports import Array

if TYPE_CHECKING:
    import torch


WRAPPED = "net"
"""The attribute under which the wrapper holds the user's network."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A network with channels last, and what goes in and out."""

    module: torch.nn.Module
    sample: tuple[torch.Tensor, ...]
    """One example of every input."""
    names: tuple[str, ...]
    """Of the inputs."""
    last_in: tuple[bool, ...]
    """Which inputs are channels last."""
    last_out: tuple[bool, ...]


def wrapped(network: Network, example: Mapping[str, Array], positional: bool,
            prepared: Callable[[Network, Mapping[str, torch.Tensor], bool], Network] | None = None) -> Wrapped:
    """Wrap a network so that inputs and outputs of the rank that it convolves are channels last. Runs user code.

    Args:
        network: its parameters are contiguous.
        example: argument name -> array (1, ...) in the network's own layout.
        positional: pass the arrays by position and not by name.
        prepared: what is done to the network before.

    Raises:
        ModelError: the network does not run.
    """
    given, positional = network.arrange(tensors(example, 0, 1), positional)
    with foreign("running the model on the first calibration input", ModelError):
        outputs, ranks = _convolution_ranks(network, given, positional)
    last_in = tuple(tensor.ndim in ranks for tensor in given.values())
    last_out = tuple(tensor.ndim in ranks for tensor in outputs)
    own = network if prepared is None else prepared(network, given, positional)
    module = artifact_module(own.module, None if positional else tuple(given), last_in, last_out)
    sample = tuple(tensor.movedim(1, -1).contiguous() if last else tensor
                   for tensor, last in zip(given.values(), last_in, strict=True))
    return Wrapped(module, sample, tuple(given), last_in, last_out)


@contextmanager
def exporting() -> Iterator[None]:
    """Say what a network must not do where its export fails. Raises ModelError."""
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    with foreign("the conversion (the model must pass torch.export: no branches on values, no changing shapes)",
                 ModelError):
        try:
            yield
        except GuardOnDataDependentSymNode as error:
            frame = origin(error)
            raise ModelError(f"{frame.filename}:{frame.lineno}: '{frame.line}' depends on the values of the inputs, "
                             "and a compiled model has one path for all inputs; write it with torch.where, or move "
                             "it out of the model") from error


def _convolution_ranks(network: Network, given: Mapping[str, torch.Tensor],
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
