"""The answer to beat: enumerate a reduced space by additive tables, then really evaluate the best 200.

Latency, size and KL of the outputs are tabulated one layer at a time from static int8 (Cai et al. 2020,
ZeroQ, arXiv 2001.00281, for the KL table). The tables are summed for every combination; the 200 with the
least predicted KL within the predicted budgets (latency with 3 % of slack) are built, measured and evaluated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.bench import Job
from orchestrator.workbench import Workbench, result_of
from profilers.accuracy import HostReport, build_and_evaluate, run_reference
from profilers.golden import tolerance
from profilers.statistics import summarise
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.goal import Evidence, Goal
from search.recipes import UNIFORM
from search.space import LayerConfig

TOP = 200
SLACK = 1.03
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Row:
    """One change of one layer, against the base."""

    latency_s: float
    size_bytes: float
    kl: float


def best_of_enumeration(bench: Workbench, goal: Goal) -> tuple[Candidate, Evidence, int]:
    """Return the best feasible candidate of the enumeration, its evidence, and how many were evaluated."""
    space = bench.first.layers.space
    options = {layer.name: tuple(c for c in layer.choices if c in _KEPT) if layer.weights else layer.choices[-1:]
               for layer in space.layers}
    base = {layer.name: layer.widen(UNIFORM["int8"]) for layer in space.layers}
    reference = _outputs(bench, {layer.name: layer.choices[0] for layer in space.layers})
    start, start_kl = _evidence(bench, base), _kl(reference, _outputs(bench, base))
    if start is None:
        raise SystemExit("static int8 does not run here")
    table: dict[tuple[str, LayerConfig], Row] = {}
    for name, choices in options.items():
        for choice in choices:
            if choice == base[name]:
                table[name, choice] = Row(0.0, 0.0, 0.0)
                continue
            changed = {**base, name: choice}
            found = _evidence(bench, changed)
            if found is not None:
                table[name, choice] = Row(found.latency_s - start.latency_s, found.size_bytes - start.size_bytes,
                                          _kl(reference, _outputs(bench, changed)) - start_kl)
    picked = _top(options, table, start, goal)
    best: tuple[Candidate, Evidence] | None = None
    for configs in picked:
        evidence = _evidence(bench, configs)
        if evidence is not None and goal.feasible(evidence):
            candidate = Candidate.of(space, configs)
            if best is None or goal.best([("old", best[1]), ("new", evidence)]) == "new":
                best = (candidate, evidence)
    if best is None:
        raise SystemExit("no candidate of the enumeration is feasible: loosen the budgets")
    return (*best, len(picked))


_KEPT = tuple(UNIFORM[name] for name in ("float32", "dynamic_int8", "int8", "int4"))


def _top(options: Mapping[str, Sequence[LayerConfig]], table: Mapping[tuple[str, LayerConfig], Row], start: Evidence,
         goal: Goal) -> list[dict[str, LayerConfig]]:
    """Enumerate every combination in chunks and keep the `TOP` best predicted."""
    names = list(options)
    rows = [[(c, table[n, c]) for c in options[n] if (n, c) in table] for n in names]
    sizes = [len(r) for r in rows]
    columns = [np.array([[r.latency_s, r.size_bytes, r.kl] for _, r in choices]) for choices in rows]
    kept: list[tuple[float, tuple[int, ...]]] = []
    combinations = itertools.product(*(range(n) for n in sizes))
    while chunk := list(itertools.islice(combinations, CHUNK)):
        index = np.array(chunk, dtype=np.int16)
        total: NDArray[np.float64] = np.zeros((len(index), 3))
        for position, column in enumerate(columns):
            total += column[index[:, position]]
        fits = np.ones(len(index), dtype=bool)
        if goal.latency_budget_s is not None:
            fits &= start.latency_s + total[:, 0] <= goal.latency_budget_s * SLACK
        if goal.size_budget_bytes is not None:
            fits &= start.size_bytes + total[:, 1] <= goal.size_budget_bytes
        where = np.flatnonzero(fits)
        order = where[np.argsort(total[where, 2])[:TOP]]
        kept = sorted([*kept, *((float(total[i, 2]), chunk[i]) for i in order)])[:TOP]
    return [{name: rows[p][choice][0] for p, (name, choice) in enumerate(zip(names, combination, strict=True))}
            for _, combination in kept]


def _report(bench: Workbench, configs: Mapping[str, LayerConfig]) -> tuple[Candidate, HostReport]:
    own = bench.first
    candidate = Candidate.of(own.space, configs)
    return candidate, result_of(bench.pool.submit(build_and_evaluate, own.builder, own.evaluator, candidate))


def _evidence(bench: Workbench, configs: Mapping[str, LayerConfig]) -> Evidence | None:
    """Build, evaluate and measure; None when infeasible."""
    try:
        candidate, report = _report(bench, configs)
        measurement = bench.crew.measure(Job(report.built.artifact, report.golden_inputs, report.golden_outputs,
                                              tolerance(list(candidate.config_of.values()))))
    except InfeasibleCandidate:
        return None
    return Evidence(summarise([measurement.wall_ns]).median, report.built.artifact.size_bytes,
                    dict(report.score.metrics))


def _outputs(bench: Workbench, configs: Mapping[str, LayerConfig]) -> NDArray[np.float64]:
    _, report = _report(bench, configs)
    found = result_of(bench.pool.submit(run_reference, bench.first.evaluator, report.built.artifact, report.built.ports,
                                        "calibration"))
    return np.asarray(found[0], dtype=np.float64)


def _kl(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Mean KL(reference || other) of the softmax of logits (N, classes), in nats."""
    def log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
        shifted = x - x.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    p, q = log_softmax(reference), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())
