"""The compiler to TFLite: litert-torch converts, ai-edge-quantizer quantises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recipes.blobs import BlobStore
from recipes.compilers.graph import Graph, Operator
from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.calibrate import calibrate, clip, load_statistics
from recipes.compilers.tflite.convert import convert
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers, module_path
from recipes.compilers.tflite.quantise import Quantiser
from recipes.compilers.tflite.run import plain_tensors, tflite_outputs
from recipes.models.network import Network
from recipes.ports import Array, Ports, PortSpec
from recipes.target import Target
from search.space import Calibration


@dataclass(frozen=True, slots=True)
class TfliteCompiler:
    """Implements Compiler; its float model is a float .tflite file."""

    name: str = "tflite"
    runtimes: tuple[str, ...] = ("litert", "tflite-runtime")
    converts_with: tuple[str, ...] = ("torch", "litert-torch", "litert-converter", "ai-edge-litert")
    quantises_with: tuple[str, ...] = ("ai-edge-quantizer", "ai-edge-litert")

    def convert(self, network: Network, example: Mapping[str, Array], positional: bool) -> tuple[bytes, Ports]:
        """See Compiler. Inputs and outputs of the rank that the network convolves are channels last."""
        return convert(network, example, positional)

    def graph(self, model: bytes) -> Graph:
        """See Compiler."""
        return read_graph(model)

    def path(self, model: bytes, op: Operator) -> str:
        """See Compiler."""
        return module_path(read_graph(model), op)

    def host_target(self, target: Target) -> Target:
        """See Compiler: an artifact is the same for every processor."""
        return target

    def layers(self, model: bytes, target: Target) -> LayerMap:
        """See Compiler."""
        return map_layers(read_graph(model), target)

    def calibrate(self, model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> bytes:
        """See Compiler."""
        return calibrate(model, ports, inputs)

    def clip(self, model: bytes, ports: Ports, inputs: Mapping[str, Array],
             statistics: bytes) -> Mapping[Calibration, bytes]:
        """See Compiler."""
        return clip(model, ports, inputs, statistics)

    def outputs(self, model: bytes, ports: Ports, inputs: Mapping[str, Array], limit: int) -> tuple[Array, ...]:
        """See Compiler."""
        return tflite_outputs(model, ports, inputs, limit)

    def tensors(self, model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> Mapping[int, Array]:
        """See Compiler; LiteRT's plain kernels."""
        return plain_tensors(model, ports, inputs)

    def quantiser(self, model: bytes, statistics: bytes, layers: LayerMap, target: Target,
                  blobs: BlobStore | None = None, schedules: bytes | None = None) -> Quantiser:
        """See Compiler; there is nothing to tune."""
        return Quantiser(model, load_statistics(statistics), layers)

    def quantised_ports(self, ports: Ports, artifact: bytes) -> Ports:
        """See Compiler."""
        return quantised_ports(ports, artifact)


def quantised_ports(ports: Ports, artifact: bytes) -> Ports:
    """Describe the ports of an artifact with integer inputs and outputs: types, scales, zero points."""
    graph = read_graph(artifact)
    tensor_of = {port.name: graph.tensors[port.tensor] for port in (*graph.inputs, *graph.outputs)}

    def described(port: PortSpec) -> PortSpec:
        tensor = tensor_of[port.name]
        scale, zero = (tensor.scales or (None,))[0], (tensor.zero_points or (None,))[0]
        return replace(port, dtype=tensor.dtype.lower(), scale=scale, zero_point=zero)

    return Ports(tuple(described(p) for p in ports.inputs), tuple(described(p) for p in ports.outputs))


if TYPE_CHECKING:
    from recipes.compilers.compiler import Compiler

    _: Compiler = TfliteCompiler()
