"""Which tile of every kernel is the fastest on a kind of board; what is known is not measured again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from device_farm.inventory import BoardEntry, Inventory
from orchestrator import wiring
from orchestrator.bench import Bench
from orchestrator.errors import UsageError
from orchestrator.executor import HostPool
from orchestrator.leasing import Waiting, tenant
from orchestrator.schemas.strict import SCHEMA
from orchestrator.schemas.tune import TunedKernel, TuneDocument
from orchestrator.scratch import Scratch
from orchestrator.signals import interruptible
from orchestrator.store.records import KernelRecord
from orchestrator.store.store import Store
from orchestrator.tune_boards import SETTINGS, KernelReadings, TuningBoards
from orchestrator.tuned import TUNABLE
from orchestrator.workbench import WORKERS, result_of
from profilers.tile_choice import choose
from recipes.compilers.tvm.kernels.isa import isa_of
from recipes.compilers.tvm.link import templates_digest
from recipes.compilers.tvm.network import read_network
from recipes.compilers.tvm.schedules import tile_numbers
from recipes.compilers.tvm.target import kernel_options
from recipes.compilers.tvm.templates import Template, templates_of
from recipes.models.prepare import prepare
from recipes.models.source import parse_data, parse_model
from recipes.target import Target


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to tune."""

    device: str
    """A board's name, or a kind: all boards of it."""
    model: str
    data: str
    base: Path
    """Where relative paths begin."""
    schemes: tuple[str, ...] = ()
    """`w8a8`...; empty: all."""
    limit_s: float | None = None
    again: bool = False
    """Measure what is known, too."""
    dry_run: bool = False
    """Say what is left; measure nothing."""
    waiting: Waiting = Waiting()


class Watcher:
    """Takes what a person wants to see; by default nothing is shown."""

    def begin(self, kernels: int) -> None:
        """So many kernels are to be measured."""

    def done(self, kernels: int, title: str) -> None:
        """So many are measured, this one last."""

    def note(self, text: str) -> None:
        """Something worth a line."""


def tune(store: Store, inventory: Inventory, wanted: Wanted, watcher: Watcher) -> TuneDocument:
    """Measure the tiles of every kernel of a network that the store does not know of this kind of board.

    Raises:
        InventoryError, UsageError, ModelError, DataError: what the user gave is wrong.
        FarmError: no board is left; what was measured is kept.
    """
    boards = inventory.matching(wanted.device)
    model, data = parse_model(wanted.model, wanted.base), parse_data(wanted.data, wanted.base)
    started, interrupted, stop = time.monotonic(), False, threading.Event()
    compiler, agent, scratch = wiring.COMPILERS[TUNABLE], wiring.agent_file(store.folder), Scratch()
    pool = HostPool(min(WORKERS, os.cpu_count() or 1), store.folder / "logs" / f"workers-{os.getpid()}.log")
    try:
        with ExitStack() as held, interruptible() as asked:
            importing = pool.submit(prepare, compiler, model, data, store.blobs.root)
            opened = [held.enter_context(_bench(board, store, agent, wanted.waiting, watcher, stop))
                      for board in boards]
            benches, target = _alike(opened, watcher.note)
            float_model = store.blobs.path(result_of(importing).float_model).read_bytes()
            templates = _templates(float_model, target, wanted.schemes)
            known = () if wanted.again else store.kernels(boards[0].kind, target.runtime_version, templates_digest())
            keys = {record.kernel for record in known}
            left = [template for template in templates if template.key not in keys]
            log = _Log(store, boards[0].kind, target.runtime_version, watcher)
            if not wanted.dry_run:
                watcher.begin(len(left))
                exclusive = any(wiring.same_machine(bench.runner.facts) for bench in benches)
                deadline = float("inf") if wanted.limit_s is None else started + wanted.limit_s
                try:
                    TuningBoards(benches, target, pool, scratch.path, exclusive, watcher.note).measure(
                        left, log.keep, lambda: asked.is_set() or time.monotonic() >= deadline)
                except KeyboardInterrupt:
                    stop.set()
                interrupted = asked.is_set()
    finally:
        stop.set()
        pool.shutdown()
        scratch.close()
    rows = {row.kernel: row for row in store.kernels(boards[0].kind, target.runtime_version, templates_digest())}
    kept = [rows[key] for key in log.kept if key in rows]
    return {
        "schema": SCHEMA, "device": wanted.device, "kind": boards[0].kind, "boards": [b.name for b in opened],
        "runtime": {"name": TUNABLE, "version": target.runtime_version}, "model": wanted.model,
        "dry_run": wanted.dry_run, "planned": len(templates), "known": len(templates) - len(left),
        "measured": sum(row.reason is None for row in kept), "infeasible": sum(row.reason is not None for row in kept),
        "interrupted": interrupted,
        "wall_s": round(time.monotonic() - started, 3),
        "kernels": [_entry(rows[template.key]) for template in templates if template.key in rows]}


