"""Which layers a network executes, in which order, on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.models.network import Network, call

if TYPE_CHECKING:
    import torch


MEMORY_BYTES = 1 << 30
"""What the layers' outputs on the examples of one pass may take."""
LEAST = 16
"""Examples that are used at least, whatever they take."""


@dataclass(frozen=True, slots=True)
class Executed:
    """One call of a module without children."""

    path: str
    module: torch.nn.Module
    input: Any
    output: Any


def execution(network: Network, inputs: Mapping[str, torch.Tensor], positional: bool) -> list[Executed]:
    """Run the network once and return the calls of its leaf modules, in order. Raises what the network raises."""
    calls: list[Executed] = []
    leaves = [(path, module) for path, module in network.module.named_modules() if not any(module.children())]

    def keep(path: str, module: torch.nn.Module, given: Any, output: Any) -> None:
        calls.append(Executed(path, module, given, output))

    with plain_attention():
        handles = [module.register_forward_hook(_hook(path, keep), with_kwargs=True) for path, module in leaves]
        try:
            call(network, inputs, positional)
        finally:
            for handle in handles:
                handle.remove()
    return calls


def affordable(network: Network, inputs: Mapping[str, torch.Tensor], positional: bool, count: int) -> int:
    """Return how many of `count` examples may be held with all that the network's layers make of them."""
    one = {name: tensor[:1] for name, tensor in inputs.items()}
    outputs = [found.output for found in execution(network, one, positional)]
    each: int = sum(output.numel() * output.element_size() for output in outputs if hasattr(output, "numel"))
    return min(count, max(LEAST, MEMORY_BYTES // max(1, each)))


def _hook(path: str, keep: Any) -> Any:
    def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        keep(path, module, first_input(args, kwargs), output)

    return hook


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what a layer was called with, by position or as `input`."""
    return args[0] if args else kwargs.get("input")


@contextmanager
def plain_attention() -> Iterator[None]:
    """Let PyTorch execute encoder layers module by module, and not as one operator."""
    import torch

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
