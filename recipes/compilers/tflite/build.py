"""One candidate -> one artifact, in a worker that keeps the parsed float models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from recipes.artifact import Artifact
from recipes.blobs import BlobStore
from recipes.compilers.tflite.calibrate import clip, load_statistics
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import LayerMap, map_layers
from recipes.compilers.tflite.narrowed import FloatModel, Narrowed, narrowed_model
from recipes.compilers.tflite.quantise import Quantiser
from recipes.compress.planning import PruneInputs
from recipes.models.dataset import Split
from recipes.ports import Ports, PortSpec
from recipes.steps import Step, run_step
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import Calibration


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
    calibration: str
    """Blob of the calibration inputs."""
    target: Target
    io: str = "float"
    pruning: PruneInputs | None = None
    """What narrows the network; None where nothing may be pruned."""


@dataclass(frozen=True, slots=True)
class Built:
    """An artifact, how to feed it, and what it was made from."""

    artifact: Artifact
    ports: Ports
    float_model: FloatModel
    """The one that was quantised: of the candidate's own widths."""
    steps: tuple[Step, ...] = ()
    """What made the float model, where it is not the study's own."""


def build(inputs: BuildInputs, candidate: Candidate) -> Built:
    """Make a candidate's artifact and keep it as a blob.

    A narrowed candidate is pruned, reconstructed, converted and calibrated first, which takes seconds and runs
    the user's code: only in a worker process.

    Raises:
        InfeasibleCandidate: it cannot be built as it was asked for.
        ModelError: the user's network is not the one that the study began with.
    """
    made = _calibrated(inputs, _float_model(inputs, candidate), candidate.calibration)
    quantiser = _quantiser(inputs.blob_folder, made.float_model, inputs.target)
    if candidate.widths:
        _check_layers(quantiser.layers, candidate)
    data = quantiser.quantise(candidate, inputs.io)
    artifact, ports = BlobStore(inputs.blob_folder).put_bytes(data), made.float_model.ports
    return Built(artifact, ports if inputs.io == "float" else quantised_ports(ports, data), made.float_model,
                 made.steps)


def _float_model(inputs: BuildInputs, candidate: Candidate) -> Narrowed:
    if not candidate.widths:
        return Narrowed(FloatModel(inputs.float_model, inputs.statistics, inputs.ports), ())
    if inputs.pruning is None:
        raise ValueError(f"candidate {candidate.id} is narrowed, but this study does not prune; its inputs lack the "
                         "network and the plan")
    return narrowed_model(inputs.blob_folder, inputs.pruning, candidate)


def _calibrated(inputs: BuildInputs, found: Narrowed, method: Calibration) -> Narrowed:
    """Give a float model the statistics of another method of calibration; once for all candidates of its widths."""
    if method is Calibration.MIN_MAX:
        return found
    blobs, made = BlobStore(inputs.blob_folder), found.float_model

    def clipped() -> dict[str, bytes]:
        model, statistics, split = (blobs.path(blob).read_bytes()
                                    for blob in (made.model, made.statistics, inputs.calibration))
        return {method.value: data
                for method, data in clip(model, made.ports, Split.from_bytes(split).inputs, statistics).items()}

    step = run_step(
        blobs, "clip", {"model": made.model, "statistics": made.statistics, "calibration": inputs.calibration},
        ("ai-edge-quantizer", "ai-edge-litert"), clipped)
    return Narrowed(replace(made, statistics=step.outputs[method.value]), (*found.steps, step))


def _check_layers(layers: LayerMap, candidate: Candidate) -> None:
    """See that the narrowed model has the layers of the whole one, in formats that are legal there too.

    Raises InfeasibleCandidate.
    """
    at = ", ".join(f"{name} at {width}" for name, width in candidate.widths)
    differing = sorted(set(layers.space.by_name) ^ set(candidate.config_of))
    if differing:
        raise InfeasibleCandidate(f"narrowed ({at}) the converted model has other layers than at full width: "
                                  f"{', '.join(differing)}")
    for name, config in candidate.layers:
        layer = layers.space.by_name[name]
        if config not in layer.choices:
            legal = ", ".join(choice.label for choice in layer.choices)
            raise InfeasibleCandidate(f"layer {name}: narrowed ({at}) it is a {layer.kind}, for which {config.label} "
                                      f"is not legal; legal: {legal}")


@lru_cache(maxsize=16)
def _quantiser(blob_folder: Path, float_model: FloatModel, target: Target) -> Quantiser:
    blobs = BlobStore(blob_folder)
    model = blobs.path(float_model.model).read_bytes()
    statistics = load_statistics(blobs.path(float_model.statistics).read_bytes())
    return Quantiser(model, statistics, map_layers(read_graph(model), target))


def quantised_ports(ports: Ports, artifact: bytes) -> Ports:
    """Describe the ports of an artifact with integer inputs and outputs: types, scales, zero points."""
    graph = read_graph(artifact)
    tensor_of = {port.name: graph.tensors[port.tensor] for port in (*graph.inputs, *graph.outputs)}

    def described(port: PortSpec) -> PortSpec:
        tensor = tensor_of[port.name]
        scale, zero = (tensor.scales or (None,))[0], (tensor.zero_points or (None,))[0]
        return replace(port, dtype=tensor.dtype.lower(), scale=scale, zero_point=zero)

    return Ports(tuple(described(p) for p in ports.inputs), tuple(described(p) for p in ports.outputs))