class _Log:
    """Stores what was found out."""

    def __init__(self, store: Store, kind: str, version: str, watcher: Watcher) -> None:
        self._store, self._kind, self._version, self._watcher = store, kind, version, watcher
        self.kept: list[str] = []
        """Keys; where Ctrl-C came meanwhile, the last one may not be stored."""

    def keep(self, kernel: KernelReadings) -> None:
        """Store a kernel."""
        template = kernel.template
        record = KernelRecord(
            kernel=template.key, title=template.title, kind=self._kind, board=kernel.board,
            runtime_version=self._version, templates=templates_digest(), tile=tile_numbers(template.default()),
            default_ns=0, best_ns=0, tiles=0, code_bytes=0, reason=kernel.reason)
        if kernel.reason is None:
            found = choose(kernel.turns)
            record = replace(record, tile=tile_numbers(found.tile), default_ns=found.default_ns, best_ns=found.best_ns,
                             tiles=found.tiles, code_bytes=found.code_bytes)
        self.kept.append(template.key)
        self._store.add_kernel(record)
        self._watcher.done(len(self.kept), template.title)


def _bench(board: BoardEntry, store: Store, agent: Path, waiting: Waiting, watcher: Watcher,
           stop: threading.Event) -> Bench:
    return Bench(board.name, board.kind, wiring.connector(board, store.folder, agent, [wiring.COMPILERS[TUNABLE]]),
                 tenant(store, board, "tune", waiting.priority), SETTINGS, store, waiting.patience_s,
                 notice=watcher.note, stop=stop, neighbours=wiring.neighbours(board))


def _alike(benches: Sequence[Bench], note: Callable[[str], None]) -> tuple[list[Bench], Target]:
    """Return the boards that execute the same code as the first, and its target."""
    targets = [wiring.target_of(b.runner.facts, TUNABLE, b.runner.runtimes[TUNABLE]) for b in benches]
    found: list[Bench] = []
    for bench, target in zip(benches, targets, strict=True):
        if (kernel_options(target), target.runtime_version) == (kernel_options(targets[0]), targets[0].runtime_version):
            found.append(bench)
        else:
            note(f"{bench.name} is left out: its processor or its runtime is not that of {benches[0].name}")
    return found, targets[0]


def _templates(float_model: bytes, target: Target, schemes: Sequence[str]) -> tuple[Template, ...]:
    """Return the kernels of a network, in these formats. Raises UsageError."""
    layers = wiring.COMPILERS[TUNABLE].layers(float_model, target)
    found = templates_of(read_network(float_model), layers, isa_of(target.machine, target.cpu_features))
    unknown = sorted(set(schemes) - {template.scheme for template in found})
    if unknown:
        raise UsageError(f"--schemes: no kernel of this network computes in {', '.join(unknown)}; there are: "
                         f"{', '.join(dict.fromkeys(template.scheme for template in found))}")
    return tuple(template for template in found if not schemes or template.scheme in schemes)


def _entry(row: KernelRecord) -> TunedKernel:
    pixels, vectors, stay = row.tile
    return {"kernel": row.kernel, "title": row.title, "board": row.board, "reason": row.reason,
            "default_s": None if row.reason else row.default_ns * 1e-9,
            "tuned_s": None if row.reason else row.best_ns * 1e-9, "tiles": row.tiles, "code_bytes": row.code_bytes,
            "tile": {"pixels": pixels, "vectors": vectors, "weights_stay": bool(stay)}}
