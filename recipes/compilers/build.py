"""One candidate -> one artifact, in a worker that keeps the parsed float models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from recipes.artifact import Artifact
from recipes.blobs import BlobStore
from recipes.compilers.compiler import Compiler, Quantiser
from recipes.compilers.layers import LayerMap
from recipes.compilers.narrowed import FloatModel, Narrowed, narrowed_model
from recipes.compress.planning import PruneInputs
from recipes.models.dataset import Split
from recipes.ports import Ports
from recipes.steps import Step, run_step
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import Calibration


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """Everything but the candidate that decides an artifact's bytes."""

    compiler: Compiler
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
    schedules: str | None = None
    """Blob: what was measured to be fast on such boards; None where nothing was."""

    def here(self) -> BuildInputs:
        """Return what decides the artifact that this machine executes in place of the board's."""
        return replace(self, target=self.compiler.host_target(self.target))


@dataclass(frozen=True, slots=True)
class Built:
    """An artifact, how to feed it, and what it was made from."""

    artifact: Artifact
    ports: Ports
    float_model: FloatModel
    """The one that was quantised: of the candidate's own widths."""
    steps: tuple[Step, ...] = ()
    """What made the float model, where it is not the study's own."""
    schedules: str | None = None
    """Blob; see BuildInputs."""


def build(inputs: BuildInputs, candidate: Candidate) -> Built:
    """Make a candidate's artifact and keep it as a blob.

    A narrowed candidate is pruned, reconstructed, converted and calibrated first, which takes seconds and runs
    the user's code: only in a worker process.

    Raises:
        InfeasibleCandidate: it cannot be built as it was asked for.
        ModelError: the user's network is not the one that the study began with.
    """
    made = _calibrated(inputs, _float_model(inputs, candidate), candidate.calibration)
    quantiser = _quantiser(inputs.compiler, inputs.blob_folder, made.float_model, inputs.target, inputs.schedules)
    if candidate.widths:
        _check_layers(quantiser.layers, candidate)
    data = quantiser.quantise(candidate, inputs.io)
    artifact, ports = BlobStore(inputs.blob_folder).put_bytes(data), made.float_model.ports
    return Built(artifact, ports if inputs.io == "float" else inputs.compiler.quantised_ports(ports, data),
                 made.float_model, made.steps, inputs.schedules)


def _float_model(inputs: BuildInputs, candidate: Candidate) -> Narrowed:
    if not candidate.widths:
        return Narrowed(FloatModel(inputs.float_model, inputs.statistics, inputs.ports), ())
    if inputs.pruning is None:
        raise ValueError(f"candidate {candidate.id} is narrowed, but this study does not prune; its inputs lack the "
                         "network and the plan")
    return narrowed_model(inputs.compiler, inputs.blob_folder, inputs.pruning, candidate)


def _calibrated(inputs: BuildInputs, found: Narrowed, method: Calibration) -> Narrowed:
    """Give a float model the statistics of another method of calibration; once for all candidates of its widths."""
    if method is Calibration.MIN_MAX:
        return found
    blobs, made = BlobStore(inputs.blob_folder), found.float_model

    def clipped() -> dict[str, bytes]:
        model, statistics, split = (blobs.path(blob).read_bytes()
                                    for blob in (made.model, made.statistics, inputs.calibration))
        found = inputs.compiler.clip(model, made.ports, Split.from_bytes(split).inputs, statistics)
        return {method.value: data for method, data in found.items()}

    step = run_step(
        blobs, "clip", {"model": made.model, "statistics": made.statistics, "calibration": inputs.calibration},
        inputs.compiler.quantises_with, clipped)
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
def _quantiser(compiler: Compiler, blob_folder: Path, float_model: FloatModel, target: Target,
               schedules: str | None) -> Quantiser:
    blobs = BlobStore(blob_folder)
    model, statistics = (blobs.path(blob).read_bytes() for blob in (float_model.model, float_model.statistics))
    tuned = None if schedules is None else blobs.path(schedules).read_bytes()
    return compiler.quantiser(model, statistics, compiler.layers(model, target), target, blobs, tuned)
