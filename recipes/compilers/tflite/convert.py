"""PyTorch network -> float .tflite, channels last, by litert-torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recipes.compilers.channels_last import exporting, wrapped
from recipes.compilers.graph import Graph, Port
from recipes.compilers.tflite.edit import rename
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.movements import without_needless_movements
from recipes.compilers.tflite.outputs import with_own_outputs
from recipes.models.network import Network
from recipes.ports import Array, Ports, PortSpec

if TYPE_CHECKING:
    import torch


def convert(network: Network, example: Mapping[str, Array], positional: bool) -> tuple[bytes, Ports]:
    """Convert a network to a float .tflite model with a batch of one.

    Args:
        network: see `load_network`; its parameters are contiguous.
        example: argument name -> array (1, ...) in the network's own layout.
        positional: pass the arrays by position and not by name.

    Returns:
        The model and its ports. Inputs and outputs of the rank that the network's convolutions work on
        are channels last in the model.

    Raises:
        ModelError: when the network does not run, export or convert.
    """
    import litert_torch

    own = wrapped(network, example, positional)
    with exporting():
        data = bytes(litert_torch.convert(own.module, own.sample).model_content())
        data = with_own_outputs(without_needless_movements(rename(data, _shorter_names(own.module))))
    return data, float_ports(read_graph(data), own.names, own.last_in, own.last_out)


def _shorter_names(module: torch.nn.Module) -> dict[str, str]:
    """Return replacements in tensors' names, longest first; a small model's file is mostly names.

    Our own wrapper's name is cut short. Classes such as `Conv_Block` lose their underscores, because the
    converter joins class and attribute by one.
    """
    wrapper = type(module)
    classes = {type(part) for part in module.modules() if "_" in type(part).__name__}
    names = {f".{found.__qualname__}_": f".{found.__qualname__.removesuffix(found.__name__)}"
                                        f"{found.__name__.replace('_', '')}_" for found in classes}
    names[f"{wrapper.__module__}.{wrapper.__qualname__}"] = "a.A"
    return dict(sorted(names.items(), key=lambda pair: -len(pair[0])))


def float_ports(graph: Graph, names: Sequence[str], last_in: Sequence[bool], last_out: Sequence[bool]) -> Ports:
    """Describe the ports of a converted model; signature order is argument order."""
    return Ports(
        tuple(_port(graph, p, source, last)
              for p, source, last in zip(_by_number(graph.inputs), names, last_in, strict=True)),
        tuple(_port(graph, p, str(i), last)
              for i, (p, last) in enumerate(zip(_by_number(graph.outputs), last_out, strict=True))))


def _by_number(ports: Sequence[Port]) -> list[Port]:
    """Sort `args_10` after `args_2`."""
    return sorted(ports, key=lambda p: (p.name.rstrip("0123456789"), int(p.name.rpartition("_")[2])
                                        if p.name.rpartition("_")[2].isdigit() else 0))


def _port(graph: Graph, port: Port, source: str, last: bool) -> PortSpec:
    t = graph.tensors[port.tensor]
    return PortSpec(port.name, port.position, source, t.shape, t.dtype.lower(), last)
