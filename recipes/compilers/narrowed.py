"""The float model of narrowed widths and its statistics: prune, reconstruct, convert, calibrate; each step once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.blobs import BlobStore
from recipes.boundary import foreign
from recipes.compilers.compare import SETTLED, worst_output
from recipes.compilers.compiler import Compiler
from recipes.compress.groups import Plan
from recipes.compress.planning import FEW, PruneInputs
from recipes.compress.recover import REVISION, recover
from recipes.compress.repeatable import repeatable
from recipes.compress.weights import load_weights, weights_bytes
from recipes.errors import ModelError
from recipes.models.dataset import Split
from recipes.models.network import Network, load_network, run, tensors
from recipes.ports import Ports
from recipes.steps import Step, run_step
from search.candidate import Candidate, Recovery
from search.errors import InfeasibleCandidate

if TYPE_CHECKING:
    from recipes.ports import Array

CHECKED = 32
"""Calibration inputs on which the converted model must compute what the narrowed network does."""


@dataclass(frozen=True, slots=True)
class FloatModel:
    """What is quantised: a float model with its statistics, as blobs."""

    model: str
    statistics: str
    ports: Ports


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A float model of narrowed widths, and the steps that made it."""

    float_model: FloatModel
    steps: tuple[Step, ...]


def narrowed_model(compiler: Compiler, blob_folder: Path, inputs: PruneInputs, candidate: Candidate) -> Narrowed:
    """Return the float model of a candidate's widths, made now or taken from the blobs. Runs user code.

    Raises:
        InfeasibleCandidate: the narrowed network does not convert, or the converted model computes something else.
        ModelError: the factory does not return the network that the study began with.
    """
    blobs = BlobStore(blob_folder)
    widths, level = candidate.width_of, candidate.recovery
    recovered = _recovered(blob_folder, inputs, widths, level)
    converted = run_step(
        blobs, "convert", {"weights": recovered.outputs["weights"], "plan": inputs.plan, "widths": dict(widths),
                           "calibration": inputs.calibration},
        compiler.converts_with,
        lambda: _convert(compiler, blob_folder, inputs, widths, recovered.outputs["weights"]))
    ports = Ports.from_json(json.loads(blobs.path(converted.outputs["ports"]).read_text("utf-8")))
    model = converted.outputs["model"]
    calibrated = run_step(
        blobs, "calibrate", {"model": model, "calibration": inputs.calibration},
        compiler.quantises_with,
        lambda: {"statistics": compiler.calibrate(blobs.path(model).read_bytes(), ports,
                                                  _calibration(blob_folder, inputs.calibration))})
    return Narrowed(FloatModel(model, calibrated.outputs["statistics"], ports), (recovered, converted, calibrated))


def recovered_outputs(blob_folder: Path, inputs: PruneInputs, widths: Mapping[str, int], level: Recovery,
                      split: str) -> tuple[Array, ...]:
    """Return what the recovered network computes on a split (a blob), in PyTorch.

    An estimate of the artifact's outputs without a conversion; the recovery is the one that is converted later. Runs
    user code. Raises InfeasibleCandidate.
    """
    step = _recovered(blob_folder, inputs, widths, level)
    network = _network(blob_folder, inputs, widths, step.outputs["weights"])
    with repeatable():
        try:
            return run(network, _inputs(blob_folder, split), inputs.positional, "the inputs of a split")
        except ModelError as error:
            raise InfeasibleCandidate(str(error)) from error


def narrowed_outputs(blob_folder: Path, inputs: PruneInputs, widths: Mapping[str, int],
                     examples: int) -> tuple[Array, ...]:
    """Return what PyTorch computes at some widths on the first calibration inputs.

    A cheap estimate: least squares on these few examples only, and no conversion. Runs user code.
    """
    whole, few = _whole(blob_folder, inputs), _few(blob_folder, inputs.calibration, examples)
    narrowed = recover(whole.network, whole.plan, widths, tensors(few, 0, examples), inputs.positional,
                       Recovery.RECONSTRUCT, inputs.seed).network
    with repeatable():
        return run(narrowed, few, inputs.positional, "the calibration inputs")


@lru_cache(maxsize=1)
def whole_outputs(blob_folder: Path, inputs: PruneInputs, examples: int) -> tuple[Array, ...]:
    """Return what PyTorch computes at full width on the first calibration inputs. Runs user code."""
    few = _few(blob_folder, inputs.calibration, examples)
    return run(_whole(blob_folder, inputs).network, few, inputs.positional, "the calibration inputs")


