"""What a study works with: the prepared model, the board, the workers, the search space."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from device_farm.inventory import BoardEntry, Inventory
from orchestrator import wiring
from orchestrator.bench import Bench
from orchestrator.config import StudyConfig, parse_accuracy
from orchestrator.executor import HostPool
from orchestrator.objectives import parse_objectives
from orchestrator.progress import Progress
from orchestrator.store.records import StudyRecord
from orchestrator.store.store import Store
from orchestrator.tuned import Tuned, tuned
from profilers.accuracy import EvaluationInputs, evaluate, run_reference
from profilers.measurement import MeasureSettings
from recipes.blobs import BlobStore
from recipes.compilers.build import BuildInputs, build
from recipes.compilers.compare import METRIC_SETTLED, SETTLED, Suspect, differing_metrics, find_difference, worst_output
from recipes.compilers.compiler import Compiler
from recipes.compilers.grouped import Grouped, with_groups
from recipes.compilers.layers import LayerMap
from recipes.compress.groups import LeftOut, Plan
from recipes.compress.planning import PruneSettings
from recipes.errors import ConversionMismatch, ModelError
from recipes.models.prepare import Prepared, prepare
from recipes.models.source import Reference, parse_data, parse_model
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import FLOAT32, SearchSpace

T = TypeVar("T")
WORKERS = 2
PREPARE = "prepare"
"""Name of the step that a study begins with."""
MIN_RUNS = {"median": 20, "mean": 20, "p90": 100, "p99": 500}
"""Timed runs that a statistic needs at least: five runs beyond p99, ten beyond p90."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """Everything that is open while a study runs."""

    store: Store
    config: StudyConfig
    board: BoardEntry
    bench: Bench
    pool: HostPool
    prepared: Prepared
    layers: LayerMap
    builder: BuildInputs
    evaluator: EvaluationInputs
    left_out: tuple[LeftOut, ...]
    """Channels that cannot be pruned; none where pruning is off."""
    runtime_version: str
    """On the board."""
    exclusive: bool
    """The board is this machine: it never measures while host work runs."""
    progress: Progress

    @property
    def objective(self) -> str:
        """The metric that counts: the first one, unless --objective names another."""
        asked = parse_objectives(self.config.objective).metric if self.config.objective else None
        return asked or self.prepared.metric_names[0]


@contextmanager
def open_workbench(store: Store, inventory: Inventory, config: StudyConfig, base: Path,
                   progress: Progress, stop: threading.Event | None = None,
                   earlier: StudyRecord | None = None) -> Iterator[Workbench]:
    """Prepare the model in a worker, connect to the board, derive the space; close it all at the end.

    Args:
        store: an open store.
        inventory: the boards.
        config: the study.
        base: the folder from which relative paths of the configuration count.
        progress: takes events.
        stop: set when the user wants no more waiting for the board.
        earlier: the study that is continued, with the tiles that it began with.

    Raises:
        ModelError, DataError, InventoryError: what the user gave is wrong.
        FarmError: the board is not reached or not set up.
    """
    board = inventory.find(config.device)
    model, data = parse_model(config.model, base), parse_data(config.data, base)
    compiler = wiring.COMPILERS[config.compiler]
    agent = wiring.agent_file(store.folder)
    pool = HostPool(min(WORKERS, os.cpu_count() or 1), store.folder / "logs" / f"workers-{os.getpid()}.log")
    bench = Bench(board.name, board.kind, wiring.connector(board, store.folder, agent, compiler),
                  f"study {config.study!r} on {socket.gethostname()} (pid {os.getpid()})",
                  MeasureSettings(threads=config.threads, min_runs=MIN_RUNS[config.latency_stat]),
                  f"{socket.gethostname()}:{store.folder}/{board.name}", store, notice=progress.note, stop=stop)
    try:
        progress.phase(f"importing {config.model}")
        prune = PruneSettings(config.prune_criterion, config.seed) if config.prune else None
        importing = pool.submit(prepare, compiler, model, data, store.blobs.root, prune)
        with bench:
            prepared, runner = _ran(importing, model), bench.runner
            target = wiring.target_of(runner.facts, runner.runtime_name, runner.runtime_version)
            place = wiring.host_runtime_place(runner.runtime_name, store.folder, runner.runtime_version)
            evaluator = EvaluationInputs(store.blobs.root, prepared.splits, data, prepared.metric_names,
                                         place, agent, parse_accuracy(config.accuracy))
            layers = _map_layers(compiler, store, prepared, target, model)
            known = tuned(store, compiler, board.kind, store.blobs.path(prepared.float_model).read_bytes(), layers,
                          target) if earlier is None else Tuned(layers, _schedules_of(store, earlier), None)
            layers = known.layers
            if known.note:
                progress.note(known.note)
            grouped = _with_groups(store, prepared, layers if config.prune else _plain_for_all(layers))
            if config.prune and not grouped.layers.space.groups:
                progress.note("--prune: no channels can be pruned: " + "; ".join(
                    f"{entry.name}: {entry.reason}" if entry.name else entry.reason for entry in grouped.left_out))
            progress.phase("comparing the converted model with PyTorch" if prepared.reference else "running the model")
            builder = BuildInputs(compiler, store.blobs.root, prepared.float_model, prepared.statistics, prepared.ports,
                                  prepared.splits["calibration"], target, config.io, prepared.pruning,
                                  known.schedules)
            _check_conversion(pool, prepared, layers, builder, evaluator, model)
            yield Workbench(
                store, config, board, bench, pool, prepared, grouped.layers, builder,
                evaluator, grouped.left_out, runner.runtime_version,
                wiring.same_machine(runner.facts) and board.shares_host == "forbidden", progress)
    finally:
        pool.shutdown()


def with_space(bench: Workbench, space: SearchSpace) -> Workbench:
    """Return a workbench that searches a study's own space: a part of what its compiler offers now."""
    return replace(bench, layers=replace(bench.layers, space=space))


