"""The host's answers to the engine: builds and evaluations in the worker pool."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from orchestrator.executor import HostPool
from orchestrator.workbench import result_of
from profilers.accuracy import (
    ESTIMATED,
    EvaluationInputs,
    Score,
    build_and_evaluate,
    divergence,
    evaluate_recovered,
    keep_outputs,
    narrowing_divergence,
)
from profilers.closeness import Closeness
from recipes.compilers.build import BuildInputs
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
        self._host = replace(evaluator, board_examples=None)
        self._outputs: Path | None = None
        self._formats: dict[str, float | None] = {}
        """Candidate at full width -> divergence."""
        self._widths: dict[tuple[tuple[str, int], ...], float | None] = {}
        """Widths -> divergence of the float network."""
        self._whole: dict[str, Estimate | None] = {}
        """Candidate at full width -> its artifact's accuracy."""
        self._recovered: dict[tuple[tuple[tuple[str, int], ...], Recovery], Score | None] = {}
        """Widths and level -> what the float network is worth."""

    def divergences(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """See search.HostOracle. Nothing is converted: formats are tried at full width, widths in PyTorch."""
        if self._outputs is None:
            self._outputs = self._keep("calibration", ESTIMATED)
        outputs = self._outputs
        whole = {c.id: _at_full_width(c) for c in candidates}
        formats = {c.id: c for c in whole.values() if c.id not in self._formats}
        widths = dict.fromkeys(c.widths for c in candidates if c.widths and c.widths not in self._widths)
        waiting = [self._pool.submit(divergence, self._builder, self._evaluator, c, outputs) for c in formats.values()]
        narrowing = [self._pool.submit(narrowing_divergence, self._builder, w) for w in widths]
        found, narrowed = _results(waiting), _results(narrowing)
        self._formats.update(zip(formats, found, strict=True))
        self._widths.update(zip(widths, narrowed, strict=True))
        return [_sum(self._formats[whole[c.id].id], self._widths[c.widths] if c.widths else 0.0) for c in candidates]

    def estimates(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        """See search.HostOracle. What widths cost is computed in PyTorch, what formats cost at full width."""
        whole = {c.id: _at_full_width(c) for c in candidates}
        missing = {c.id: c for c in (*whole.values(), self._reference) if c.id not in self._whole}
        narrow = dict.fromkeys((c.widths, c.recovery) for c in candidates
                               if c.widths and (c.widths, c.recovery) not in self._recovered)
        waiting = [self._pool.submit(evaluate_recovered, self._builder, self._evaluator, *key) for key in narrow]
        self._whole.update(zip(missing, self.builds(list(missing.values())), strict=True))
        recovered = _results(waiting)
        self._recovered.update(zip(narrow, recovered, strict=True))
        return [self._estimate(self._whole[whole[c.id].id], c) for c in candidates]

    def builds(self, candidates: Sequence[Candidate]) -> list[Estimate | None]:
        """See search.HostOracle."""
        reports = _results(self._pool.submit(build_and_evaluate, self._builder, self._evaluator, c)
                           for c in candidates)
        return [None if r is None else Estimate(r.built.artifact.size_bytes, r.score.metrics, *_close(r.score.close))
                for r in reports]

    @cached_property
    def _evaluator(self) -> EvaluationInputs:
        """Evaluates on the host, and compares with float32's outputs there."""
        return replace(self._host, reference=self._keep("validation"))

    def _keep(self, split: str, limit: int | None = None) -> Path:
        """Keep float32's outputs."""
        return result_of(self._pool.submit(keep_outputs, self._builder, self._host, self._reference, split, limit))

    def _estimate(self, whole: Estimate | None, candidate: Candidate) -> Estimate | None:
        """Return what a candidate has at full width, less what its widths lose."""
        if not candidate.widths:
            return whole
        float32 = self._whole[self._reference.id]
        narrowed = self._recovered[candidate.widths, candidate.recovery]
        if whole is None or narrowed is None or float32 is None:
            return None
        metrics = {name: value + narrowed.metrics[name] - float32.metrics[name]
                   for name, value in whole.metrics.items()}
        apart, luck = _close(narrowed.close)
        return Estimate(None, metrics, _sum(whole.divergence, apart),
                        {name: math.hypot(own, whole.luck.get(name, 0.0)) for name, own in luck.items()})


def _close(found: Closeness | None) -> tuple[float | None, Mapping[str, float]]:
    return (None, {}) if found is None else (found.divergence, found.luck)


def _at_full_width(candidate: Candidate) -> Candidate:
    return replace(candidate, widths=(), recovery=Recovery.NONE)


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
