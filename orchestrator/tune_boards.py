"""Boards of one kind that work on kernels together, and the host that prepares what they measure."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from device_farm.errors import FarmError
from orchestrator.bench import Bench, Job
from orchestrator.executor import HostPool
from orchestrator.workbench import result_of
from profilers.measurement import MeasureSettings
from profilers.tile_choice import Turns, turns
from recipes.compilers.tvm.templates import Template
from recipes.compilers.tvm.tuning import TileLibrary, TileTask, parts, prepare_tiles
from recipes.target import Target
from search.errors import InfeasibleCandidate

SETTINGS = MeasureSettings(min_runs=5, max_runs=20, max_sampling_s=0.02, max_warmup_s=0.05, max_profile_s=0.2)
"""Of one library: what counts are the profiled runs, in which its tiles take turns."""
SESSIONS = 2
"""Of each library; a tile must win in all of them."""
BATCH = 8
"""Kernels that the host prepares at a time: a board that is this machine measures before the next ones are."""


@dataclass(slots=True)
class KernelReadings:
    """What became of one kernel."""

    template: Template
    turns: list[Turns] = field(default_factory=list)
    board: str = ""
    """The one that measured it last."""
    reason: str | None = None
    """Why it does not run."""


class TuningBoards:
    """Boards of one kind.

    Args:
        benches: alike; those that are lost leave.
        target: of all of them.
        pool: prepares libraries.
        scratch: takes them.
        exclusive: a board is this machine: the host rests while it measures.
        note: takes notices.
    """

    def __init__(self, benches: list[Bench], target: Target, pool: HostPool, scratch: Path, exclusive: bool,
                 note: Callable[[str], None]) -> None:
        self._benches, self._target, self._pool = benches, target, pool
        self._scratch, self._exclusive, self._note = scratch, exclusive, note

    def measure(self, templates: Sequence[Template], keep: Callable[[KernelReadings], None],
                enough: Callable[[], bool]) -> None:
        """Measure kernels, a batch at a time.

        Args:
            templates: the smallest first.
            keep: takes every kernel when it is done.
            enough: asked before every batch.

        Raises:
            FarmError: no board is left.
        """
        batches = [templates[start:start + BATCH] for start in range(0, len(templates), BATCH)]
        ahead = [] if self._exclusive or not batches else [self._submitted(batches[0])]
        for place, batch in enumerate(batches):
            if enough():
                return
            submitted = ahead.pop() if ahead else self._submitted(batch)
            waiting = [(kernel, made) for kernel, future in submitted
                       if (made := self._made(kernel, future)) is not None]
            if not self._exclusive and place + 1 < len(batches):
                ahead.append(self._submitted(batches[place + 1]))
            if place == 0 and waiting:
                self._try_out(waiting[0][1])
            self._divide(waiting)
            for kernel in {id(kernel): kernel for kernel, _ in submitted}.values():
                keep(kernel)
                shutil.rmtree(self._scratch / kernel.template.key)

    def _submitted(self, templates: Sequence[Template]) -> list[tuple[KernelReadings, Future[TileLibrary]]]:
        """Give the libraries of kernels to the workers."""
        found: list[tuple[KernelReadings, Future[TileLibrary]]] = []
        for template in templates:
            kernel, folder = KernelReadings(template), self._scratch / template.key
            folder.mkdir(parents=True)
            found += [(kernel, self._pool.submit(prepare_tiles, TileTask(template, tiles, self._target, folder)))
                      for tiles in parts(template, template.tiles())]
        return found

    def _made(self, kernel: KernelReadings, future: Future[TileLibrary]) -> TileLibrary | None:
        try:
            return result_of(future)
        except InfeasibleCandidate as error:
            kernel.reason = str(error)
            return None

    def _try_out(self, library: TileLibrary) -> None:
        """See that every board runs the smallest kernel; it cross-examines them later. Raises FarmError."""
        for bench in self._benches:
            bench.set_reference(_job(library))
            try:
                bench.session(_job(library))
            except InfeasibleCandidate as error:
                raise bench.ill("the smallest kernel", error) from error

    def _divide(self, libraries: Sequence[tuple[KernelReadings, TileLibrary]]) -> None:
        """Let every board take one library after the other. Raises FarmError when no board is left."""
        waiting: queue.SimpleQueue[tuple[KernelReadings, TileLibrary]] = queue.SimpleQueue()
        for item in libraries:
            waiting.put(item)
        lost: dict[str, FarmError] = {}

        def work(bench: Bench) -> None:
            while True:
                try:
                    item = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    _measure(bench, *item)
                except FarmError as error:
                    waiting.put(item)
                    lost[bench.name] = error
                    return

        while not waiting.empty():
            with ThreadPoolExecutor(len(self._benches), thread_name_prefix="board") as threads:
                try:
                    for future in [threads.submit(work, bench) for bench in self._benches]:
                        result_of(future)
                except BaseException:
                    waiting = queue.SimpleQueue()  # the boards end after what they measure
                    raise
            for name, error in lost.items():
                self._benches[:] = [bench for bench in self._benches if bench.name != name]
                if not self._benches:
                    raise error
                self._note(f"{name} is lost, the other boards go on: {error}")
            lost.clear()


def _measure(bench: Bench, kernel: KernelReadings, library: TileLibrary) -> None:
    """Time the tiles of a library; what does not run is a result. Raises FarmError."""
    kernel.board = bench.name
    try:
        sessions = []
        for _ in range(SESSIONS):
            session = bench.session(_job(library))
            sums = [float(output[0]) for output in session.outputs]
            for tile, total in zip(library.tiles, sums, strict=True):
                if total != sums[0]:
                    raise InfeasibleCandidate(f"with {tile} it computes another result than with {library.tiles[0]}")
            sessions.append(turns(session.measurement, len(library.tiles)))
        kernel.turns.append(Turns(library.tiles, library.code_bytes, tuple(sessions)))
    except InfeasibleCandidate as error:
        kernel.reason = str(error)


def _job(library: TileLibrary) -> Job:
    return Job(library.artifact, library.inputs, (), 0.0)
