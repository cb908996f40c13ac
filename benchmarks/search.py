"""All samplers on real searches: formats and widths together, on this machine or on a loopback SSH board.

    .venv/bin/python -m benchmarks.search [--networks residual] [--budgets 0.7x:int8] [--samplers adaptive,tpe,hawq]
                                          [--seeds 5] [--measurements 64] [--board local] [--no-prune]
                                          [--priors roofline,xgboost,both --store FOLDER]

Every study measures the baselines that it needs (they count), then what its sampler proposes. What counts is the most
accurate candidate among the first n measurements that meets the budget when it is measured again, side by side with the
baseline: the most accurate of every prefix are measured again, one after the other until one meets it, and evaluated on
the test split.
A whole table takes hours: with `--store` it is finished in several runs, the measurements again are made in the last.
`--networks residual4x` is the residual network four times as wide (benchmarks/wide.py), trained at first use.
Latencies of one table are from one run on one machine. Several priors make one row each for every sampler; all but the
roofline need a store in which a cost model of this kind of board was trained (docs/costmodel.md).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from benchmarks import wide
from benchmarks.loop import boards
from device_farm.inventory import Inventory
from orchestrator.bench import Job
from orchestrator.config import StudyConfig
from orchestrator.costmodel import AUTO
from orchestrator.progress import Silent
from orchestrator.store.records import StudyRecord, StudyStatus, TrialHistory, TrialRole
from orchestrator.store.store import Store
from orchestrator.study_run import StudyRun
from orchestrator.units import parse_budget, show_seconds
from orchestrator.workbench import Workbench, open_workbench, result_of
from profilers.accuracy import build_and_evaluate
from profilers.golden import tolerance
from profilers.statistics import summarise
from search.candidate import Candidate, candidate_in
from search.samplers import SAMPLERS

POINTS = (4, 8, 16, 32, 64)
ENGINE_AT = 16
AGAIN = 3
"""Times that a finalist is measured again, in turn with the baseline."""
TOP = 6
"""The most accurate of a prefix that are tried before it is said that none meets the budget."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One candidate of a study, in the order of its measurements."""

    candidate: Candidate
    latency_s: float
    accuracy: float
    role: TrialRole


@dataclass(frozen=True, slots=True)
class Study:
    """One search."""

    sampler: str
    prior: str
    seed: int
    name: str
    trials: tuple[Measured, ...]
    proposed_from: int
    """Measurements before the first proposal."""
    wall_s: float
    """Until the last candidate was measured."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A candidate that was measured again."""

    ratio: float
    """Latency as a share of the baseline's, measured beside it."""
    test: float


def search(store: Store, inventory: Inventory, keys: dict[str, object], sampler: str, seed: int, name: str) -> Study:
    """Run a study, unless the store has it finished, and read what it measured."""
    config = StudyConfig.model_validate({"study": name, "sampler": sampler, "seed": seed, **keys})
    there = {record.name: record.status for record in store.studies()}
    if there.get(name) is not StudyStatus.FINISHED:
        StudyRun(store, inventory, config, Path.cwd(), Silent(), resume=name in there).run()
    study = store.study(name)
    histories = store.histories(study.id)
    ended = max(history.trial.finished_at or study.created_at for history in histories)
    trials = measured(study, histories)
    before = sum(trial.role is not TrialRole.SEARCH for trial in trials)
    return Study(sampler, config.prior, seed, name, tuple(trials), before,
                 (ended - study.created_at).total_seconds())


def measured(study: StudyRecord, histories: Iterable[TrialHistory]) -> list[Measured]:
    """Return what a study measured, float32 first."""
    found = []
    for history in histories:
        accuracy = history.value("top1")
        if history.latency_s is not None and accuracy is not None:
            found.append(Measured(candidate_in(study.spaces, history.trial.candidate), history.latency_s,
                                  accuracy, history.trial.role))
    return found


