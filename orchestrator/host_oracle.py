"""The host's answers to the engine: builds and evaluations in the worker pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from orchestrator.executor import HostPool
from orchestrator.workbench import result_of
from profilers.accuracy import (
    EvaluationInputs,
    build_and_evaluate,
    calibration_outputs,
    divergence,
    narrowing_divergence,
)
from recipes.compilers.tflite.build import BuildInputs
from search.candidate import Candidate, Recovery
from search.errors import InfeasibleCandidate
from search.oracle import Estimate

T = TypeVar("T")


class PoolOracle:
    """Answers from artifacts that workers build and run on the host. Implements search.HostOracle.

    Args:
        pool: the workers.
        builder: of artifacts.
        evaluator: of artifacts; also where accuracy is reported from the board, estimates are the host's.
        reference: the candidate that is float32.
    """

    def __init__(self, pool: HostPool, builder: BuildInputs, evaluator: EvaluationInputs, reference: Candidate) -> None:
        self._pool, self._builder, self._reference = pool, builder, reference
        self._evaluator = replace(evaluator, board_examples=None)
        self._outputs: Path | None = None
        self._formats: dict[str, float | None] = {}
        """Candidate at full width -> divergence."""
        self._widths: dict[tuple[tuple[str, int], ...], float | None] = {}
        """Widths -> divergence of the float network."""

    def divergences(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """See search.HostOracle. Nothing is converted: formats are tried at full width, widths in PyTorch."""
        if self._outputs is None:
            self._outputs = result_of(self._pool.submit(calibration_outputs, self._builder, self._evaluator,
                                                        self._reference))
        outputs = self._outputs
        whole = {c.id: replace(c, widths=(), recovery=Recovery.NONE) for c in candidates}
        formats = {c.id: c for c in whole.values() if c.id not in self._formats}
        widths = dict.fromkeys(c.widths for c in candidates if c.widths and c.widths not in self._widths)
        waiting = [self._pool.submit(divergence, self._builder, self._evaluator, c, outputs) for c in formats.values()]
        narrowing = [self._pool.submit(narrowing_divergence, self._builder, w) for w in widths]
        found, narrowed = _results(waiting), _results(narrowing)
        self._formats.update(zip(formats, found, strict=True))
        self._widths.update(zip(widths, narrowed, strict=True))
        return [_sum(self._formats[whole[c.id].id], self._widths[c.widths] if c.widths else 0.0) for c in candidates]

    def estimates(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        """See search.HostOracle."""
        reports = _results(self._pool.submit(build_and_evaluate, self._builder, self._evaluator, c)
                           for c in candidates)
        return [None if r is None else Estimate(r.built.artifact.size_bytes, r.metrics) for r in reports]


def _sum(formats: float | None, widths: float | None) -> float | None:
    """Return both together: what narrowing costs and what formats cost adds up, near enough to steer."""
    return None if formats is None or widths is None else formats + widths


def _results(futures: Iterable[Future[T]]) -> list[T | None]:
    """Wait for all; None where the candidate is infeasible."""
    found: list[T | None] = []
    for future in list(futures):
        try:
            found.append(result_of(future))
        except InfeasibleCandidate:
            found.append(None)
    return found
