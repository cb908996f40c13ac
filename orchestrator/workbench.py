"""What a study works with: the board, the workers, and for each compiler the prepared model and its space."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from device_farm.inventory import BoardEntry, Inventory
from orchestrator import wiring
from orchestrator.assemble import assembled, serving
from orchestrator.bench import Bench
from orchestrator.config import StudyConfig, parse_accuracy
from orchestrator.crew import Crew
from orchestrator.executor import HostPool
from orchestrator.leasing import UNHURRIED, Waiting, tenant
from orchestrator.objectives import parse_objectives
from orchestrator.progress import Progress
from orchestrator.provenance import schedules_of
from orchestrator.store.records import StudyRecord
from orchestrator.store.store import Store
from orchestrator.toolchain import Toolchain, refuse_foreign, refuse_other_data
from orchestrator.tuned import Tuned, tuned
from orchestrator.ward import Ward
from profilers.accuracy import EvaluationInputs, evaluate, run_reference
from profilers.measurement import MeasureSettings
from recipes.blobs import BlobStore
from recipes.compilers.build import BuildInputs, build
from recipes.compilers.compare import METRIC_SETTLED, SETTLED, Suspect, differing_metrics, find_difference, worst_output
from recipes.compilers.compiler import Compiler
from recipes.compilers.grouped import Grouped, with_groups
from recipes.compilers.layers import LayerMap
from recipes.compress.groups import Plan
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
MIN_RUNS = {"median": 20, "mean": 20, "p90": 100, "p99": 500}
"""Timed runs that a statistic needs at least: five runs beyond p99, ten beyond p90."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """Everything that is open while a study runs."""

    store: Store
    config: StudyConfig
    board: BoardEntry
    """The first one that was reached."""
    crew: Crew
    pool: HostPool
    toolchains: Mapping[str, Toolchain]
    """By the compiler's name."""
    exclusive: bool
    """The board is this machine: it never measures while host work runs."""
    progress: Progress

    @property
    def objective(self) -> str:
        """The metric that counts: the first one, unless --objective names another."""
        asked = parse_objectives(self.config.objective).metric if self.config.objective else None
        return asked or self.first.prepared.metric_names[0]

    @property
    def first(self) -> Toolchain:
        """The only one, or the first of several: whose float32 a budget is a share of."""
        return next(iter(self.toolchains.values()))

    @property
    def spaces(self) -> Mapping[str, SearchSpace]:
        """What is searched, by the compiler's name."""
        return {name: toolchain.space for name, toolchain in self.toolchains.items()}

    def recipe(self, compiler: str, name: str) -> str:
        """Return what a recipe is called in this study: the first compiler's have the plain names."""
        return name if compiler == self.first.name else f"{compiler}:{name}"