def finalists(study: Study, count: int, limit: float, base: str) -> list[Candidate]:
    """Return the most accurate of the first measurements that seem to meet the budget."""
    first = study.trials[:count]
    budget_s = limit * next(m.latency_s for m in first if m.candidate.id == base)
    inside = sorted((m for m in first if m.latency_s <= 1.02 * budget_s), key=lambda m: -m.accuracy)
    return [m.candidate for m in inside[:TOP]]


def check(bench: Workbench, base: Job, candidate: Candidate) -> Checked:
    """Measure a candidate again, each time beside the baseline, and evaluate it on the test split."""
    own, test = job(bench, candidate)
    ratios = []
    for _ in range(AGAIN):
        pair = [summarise([bench.crew.measure(j).wall_ns], "median").median for j in (own, base)]
        ratios.append(pair[0] / pair[1])
    return Checked(statistics.median(ratios), test)


def job(bench: Workbench, candidate: Candidate) -> tuple[Job, float]:
    """Build a candidate; return what the bench needs, and its accuracy on the test split."""
    own = bench.first
    report = result_of(bench.pool.submit(build_and_evaluate, own.builder, own.evaluator, candidate, "test"))
    return (Job(report.built.artifact, report.golden_inputs, report.golden_outputs,
                tolerance(list(candidate.config_of.values()))), report.score.metrics["top1"])


def case(console: Console, store: Store, inventory: Inventory, board: str, network: str, budget: str,
         given: argparse.Namespace) -> None:
    """Run all samplers on one network and budget, and print their table."""
    parsed = parse_budget(budget)
    if parsed.needs is None or parsed.factor is None:
        raise SystemExit(f"--budgets {budget}: expected a share of a baseline, e.g. 0.7x:int8")
    keys: dict[str, object] = {"device": board, **model_of(network), "budget": budget, "prune": given.prune,
                               "measurements": given.measurements, "baselines": "needed"}
    points = [n for n in POINTS if n < given.measurements] + [given.measurements]
    rows = [(sampler, prior) for sampler in given.samplers for prior in given.priors]
    studies = [search(store, inventory, {**keys, "prior": prior}, sampler, seed,
                      f"{network}-{budget}-{board}-{sampler}-{prior}-{seed}".replace(":", "-"))
               for seed in range(given.seeds) for sampler, prior in rows]
    config = StudyConfig.model_validate({"study": "check", **keys})
    with open_workbench(store, inventory, config, Path.cwd(), Silent()) as bench:
        base = next(m.candidate for m in studies[0].trials
                    if m.candidate.id == baseline(store, studies[0].name, parsed.needs))
        beside, checked = job(bench, base)[0], dict[str, Checked]()
        bench.crew.set_reference(beside)
        for study, count in product(studies, points):
            for candidate in finalists(study, count, parsed.factor, base.id):
                if candidate.id not in checked:
                    checked[candidate.id] = check(bench, beside, candidate)
                if checked[candidate.id].ratio <= parsed.factor:
                    break
    console.print(table_of(studies, points, parsed.factor, base.id, checked,
                           f"{network}, {budget}, {board}, {given.seeds} seeds, "
                           f"{'formats and widths' if given.prune else 'formats'}; test % at n measurements"))
    for sampler in given.samplers:
        if sampler != "adaptive" and "adaptive" in given.samplers and given.priors == [AUTO]:
            console.print(paired(studies, sampler, points[-1], parsed.factor, base.id, checked))


def model_of(network: str) -> dict[str, object]:
    """Return the study's keys of a network, which is trained now if it has to be."""
    if network != "residual4x":
        return {"model": f"demo:{network}"}
    wide.train()
    return {"model": f"{wide.__file__}:network", "data": f"{wide.__file__}:data"}


def baseline(store: Store, study: str, name: str) -> str:
    """Return the id of a study's baseline."""
    record = store.study(study)
    return next(candidate_in(record.spaces, h.trial.candidate).id for h in store.histories(record.id)
                if h.trial.label == name)


