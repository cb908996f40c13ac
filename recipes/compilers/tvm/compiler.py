"""The compiler with kernels of our own, on TVM's Relax."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from recipes.blobs import BlobStore
from recipes.compilers.graph import Graph, Operator
from recipes.compilers.layers import LayerMap, layers_of
from recipes.compilers.ranges import MASKED, Histogram
from recipes.compilers.tvm.host import host_target
from recipes.compilers.tvm.kernels.isa import AS_FLOAT32, isa_of
from recipes.compilers.tvm.legal import legal_choices, legal_for_all, trained_choices
from recipes.compilers.tvm.link import library
from recipes.compilers.tvm.lower import lower
from recipes.compilers.tvm.module import convert
from recipes.compilers.tvm.network import LEAVES, FloatNetwork, read_network
from recipes.compilers.tvm.quantise import TvmQuantiser, read_statistics, statistics_bytes
from recipes.compilers.tvm.run import Runner
from recipes.compilers.tvm.schedules import read_schedules
from recipes.compilers.tvm.target import features
from recipes.models.network import Network
from recipes.ports import Array, Ports
from recipes.target import Target
from search.candidate import Candidate
from search.space import FLOAT32, Calibration


@dataclass(frozen=True, slots=True)
class TvmCompiler:
    """Implements Compiler; its float model is a Relax module with its weights, as JSON."""

    name: str = "tvm"
    signs: bool = False
    """Offer one bit, too, for weights and activations: its kernels are fast, but only training makes it right."""
    runtimes: tuple[str, ...] = ("tvm",)
    converts_with: tuple[str, ...] = ("torch", "apache-tvm", "apache-tvm-ffi")
    quantises_with: tuple[str, ...] = ("apache-tvm", "apache-tvm-ffi", "ziglang")

    def convert(self, network: Network, example: Mapping[str, Array], positional: bool) -> tuple[bytes, Ports]:
        """See Compiler. Inputs and outputs of the rank that the network convolves are channels last."""
        return convert(network, example, positional)

    def graph(self, model: bytes) -> Graph:
        """See Compiler."""
        return read_network(model).graph

    def path(self, model: bytes, op: Operator) -> str:
        """See Compiler."""
        return read_network(model).pieces[op.index].path

    def host_target(self, target: Target) -> Target:
        """See Compiler: the board's own where this machine has the processor's features that code for it uses."""
        host = host_target(target.runtime_version)
        if host.machine == target.machine and set(features(target)) <= set(host.cpu_features):
            return target
        halves = isa_of(target.machine, target.cpu_features).half is not None
        return replace(host, cpu_features=(*host.cpu_features, AS_FLOAT32)) if halves else host

    def layers(self, model: bytes, target: Target) -> LayerMap:
        """See Compiler."""
        network, half = read_network(model), isa_of(target.machine, target.cpu_features).half is not None
        legal = partial(trained_choices if self.signs else legal_choices, half=half)
        return layers_of(self.name, network.graph, lambda op: network.pieces[op.index].path,
                         lambda op: op.kind in LEAVES, legal, legal_for_all)

    def calibrate(self, model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> bytes:
        """See Compiler; a tensor of integers has no range."""
        found: dict[str, tuple[float, float]] = {}
        for tensors in self._values(model, ports, inputs):
            for name, values in tensors.items():
                least, greatest = found.get(name, (np.inf, -np.inf))
                found[name] = min(least, float(values.min())), max(greatest, float(values.max()))
        return statistics_bytes(found, Calibration.MIN_MAX.value, len(next(iter(inputs.values()))))

    def clip(self, model: bytes, ports: Ports, inputs: Mapping[str, Array],
             statistics: bytes) -> Mapping[Calibration, bytes]:
        """See Compiler; a tensor that is masked with huge values keeps its range."""
        whole = read_statistics(statistics)
        histograms = {name: Histogram.between(*pair) for name, pair in whole.items()
                      if max(map(abs, pair)) < MASKED}
        for tensors in self._values(model, ports, inputs):
            for name, values in tensors.items():
                if name in histograms:
                    histograms[name].add(values)
        count = len(next(iter(inputs.values())))
        return {method: statistics_bytes({**whole, **{name: ranged(histogram)
                                                      for name, histogram in histograms.items()}}, method.value, count)
                for method, ranged in ((Calibration.PERCENTILE, Histogram.percentile),
                                       (Calibration.MSE, Histogram.mse))}

    def outputs(self, model: bytes, ports: Ports, inputs: Mapping[str, Array], limit: int) -> tuple[Array, ...]:
        """See Compiler."""
        runner = Runner(self._float_library(read_network(model), ()), ports)
        rows = [runner.run(inputs, i) for i in range(min(limit, len(next(iter(inputs.values())))))]
        return ports.decode({f"o{n}": np.concatenate(column) for n, column in enumerate(zip(*rows, strict=True))})

    def tensors(self, model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> Mapping[int, Array]:
        """See Compiler; every operator's own result is kept."""
        network = read_network(model)
        watched = [piece.operator.outputs[0] for piece in network.pieces]
        found = Runner(self._float_library(network, watched), ports).run(inputs, 0)
        return dict(zip(watched, found[len(network.results):], strict=True))

    def quantiser(self, model: bytes, statistics: bytes, layers: LayerMap, target: Target,
                  blobs: BlobStore | None = None, schedules: bytes | None = None) -> TvmQuantiser:
        """See Compiler; the objects of kernels are kept."""
        return TvmQuantiser(read_network(model), read_statistics(statistics), layers, target, blobs,
                            read_schedules(schedules))

    def quantised_ports(self, ports: Ports, artifact: bytes) -> Ports:
        """See Compiler; inputs and outputs are always float."""
        return ports

    def _float_library(self, network: FloatNetwork, watched: list[int] | tuple[int, ...]) -> bytes:
        """Compile a network for this machine, in float32."""
        host = host_target(version("apache-tvm"))
        layers = layers_of(self.name, network.graph, lambda op: "", lambda op: False, legal_choices, legal_for_all)
        candidate = Candidate.of(layers.space, {layer.name: FLOAT32 for layer in layers.space.layers})
        return library(lower(network, layers, {}, candidate, isa_of(host.machine, host.cpu_features), watched), host)

    def _values(self, model: bytes, ports: Ports, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Yield the float tensors that the network computes or is given, example by example."""
        network = read_network(model)
        tensors = network.graph.tensors
        watched = [piece.operator.outputs[0] for piece in network.pieces
                   if tensors[piece.operator.outputs[0]].dtype == "FLOAT32"]
        runner = Runner(self._float_library(network, watched), ports)
        given = [(port, tensors[own.tensor].name) for port, own in zip(ports.inputs, network.graph.inputs, strict=True)
                 if tensors[own.tensor].dtype == "FLOAT32"]
        for example in range(len(next(iter(inputs.values())))):
            made = runner.run(inputs, example)[len(network.results):]
            yield {**{name: port.encode(inputs[port.source][example:example + 1]) for port, name in given},
                   **{tensors[tensor].name: values for tensor, values in zip(watched, made, strict=True)}}


if TYPE_CHECKING:
    from recipes.compilers.compiler import Compiler

    _: Compiler = TvmCompiler()
