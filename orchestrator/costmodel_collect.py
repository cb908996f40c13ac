"""Measuring single layers on a board, so that cost models have something to learn from."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event

from device_farm.inventory import BoardEntry, Inventory
from orchestrator import wiring
from orchestrator.bench import Bench, Job
from orchestrator.errors import UsageError
from orchestrator.executor import HostPool
from orchestrator.leasing import Waiting, tenant
from orchestrator.schemas.costmodel import CostmodelCollected
from orchestrator.schemas.strict import SCHEMA
from orchestrator.scratch import Scratch
from orchestrator.signals import interruptible
from orchestrator.store.records import LayerRecord, point_of
from orchestrator.store.store import Store
from orchestrator.workbench import WORKERS, result_of
from profilers.cost_model_rows import Conditions
from profilers.cost_model_sweep import (
    COPIES,
    FLOOR,
    FLOOR_COPIES,
    LayerTask,
    PreparedLayer,
    layers_of,
    prepare_layer,
    settings,
    sweep,
)
from profilers.measurement import Measurement
from profilers.runner import RuntimePlace
from recipes.compilers.shapes import LayerShape
from recipes.compilers.tflite.graph import read_graph
from search.errors import InfeasibleCandidate
from search.space import FLOAT32, LayerConfig

DEFAULT_POINTS = 2000
BATCH = 32
"""Points that the host prepares before the board measures them: a board that is this machine does one at a time."""
Point = tuple[LayerShape, LayerConfig]
Tell = Callable[[int, str], None]
"""Takes how many points are done, and what was done last."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to collect."""

    device: str
    measurements: int | None
    """The first so many points of the sweep; None: as many as the time allows."""
    limit_s: float | None
    seed: int
    threads: int
    shapes: Path | None = None
    """A float .tflite model whose layers are measured, instead of drawn ones."""
    waiting: Waiting = Waiting()


@dataclass(slots=True)
class Counts:
    """How far a sweep is."""

    known: int = 0
    measured: int = 0
    infeasible: int = 0

    @property
    def done(self) -> int:
        return self.known + self.measured + self.infeasible


def collect(store: Store, inventory: Inventory, wanted: Wanted, tell: Tell, note: Callable[[str], None],
            dry_run: bool = False) -> CostmodelCollected:
    """Measure the points of a sweep that the store does not know of this board, and keep each at once.

    Raises:
        InventoryError, UsageError: no such board, no such model.
        FarmError: the board is lost; what was measured is kept.
    """
    board = inventory.find(wanted.device)
    agent = wiring.agent_file(store.folder)
    bench = Bench(board.name, board.kind, wiring.connector(board, store.folder, agent, [wiring.COMPILERS["tflite"]]),
                  tenant(store, board, "costmodel collect", wanted.waiting.priority), settings(wanted.threads), store,
                  wanted.waiting.patience_s, notice=note, neighbours=wiring.neighbours(board))
    started = time.monotonic()
    counts, interrupted = Counts(), False
    with bench:
        runner = bench.runner
        where = Conditions(board.kind, *next(iter(runner.runtimes.items())), wanted.threads)
        known = {row.point for row in store.layers(board=board.name) if row.where == where}
        points, planned = _points(wanted, where.runtime)
        if dry_run:
            counts.known = sum(point_of(*point) in known for point in points)
        else:
            place = wiring.host_runtime_place(where.runtime, store.folder, where.runtime_version)
            pool = HostPool(min(WORKERS, os.cpu_count() or 1), store.folder / "logs" / f"workers-{os.getpid()}.log")
            scratch = Scratch()
            session = _Session(store, board, bench, pool, place, agent, where, scratch.path, counts, tell)
            try:
                with interruptible() as asked:
                    session.run(points, known, None if wanted.limit_s is None else started + wanted.limit_s, asked)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                pool.shutdown()
                scratch.close()
    document: CostmodelCollected = {
        "schema": SCHEMA, "board": {"name": board.name, "kind": board.kind, "runtime": {
            "name": where.runtime, "version": where.runtime_version}},
        "threads": wanted.threads, "seed": wanted.seed, "dry_run": dry_run, "points": planned,
        "known": counts.known, "measured": counts.measured, "infeasible": counts.infeasible,
        "rows": len(store.layers(board=board.name)), "wall_s": round(time.monotonic() - started, 3),
        "interrupted": interrupted, "simulated": board.transport == "sim"}
    if planned is None:
        document["points_absent_because"] = "as many as the time allows"
    return document