def best(study: Study, count: int, limit: float, base: str, checked: dict[str, Checked]) -> float | None:
    """Return the test accuracy of the most accurate that meets the budget when measured again; None: none does."""
    found = (checked[c.id] for c in finalists(study, count, limit, base) if c.id in checked)
    return next((c.test for c in found if c.ratio <= limit), None)


def table_of(studies: list[Study], points: list[int], limit: float, base: str, checked: dict[str, Checked],
             title: str) -> Table:
    """Return one row for each sampler: the mean over seeds, and how many met the budget."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in ("sampler", *(f"@{n}" for n in points), "met", "proposals from", "study s"):
        table.add_column(column, justify="left" if column == "sampler" else "right", no_wrap=True)
    for sampler, prior in dict.fromkeys((s.sampler, s.prior) for s in studies):
        own = [s for s in studies if (s.sampler, s.prior) == (sampler, prior)]
        cells = []
        for n in points:
            values = [v for s in own if (v := best(s, n, limit, base, checked)) is not None]
            spread = f" ±{100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{100 * statistics.mean(values):.2f}{spread}" if values else "none")
        met = sum(best(s, points[-1], limit, base, checked) is not None for s in own)
        name = sampler if prior == AUTO else f"{sampler}, {prior}"
        table.add_row(name, *cells, f"{met}/{len(own)}", str(own[0].proposed_from + 1),
                      f"{statistics.median(s.wall_s for s in own):.0f}")
    return table


def paired(studies: list[Study], sampler: str, count: int, limit: float, base: str, checked: dict[str, Checked]) -> str:
    """Compare the engine at 16 measurements with a sampler at the end, seed by seed, where both met the budget."""
    gains, met = [], [0, 0]
    for study in studies:
        if study.sampler == sampler:
            ours = next(s for s in studies if s.sampler == "adaptive" and s.seed == study.seed)
            one, other = best(ours, ENGINE_AT, limit, base, checked), best(study, count, limit, base, checked)
            met = [met[0] + (one is not None), met[1] + (other is not None)]
            if one is not None and other is not None:
                gains.append(100 * (one - other))
    who = f"    adaptive @{ENGINE_AT} (met: {met[0]}) - {sampler} @{count} (met: {met[1]})"
    if len(gains) < 2:
        return f"{who}: {f'{gains[0]:+.2f} points (one pair: no bound)' if gains else 'no pair'}"
    mean = float(np.mean(gains))
    bound = mean - float(student.ppf(0.95, len(gains) - 1)) * float(np.std(gains, ddof=1)) / len(gains) ** 0.5
    return f"{who}: {mean:+.2f} points, lower 95 % bound {bound:+.2f}"


@contextmanager
def inventory_of(board: str, folder: Path) -> Iterator[Inventory]:
    """Return the boards: this machine, or a real OpenSSH server on loopback."""
    if board == "loopback":
        with boards(folder) as found:
            yield found
    else:
        yield Inventory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="residual,separable")
    parser.add_argument("--budgets", default="0.7x:int8,0.55x:int8")
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--measurements", type=int, default=64)
    parser.add_argument("--priors", default=AUTO)
    parser.add_argument("--board", choices=("local", "loopback"), default="local")
    parser.add_argument("--prune", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--store", type=Path, help="Keep the studies here, and do not run again what it has.")
    given = parser.parse_args()
    given.samplers, given.priors = given.samplers.split(","), given.priors.split(",")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console(width=130)
    console.print(f"{os.cpu_count()} cores; every latency measured on this machine, one thread")
    with tempfile.TemporaryDirectory() as folder, Store.open(given.store or Path(folder) / "store") as store, \
            inventory_of(given.board, Path(folder)) as inventory:
        for network in given.networks.split(","):
            for budget in given.budgets.split(","):
                started = time.perf_counter()
                case(console, store, inventory, given.board, network, budget, given)
                console.print(f"    {show_seconds(time.perf_counter() - started)}", "")


if __name__ == "__main__":
    main()