@contextmanager
def open_workbench(store: Store, inventory: Inventory, config: StudyConfig, base: Path,
                   progress: Progress, stop: threading.Event | None = None,
                   earlier: StudyRecord | None = None, waiting: Waiting = UNHURRIED) -> Iterator[Workbench]:
    """Prepare the model in workers, connect to the boards, derive the spaces; close it all at the end.

    Args:
        store: an open store.
        inventory: the boards.
        config: the study.
        base: the folder from which relative paths of the configuration count.
        progress: takes events.
        stop: set when the user wants no more waiting for the board.
        earlier: the study that is continued, with the tiles that it began with.
        waiting: how long for a board that is another's.

    Raises:
        ModelError, DataError, InventoryError: what the user gave is wrong.
        FarmError: the board is not reached or not set up.
    """
    entries = serving(store.leases, inventory.matching(config.device), progress.note)
    model, data = parse_model(config.model, base), parse_data(config.data, base)
    refuse_foreign(model, config.compiler)
    compilers = [wiring.COMPILERS[name] for name in config.compiler]
    agent = wiring.agent_file(store.folder)
    pool = HostPool(min(WORKERS, os.cpu_count() or 1), store.folder / "logs" / f"workers-{os.getpid()}.log")
    stop = stop or threading.Event()
    settings = MeasureSettings(threads=config.threads, min_runs=MIN_RUNS[config.latency_stat])
    benches = {entry.name: Bench(
        entry.name, entry.kind, wiring.connector(entry, store.folder, agent, compilers),
        tenant(store, entry, f"study {config.study!r}", waiting.priority), settings, store, waiting.patience_s,
        notice=progress.note, stop=stop, neighbours=wiring.neighbours(entry)) for entry in entries}
    try:
        progress.phase(f"importing {config.model}")
        prune = PruneSettings(config.prune_criterion, config.seed) if config.prune else None
        importing = {compiler.name: pool.submit(prepare, compiler, model, data, store.blobs.root, prune)
                     for compiler in compilers}
        found = assembled(entries, benches, store.leases, progress.note)
        ward = Ward(store.leases, {entry.name: entry for entry in found}, progress.note)
        with Crew([benches[entry.name] for entry in found], progress.note, stop, ward) as crew:
            prepared = {}
            for name, future in importing.items():
                with _naming(name, config):
                    prepared[name] = _ran(future, model)
            refuse_other_data(prepared, data)
            toolchains = {}
            for compiler in compilers:
                with _naming(compiler.name, config):
                    toolchains[compiler.name] = _toolchain(compiler, prepared[compiler.name], crew.lead, store, config,
                                                           model, data, agent, pool, progress, earlier)
            exclusive = any(wiring.same_machine(benches[entry.name].runner.facts)
                            and entry.shares_host == "forbidden" for entry in found)
            yield Workbench(store, config, found[0], crew, pool, toolchains, exclusive, progress)
    finally:
        for bench in benches.values():
            bench.close()
        pool.shutdown()


def with_spaces(bench: Workbench, spaces: Mapping[str, SearchSpace]) -> Workbench:
    """Return a workbench that searches a study's own spaces: parts of what its compilers offer now."""
    return replace(bench, toolchains={name: toolchain.searching(spaces[name])
                                      for name, toolchain in bench.toolchains.items()})


@contextmanager
def _naming(compiler: str, config: StudyConfig) -> Iterator[None]:
    """Say which of several compilers cannot have the model, and that it may be left out."""
    try:
        yield
    except ModelError as error:
        others = ",".join(name for name in config.compiler if name != compiler)
        if not others:
            raise
        raise type(error)(f"{compiler}: {error}; to search without it: --compiler {others}") from error


def _toolchain(compiler: Compiler, prepared: Prepared, bench: Bench, store: Store, config: StudyConfig,
               model: Reference, data: Reference, agent: Path, pool: HostPool, progress: Progress,
               earlier: StudyRecord | None) -> Toolchain:
    """Derive a compiler's space, and see that its float32 computes what PyTorch does.

    Raises ModelError, ConversionMismatch, FarmError.
    """
    runner = bench.runner
    runtime = next(name for name in runner.runtimes if name in compiler.runtimes)
    version = runner.runtimes[runtime]
    target = wiring.target_of(runner.facts, runtime, version)
    evaluator = EvaluationInputs(store.blobs.root, prepared.splits, data, prepared.metric_names,
                                 wiring.host_runtime_place(runtime, store.folder, version), agent,
                                 parse_accuracy(config.accuracy))
    layers = _map_layers(compiler, store, prepared, target, model)
    known = (Tuned(layers, schedules_of(store, earlier, prepared), None) if earlier is not None else
             tuned(store, compiler, bench.kind, store.blobs.path(prepared.float_model).read_bytes(), layers, target))
    if known.note:
        progress.note(known.note)
    grouped = _with_groups(store, prepared, known.layers if config.prune else _plain_for_all(known.layers))
    if config.prune and not grouped.layers.space.groups:
        progress.note("--prune: no channels can be pruned: " + "; ".join(
            f"{entry.name}: {entry.reason}" if entry.name else entry.reason for entry in grouped.left_out))
    progress.phase("comparing the converted model with PyTorch" if prepared.reference else "running the model")
    builder = BuildInputs(compiler, store.blobs.root, prepared.float_model, prepared.statistics, prepared.ports,
                          prepared.splits["calibration"], target, config.io, prepared.pruning, known.schedules)
    _check_conversion(pool, prepared, layers, builder, evaluator, model)
    return Toolchain(prepared, grouped.layers, builder, evaluator, grouped.left_out, version)


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