@dataclass(frozen=True, slots=True)
class _Whole:
    """The network at full width, folded, and its plan."""

    network: Network
    plan: Plan


@lru_cache(maxsize=1)
def _whole(blob_folder: Path, inputs: PruneInputs) -> _Whole:
    """Load the network again in this process, with the weights that it had when the study began."""
    from recipes.compress.fold import fold

    blobs = BlobStore(blob_folder)
    network = load_network(inputs.model)
    load_weights(network.module, blobs.path(inputs.weights).read_bytes(), inputs.model.text)
    with repeatable():
        folded = fold(network, tensors(_calibration(blob_folder, inputs.calibration), 0, FEW), inputs.positional)
    return _Whole(folded.network, Plan.from_bytes(blobs.path(inputs.plan).read_bytes()))


def _calibration(blob_folder: Path, split: str) -> Mapping[str, Array]:
    return _inputs(blob_folder, split)


@lru_cache(maxsize=2)
def _inputs(blob_folder: Path, split: str) -> Mapping[str, Array]:
    return Split.from_bytes(BlobStore(blob_folder).path(split).read_bytes()).inputs


def _few(blob_folder: Path, split: str, examples: int) -> dict[str, Array]:
    return {name: array[:examples] for name, array in _calibration(blob_folder, split).items()}


def _recovered(blob_folder: Path, inputs: PruneInputs, widths: Mapping[str, int], level: Recovery) -> Step:
    return run_step(
        BlobStore(blob_folder), "recover",
        {"weights": inputs.weights, "plan": inputs.plan, "calibration": inputs.calibration, "widths": dict(widths),
         "level": level.value, "seed": inputs.seed, "revision": REVISION},
        ("torch",), lambda: _recover(blob_folder, inputs, widths, level))


def _network(blob_folder: Path, inputs: PruneInputs, widths: Mapping[str, int], weights: str) -> Network:
    """Return the network at some widths with recovered weights (a blob)."""
    whole = _whole(blob_folder, inputs)
    found = recover(whole.network, whole.plan, widths, {}, inputs.positional, Recovery.NONE, inputs.seed).network
    load_weights(found.module, BlobStore(blob_folder).path(weights).read_bytes(), inputs.model.text)
    return found


def _recover(blob_folder: Path, inputs: PruneInputs, widths: Mapping[str, int], level: Recovery) -> dict[str, bytes]:
    whole, arrays = _whole(blob_folder, inputs), _calibration(blob_folder, inputs.calibration)
    everything = tensors(arrays, 0, len(next(iter(arrays.values()))))
    try:
        with foreign(f"the recovery of the narrowed network ({_at(widths)})", ModelError):
            found = recover(whole.network, whole.plan, widths, everything, inputs.positional, level, inputs.seed)
    except ModelError as error:
        raise InfeasibleCandidate(str(error)) from error
    report = json.dumps(asdict(found.report), sort_keys=True).encode()
    return {"weights": weights_bytes(found.network.module), "report": report}


def _convert(compiler: Compiler, blob_folder: Path, inputs: PruneInputs, widths: Mapping[str, int],
             weights: str) -> dict[str, bytes]:
    """Convert a narrowed network and compare the outputs of both. Raises InfeasibleCandidate."""
    narrowed, arrays = _network(blob_folder, inputs, widths, weights), _calibration(blob_folder, inputs.calibration)
    few = _few(blob_folder, inputs.calibration, CHECKED)
    at = _at(widths)
    try:
        with repeatable(), foreign(f"the conversion of the narrowed network ({at})", ModelError):
            expected = run(narrowed, few, inputs.positional, "the calibration inputs")
            model, ports = compiler.convert(narrowed, {name: array[:1] for name, array in arrays.items()},
                                            inputs.positional)
            worst = worst_output(expected, compiler.outputs(model, ports, few, CHECKED))
    except ModelError as error:
        raise InfeasibleCandidate(str(error)) from error
    if not worst.deviation <= SETTLED:
        raise InfeasibleCandidate(f"the converted float32 model of the narrowed network ({at}) differs from PyTorch in "
                                  f"output {worst.output} by {worst.deviation:.2g} of its range; at most {SETTLED:g} "
                                  "is allowed")
    return {"model": model, "ports": json.dumps(ports.to_json(), sort_keys=True).encode()}


def _at(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} at {width}" for name, width in widths.items())
