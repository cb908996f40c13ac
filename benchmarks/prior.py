"""How far each prior is from whole networks, measured on this machine.

    .venv/bin/python -m orchestrator.cli.app costmodel collect --device local --store layers
    .venv/bin/python -m benchmarks.prior --store layers [--candidates 40] [--rounds 2]

Random candidates of the demo networks are measured, all in turn, as many times as there are rounds. The models
are trained on the store's layers of this machine without those that a demo network has itself. A prior's error is
the median of |predicted / measured - 1| after one scale for each network, since a search finds the scale with its
first measurement; "as it stands" is without. "both, N layers" is trained with the first N layers of the sweep,
"both, own layers" with those that were left out as well (costmodel collect --shapes measures them).
What a search gains from each prior: benchmarks.search --priors.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.loop import random_candidates
from device_farm.inventory import Inventory
from orchestrator.bench import Job
from orchestrator.config import StudyConfig
from orchestrator.costmodel import ROOFLINE, observations
from orchestrator.progress import Silent
from orchestrator.store.store import Store
from orchestrator.workbench import Workbench, open_workbench, result_of
from profilers.accuracy import build_and_evaluate
from profilers.cost_model import VARIANTS, CostModel
from profilers.cost_model_errors import error_of, evaluate_priors
from profilers.cost_model_features import Floats
from profilers.cost_model_prior import learned_prior
from profilers.cost_model_rows import Conditions, Observation
from profilers.golden import tolerance
from profilers.measurement import MeasureSettings
from profilers.prior import roofline_prior
from profilers.sites import sites_of
from recipes.compilers.shapes import CONVERSIONS, LayerShape, shape_of
from search.adaptive.graph import Tables
from search.candidate import Candidate

NETWORKS = ("residual", "separable", "transformer")
SETTINGS = MeasureSettings(min_runs=20, max_sampling_s=0.3, max_warmup_s=0.2)
FEWER = (250, 500, 1000)
Essence = tuple[str, tuple[tuple[int, ...], ...]]


def essence(shape: LayerShape) -> Essence:
    """A shape without axes of length 1: what is the same work is the same layer."""
    sizes = (*shape.inputs, shape.constant or (), shape.output)
    return shape.kind, tuple(tuple(n for n in size if n > 1) for size in sizes)


def own_layers(bench: Workbench) -> set[Essence]:
    """What a network holds itself, conversions of its tensors included."""
    graph = bench.first.layers.graph
    conversions = {essence(LayerShape(kind, (tensor.shape,), None, tensor.shape))
                   for kind in CONVERSIONS for tensor in graph.tensors}
    return conversions | {essence(shape_of(graph, op)) for op in graph.operators if graph.activations(op)}


def measured(bench: Workbench, candidates: list[Candidate], rounds: int) -> Floats:
    """Median latency of every candidate over the rounds, seconds: (candidates,)."""
    evaluator = replace(bench.first.evaluator, board_examples=1)  # no accuracy: it is not what is asked
    jobs = []
    for future, candidate in [(bench.pool.submit(build_and_evaluate, bench.first.builder, evaluator, c), c)
                              for c in candidates]:
        report = result_of(future)
        jobs.append(Job(report.built.artifact, report.golden_inputs, report.golden_outputs,
                        tolerance(list(candidate.config_of.values()))))
    runs = [[statistics.median(bench.crew.measure(job, SETTINGS).wall_ns) * 1e-9 for job in jobs]
            for _ in range(rounds)]
    spread = float(np.median(np.ptp(np.array(runs), axis=0) / np.median(runs, axis=0)))
    print(f"{bench.config.model}: {len(jobs)} candidates, {rounds} rounds that differ by {spread:.1%} (median)")
    return np.asarray(np.median(runs, axis=0))


def predicted(tables: Tables, bench: Workbench, candidates: list[Candidate]) -> Floats:
    sites = sites_of(bench.first.layers)
    return tables.total(np.array([sites.picks(candidate) for candidate in candidates]))


def compare(bench: Workbench, rows: list[Observation], every: list[Observation], candidates: list[Candidate],
            truth: Floats, table: Table) -> None:
    model = CostModel.train(rows, ROOFLINE)
    sites = sites_of(bench.first.layers)
    where = Conditions(bench.board.kind, bench.first.runtime, bench.first.runtime_version, bench.config.threads)
    priors: dict[str, Tables] = {"roofline": roofline_prior(bench.first.layers, sites, ROOFLINE, where.threads)}
    for variant in VARIANTS:
        priors[variant] = learned_prior(bench.first.layers, sites, model, variant, where, ROOFLINE)
    for count in FEWER:
        if count < len(rows):
            few = CostModel.train(rows[:count], ROOFLINE)
            priors[f"both, {count} layers"] = learned_prior(bench.first.layers, sites, few, "both", where, ROOFLINE)
    if len(every) > len(rows):
        whole = CostModel.train(every, ROOFLINE)
        priors["both, own layers"] = learned_prior(bench.first.layers, sites, whole, "both", where, ROOFLINE)
    for name, tables in priors.items():
        found = predicted(tables, bench, candidates)
        error = error_of(found, truth, [0] * len(found))
        raw = float(np.median(np.abs(found / truth - 1)))
        table.add_row(bench.config.model, name, f"{error.median_relative:.1%}", f"{error.rank_correlation:.3f}",
                      f"{raw:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="holds layers that were measured on this machine")
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    with Store.open(given.store) as store:
        rows = observations(store, "local")
    table = Table(title=f"priors of whole networks, {os.cpu_count()} cores", title_justify="left", show_edge=False)
    for column in ("network", "prior", "median error", "rank corr.", "as it stands"):
        table.add_column(column, justify="left" if column in ("network", "prior") else "right")
    with tempfile.TemporaryDirectory() as name, Store.open(name) as scratch:
        work: list[tuple[Workbench, list[Candidate], Floats]] = []
        own: set[Essence] = set()
        for network in NETWORKS:
            config = StudyConfig.model_validate({"device": "local", "study": network, "model": f"demo:{network}"})
            with open_workbench(scratch, Inventory(), config, Path.cwd(), Silent()) as bench:
                candidates = random_candidates(bench, given.candidates)
                own |= own_layers(bench)
                work.append((bench, candidates, measured(bench, candidates, given.rounds)))
        kept = [row for row in rows if essence(row.shape) not in own]
        print(f"{len(kept)} layers to train with; {len(rows) - len(kept)} left out, a demo network has them itself")
        held_out = evaluate_priors(kept, ROOFLINE)
        for prior, error in held_out.by_family.items():
            table.add_row("held-out layers", prior, f"{error.median_relative:.1%}", f"{error.rank_correlation:.3f}", "")
        for bench, candidates, truth in work:
            compare(bench, kept, list(rows), candidates, truth, table)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