def _check_conversion(pool: HostPool, prepared: Prepared, layers: LayerMap, builder: BuildInputs,
                      evaluator: EvaluationInputs, model: Reference) -> None:
    """Compare the converted float32 model with PyTorch: its outputs, then its metrics.

    A model that was given as .tflite is its own reference: it must run, and its metrics be finite.

    Raises:
        ConversionMismatch: naming the first layer that differs.
        ModelError: the runtime does not execute the model.
    """
    reference = prepared.reference
    float32 = Candidate.of(layers.space, {layer.name: FLOAT32 for layer in layers.space.layers})
    artifact = _ran(pool.submit(build, replace(builder.here(), io="float"), float32), model).artifact
    if reference is None:
        _ran(pool.submit(evaluate, evaluator, artifact, prepared.ports, "validation"), model)
        return

    def mismatch(what: str, split: str, example: int | None) -> ConversionMismatch:
        suspect = Suspect(builder.compiler, model, reference.positional, builder.blob_folder, prepared.float_model,
                          prepared.ports, dict(layers.layer_of), prepared.splits[split])
        found = _ran(pool.submit(find_difference, suspect, example), model)
        where = f"the first layer that differs is {found.layer!r} ({found.kind})" if found is not None else (
            "plain kernels compute every layer as PyTorch does, so it is the metric that is not the same "
            "twice, or this runtime's accelerated kernels")
        return ConversionMismatch(f"{model.text}: the converted float32 model differs from PyTorch {what}; {where}")

    outputs = _ran(pool.submit(run_reference, evaluator, artifact, prepared.ports, "calibration"), model)
    with np.load(BlobStore(builder.blob_folder).path(reference.outputs)) as expected:
        worst = worst_output([expected[f"o{i}"] for i in range(len(expected.files))], outputs)
    if not worst.deviation <= SETTLED:
        raise mismatch(f"in output {worst.output} by {worst.deviation:.2g} of its range on the calibration inputs; at "
                       f"most {SETTLED:g} is allowed", "calibration", worst.example)
    score = _ran(pool.submit(evaluate, evaluator, artifact, prepared.ports, "validation"), model)
    far = differing_metrics(reference.metrics, score.metrics)
    if far is not None:
        raise mismatch(f"on the validation split: {far}; at most {METRIC_SETTLED:g} is allowed", "validation", None)


def _ran(future: Future[T], model: Reference) -> T:
    """Wait for work on the user's own model: what is infeasible then is the model. Raises ModelError."""
    try:
        return result_of(future)
    except InfeasibleCandidate as error:
        raise ModelError(f"{model.text}: {error}") from error


def _map_layers(compiler: Compiler, store: Store, prepared: Prepared, target: Target, model: Reference) -> LayerMap:
    """Derive the search space. Raises ModelError when there is nothing to search, or too much."""
    try:
        return compiler.layers(store.blobs.path(prepared.float_model).read_bytes(), target)
    except ValueError as error:
        raise ModelError(f"{model.text}: {error}") from error


def _schedules_of(store: Store, study: StudyRecord) -> str | None:
    """Return the tiles of a study that began earlier."""
    return next((step.outputs.get("schedules") for step in store.steps(study.id) if step.name == PREPARE), None)


def _plain_for_all(layers: LayerMap) -> LayerMap:
    """Leave the choices for all layers as they are by default: see docs/decisions/0011-choices-for-all-layers.md."""
    space = layers.space
    return replace(layers, space=replace(space, calibrations=space.calibrations[:1], clippings=space.clippings[:1]))


def _with_groups(store: Store, prepared: Prepared, layers: LayerMap) -> Grouped:
    """Add what can be pruned to the space."""
    if prepared.plan is None:
        return Grouped(layers, ())
    return with_groups(layers, Plan.from_bytes(store.blobs.path(prepared.plan).read_bytes()))


def result_of(future: Future[T]) -> T:
    """Wait for a worker's result so that signals are served meanwhile; raises what the task raised."""
    while True:
        try:
            return future.result(timeout=0.5)
        except TimeoutError:
            if future.done():
                raise