def _points(wanted: Wanted, runtime: str) -> tuple[Iterator[Point], int | None]:
    """Return what is to be measured, and how many that is. Raises UsageError."""
    if wanted.shapes is None:
        return islice(sweep(wanted.seed, runtime), wanted.measurements), wanted.measurements
    try:
        found = list(islice(layers_of(read_graph(wanted.shapes), runtime), wanted.measurements))
    except OSError as error:
        raise UsageError(f"--shapes {wanted.shapes}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"--shapes {wanted.shapes}: {error}") from error
    if not found:
        raise UsageError(f"--shapes {wanted.shapes}: no layer of this model can be measured alone; give a float model, "
                         "such as float.tflite of a recipe")
    return iter(found), len(found)


@dataclass(slots=True)
class _Session:
    """One board, while its layers are measured."""

    store: Store
    board: BoardEntry
    bench: Bench
    pool: HostPool
    place: RuntimePlace
    agent: Path
    where: Conditions
    scratch: Path
    counts: Counts
    tell: Tell

    def run(self, points: Iterator[Point], known: set[str], deadline: float | None, asked: Event) -> None:
        """Measure what is not known until the points or the time are over. Raises FarmError, KeyboardInterrupt."""
        while deadline is None or time.monotonic() < deadline:
            batch: list[Point] = []
            for point in points:
                if point_of(*point) in known:
                    self.counts.known += 1
                else:
                    batch.append(point)
                if len(batch) == BATCH:
                    break
            if not batch:
                return
            folder = self.scratch / "batch"
            folder.mkdir()
            self._measure(batch, folder, deadline, asked)
            shutil.rmtree(folder)

    def _measure(self, batch: list[Point], folder: Path, deadline: float | None, asked: Event) -> None:
        tasks = [(shape, config, COPIES) for shape, config in batch]
        floor = [(FLOOR, FLOAT32, copies) for copies in FLOOR_COPIES]
        futures = [self.pool.submit(prepare_layer, LayerTask(*task, folder, self.place, self.agent))
                   for task in (*floor, *tasks)]
        jobs: list[PreparedLayer | InfeasibleCandidate] = []
        for future in futures:
            try:
                jobs.append(result_of(future))
            except InfeasibleCandidate as error:
                jobs.append(error)
        fixed_s = self._fixed(jobs[:len(floor)])
        for (shape, config), job in zip(batch, jobs[len(floor):], strict=True):
            if asked.is_set():
                raise KeyboardInterrupt
            if deadline is not None and time.monotonic() >= deadline:
                return
            record = self._record(shape, config, job, fixed_s)
            self.store.add_layer(record)
            if record.reason is None:
                self.counts.measured += 1
            else:
                self.counts.infeasible += 1
            self.tell(self.counts.done, f"{shape.kind} {config.label}")

    def _fixed(self, floor: list[PreparedLayer | InfeasibleCandidate]) -> float:
        """Return what an inference costs in any case, seconds. Raises InfeasibleCandidate."""
        medians: list[float] = []
        for job in floor:
            if isinstance(job, InfeasibleCandidate):
                raise job
            if not medians:
                self.bench.set_reference(_job(job))
            medians.append(_median_s(self.bench.measure(_job(job))))
        few, many = FLOOR_COPIES
        each_s = (medians[1] - medians[0]) / (many - few)
        return max(0.0, medians[0] - few * each_s)

    def _record(self, shape: LayerShape, config: LayerConfig, job: PreparedLayer | InfeasibleCandidate,
                fixed_s: float) -> LayerRecord:
        """Measure a layer; what does not run there is a result too. Raises FarmError."""
        simulated = self.board.transport == "sim"
        try:
            if isinstance(job, InfeasibleCandidate):
                raise job
            found = self.bench.measure(_job(job))
        except InfeasibleCandidate as error:
            return LayerRecord(shape, config, COPIES, self.board.name, self.where, simulated, reason=str(error))
        return LayerRecord(shape, config, COPIES, self.board.name, self.where, found.simulated, found.boot_id,
                           found.agent_version, found.artifact_sha256, found.wall_ns, fixed_s)


def _job(layer: PreparedLayer) -> Job:
    return Job(layer.artifact, layer.golden_inputs, layer.golden_outputs, layer.tolerance)


def _median_s(measurement: Measurement) -> float:
    return statistics.median(measurement.wall_ns) * 1e-9

