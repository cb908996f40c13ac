"""What a study works with: the prepared model, the board, the workers, the search space."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from device_farm.inventory import BoardEntry, Inventory
from orchestrator import wiring
from orchestrator.bench import Bench
from orchestrator.config import StudyConfig, parse_accuracy
from orchestrator.executor import HostPool
from orchestrator.progress import Progress
from orchestrator.store.store import Store
from profilers.accuracy import EvaluationInputs, run_reference
from profilers.measurement import MeasureSettings
from recipes.artifact import Artifact
from recipes.compilers.tflite.build import BuildInputs
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import LayerMap, map_layers
from recipes.errors import ConversionMismatch
from recipes.models.prepare import Prepared, prepare
from recipes.models.source import parse_data, parse_model

T = TypeVar("T")
WORKERS = 2
SETTLED = 1e-4
"""Largest difference, as a share of the output's range, between PyTorch and the converted float32 model."""


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
    runtime_version: str
    """On the board."""
    exclusive: bool
    """The board is this machine: it never measures while host work runs."""
    progress: Progress

    @property
    def objective(self) -> str:
        """The metric that counts: the first one."""
        return next(iter(self.prepared.reference_metrics))


@contextmanager
def open_workbench(store: Store, inventory: Inventory, config: StudyConfig, base: Path,
                   progress: Progress) -> Iterator[Workbench]:
    """Prepare the model in a worker, connect to the board, derive the space; close it all at the end.

    Args:
        store: an open store.
        inventory: the boards.
        config: the study.
        base: the folder from which relative paths of the configuration count.
        progress: takes events.

    Raises:
        ModelError, DataError, InventoryError: what the user gave is wrong.
        FarmError: the board is not reached or not set up.
    """
    board = inventory.find(config.device)
    model, data = parse_model(config.model, base), parse_data(config.data, base)
    agent = wiring.agent_file(store.folder)
    pool = HostPool(min(WORKERS, os.cpu_count() or 1), store.folder / "logs" / f"workers-{os.getpid()}.log")
    bench = Bench(board.name, wiring.connector(board, store.folder, agent),
                  f"study {config.study} on {socket.gethostname()} (pid {os.getpid()})",
                  MeasureSettings(threads=config.threads), f"{socket.gethostname()}:{store.folder}/{board.name}",
                  notice=progress.note)
    try:
        with bench:
            progress.phase(f"importing {config.model}")
            prepared = result_of(pool.submit(prepare, model, data, store.blobs.root))
            runner = bench.runner
            target = wiring.target_of(runner.facts, runner.runtime_name, runner.runtime_version)
            place = wiring.host_runtime_place(runner.runtime_name, store.folder, runner.runtime_version)
            evaluator = EvaluationInputs(store.blobs.root, prepared.splits, data, tuple(prepared.reference_metrics),
                                         place, agent, parse_accuracy(config.accuracy))
            progress.phase("comparing the converted model with PyTorch")
            _check_conversion(store, pool, prepared, evaluator, config.model)
            yield Workbench(
                store, config, board, bench, pool, prepared,
                map_layers(read_graph(store.blobs.path(prepared.float_model)), target),
                BuildInputs(store.blobs.root, prepared.float_model, prepared.statistics, prepared.ports, target,
                            config.io),
                evaluator, runner.runtime_version,
                wiring.same_machine(runner.facts) and board.shares_host == "forbidden", progress)
    finally:
        pool.shutdown()


def _check_conversion(store: Store, pool: HostPool, prepared: Prepared, evaluator: EvaluationInputs,
                      model: str) -> None:
    """Compare the converted float32 model with PyTorch on the calibration inputs. Raises ConversionMismatch."""
    artifact = Artifact.of(store.blobs.path(prepared.float_model))
    outputs = result_of(pool.submit(run_reference, evaluator, artifact, prepared.ports, "calibration"))
    with np.load(store.blobs.path(prepared.reference_outputs)) as expected:
        for index, got in enumerate(outputs):
            wanted = expected[f"o{index}"]
            span = float(wanted.max() - wanted.min()) or 1.0
            worst = float(np.abs(got - wanted).max()) / span
            if not worst <= SETTLED:
                raise ConversionMismatch(
                    f"{model}: the converted float32 model differs from PyTorch in output {index} by {worst:.2g} of "
                    f"its range on the calibration inputs; at most {SETTLED:g} is allowed")


def result_of(future: Future[T]) -> T:
    """Wait for a worker's result so that signals are served meanwhile; raises what the task raised."""
    while True:
        try:
            return future.result(timeout=0.5)
        except TimeoutError:
            if future.done():
                raise
