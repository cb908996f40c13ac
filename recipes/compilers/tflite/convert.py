"""PyTorch network -> float .tflite, channels last, by litert-torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.boundary import foreign
from recipes.compilers.tflite.graph import Graph, Port, read_graph
from recipes.errors import ModelError
from recipes.ports import Array, Ports, PortSpec

if TYPE_CHECKING:
    import torch


def convert(network: torch.nn.Module, example: Mapping[str, Array], positional: bool) -> tuple[bytes, Ports]:
    """Convert a network to a float .tflite model with a batch of one.

    Args:
        network: in any mode; converted in evaluation mode, with contiguous parameters (from
            channels_last parameters litert-torch merges different weight tensors).
        example: argument name -> array (1, ...) in the network's own layout.
        positional: pass the arrays by position and not by name.

    Returns:
        The model and its ports. 4-D inputs and outputs of a network with 2-D convolutions are
        channels last in the model.

    Raises:
        ModelError: when the network does not export or convert.
    """
    import litert_torch
    import torch

    network.eval()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = tensor.data.contiguous(memory_format=torch.contiguous_format)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in example.items()}
        with foreign("running the model on the first calibration input", ModelError):
            outputs = flatten(network(*tensors.values()) if positional else network(**tensors))
    spatial = any(isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) for m in network.modules())
    last_in = [spatial and t.ndim == 4 and t.is_floating_point() for t in tensors.values()]
    last_out = [spatial and t.ndim == 4 for t in outputs]
    module = artifact_module(network, None if positional else tuple(tensors), last_in, last_out).eval()
    sample = tuple(t.permute(0, 2, 3, 1).contiguous() if last else t
                   for t, last in zip(tensors.values(), last_in, strict=True))
    with foreign("the conversion to tflite", ModelError):
        data = bytes(litert_torch.convert(module, sample).model_content())
    graph = read_graph(data)
    return data, float_ports(graph, tuple(tensors), last_in, last_out)


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


def flatten(outputs: Any) -> tuple[torch.Tensor, ...]:
    """Return a network's outputs (a tensor, a sequence or a mapping) as a tuple of tensors.

    Raises ModelError for anything else.
    """
    import torch

    if isinstance(outputs, torch.Tensor):
        return (outputs,)
    values = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(values, (list, tuple)) and values and all(isinstance(v, torch.Tensor) for v in values):
        return tuple(values)
    raise ModelError(f"the model returns {type(outputs).__name__}; expected a tensor, a tuple or a mapping "
                     "of tensors")


def artifact_module(network: torch.nn.Module, names: tuple[str, ...] | None, last_in: Sequence[bool],
                    last_out: Sequence[bool]) -> torch.nn.Module:
    """Wrap `network` (as the attribute `net`) so that chosen inputs and outputs are channels last."""
    import torch

    class ArtifactModule(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network

        def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
            args = [a.permute(0, 3, 1, 2) if last else a for a, last in zip(arrays, last_in, strict=True)]
            result = self.net(*args) if names is None else self.net(**dict(zip(names, args, strict=True)))
            return tuple(o.permute(0, 2, 3, 1) if last else o
                         for o, last in zip(flatten(result), last_out, strict=True))

    return ArtifactModule()
