"""The host's answers to the engine: builds and evaluations in the worker pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from orchestrator.executor import HostPool
from orchestrator.workbench import result_of
from profilers.accuracy import EvaluationInputs, build_and_evaluate, calibration_outputs, divergence
from recipes.compilers.tflite.build import BuildInputs
from search.candidate import Candidate
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

    def divergences(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """See search.HostOracle."""
        if self._outputs is None:
            self._outputs = result_of(self._pool.submit(calibration_outputs, self._builder, self._evaluator,
                                                        self._reference))
        outputs = self._outputs
        return _results(self._pool.submit(divergence, self._builder, self._evaluator, c, outputs) for c in candidates)

    def estimates(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        """See search.HostOracle."""
        reports = _results(self._pool.submit(build_and_evaluate, self._builder, self._evaluator, c)
                           for c in candidates)
        return [None if r is None else Estimate(r.built.artifact.size_bytes, r.metrics) for r in reports]


def _results(futures: Iterable[Future[T]]) -> list[T | None]:
    """Wait for all; None where the candidate is infeasible."""
    found: list[T | None] = []
    for future in list(futures):
        try:
            found.append(result_of(future))
        except InfeasibleCandidate:
            found.append(None)
    return found
