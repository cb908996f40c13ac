"""One candidate -> one artifact, in a worker that keeps the parsed float model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from recipes.artifact import Artifact
from recipes.blobs import BlobStore
from recipes.compilers.tflite.calibrate import load_statistics
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.compilers.tflite.quantise import Quantiser
from recipes.ports import Ports, PortSpec
from recipes.target import Target
from search.candidate import Candidate


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """Everything but the candidate that decides an artifact's bytes."""

    blob_folder: Path
    float_model: str
    """Blob."""
    statistics: str
    """Blob."""
    ports: Ports
    """Of the float model."""
    target: Target
    io: str = "float"


@dataclass(frozen=True, slots=True)
class Built:
    """An artifact and how to feed it."""

    artifact: Artifact
    ports: Ports


def build(inputs: BuildInputs, candidate: Candidate) -> Built:
    """Quantise a candidate and keep the artifact as a blob. Raises InfeasibleCandidate."""
    data = _quantiser(inputs).quantise(candidate, inputs.io)
    artifact = BlobStore(inputs.blob_folder).put_bytes(data)
    return Built(artifact, inputs.ports if inputs.io == "float" else quantised_ports(inputs.ports, data))


@lru_cache(maxsize=4)
def _quantiser(inputs: BuildInputs) -> Quantiser:
    blobs = BlobStore(inputs.blob_folder)
    model = blobs.path(inputs.float_model).read_bytes()
    statistics = load_statistics(blobs.path(inputs.statistics).read_bytes())
    return Quantiser(model, statistics, map_layers(read_graph(model), inputs.target))


def quantised_ports(ports: Ports, artifact: bytes) -> Ports:
    """Describe the ports of an artifact with integer inputs and outputs: types, scales, zero points."""
    graph = read_graph(artifact)
    tensor_of = {port.name: graph.tensors[port.tensor] for port in (*graph.inputs, *graph.outputs)}

    def described(port: PortSpec) -> PortSpec:
        tensor = tensor_of[port.name]
        scale, zero = (tensor.scales or (None,))[0], (tensor.zero_points or (None,))[0]
        return replace(port, dtype=tensor.dtype.lower(), scale=scale, zero_point=zero)

    return Ports(tuple(described(p) for p in ports.inputs), tuple(described(p) for p in ports.outputs))
