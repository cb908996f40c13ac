"""Runs the search exam with many samplers and prints one table: `python -m benchmarks.exam_table FOLDER`.

FOLDER holds the simulator (docs/search.md); it is no part of this repository. Regret is in percentage points below the
best configuration known to be feasible, in hindsight after so many measurements, the mean over boards, budgets, priors
and seeds; a board on which nothing was feasible counts as if it were 50 % accurate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_adapter import search_with
from search.adaptive.graph import Ints
from search.samplers import SAMPLERS, sampler_named

NEEDED = ("simulator.py", "best_known.json")
CHECKPOINTS = (4, 8, 16, 32, 64)
EARLY = 5
HEAD = ("sampler", *(f"@{n}" for n in CHECKPOINTS), f"feasible @{EARLY}", "shipped met", "shipped regret",
        "host evaluations", "CPU ms")
FLOOR = 50.0
"""Percent: what a board is worth on which nothing feasible was found."""


@dataclass(frozen=True, slots=True)
class Case:
    """One search."""

    sampler: str
    folder: Path
    network: str
    board: int
    budget: float
    """As a share of the board's latency of uniform int8."""
    prior: str
    seed: int
    measurements: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one search."""

    sampler: str
    regrets: tuple[float, ...]
    """After every measurement, in percentage points."""
    first: int | None
    """The measurement that was the first to meet the budget; None: none did."""
    shipped_met: bool
    shipped_regret: float
    host: float
    """Evaluations of the accuracy on the host."""
    cpu_ms: float
    """Per measurement."""


@cache
def model(folder: Path, network: str) -> Any:
    """Load the simulator's network once in a process."""
    sys.path.insert(0, str(folder))
    from simulator import Model

    return Model(network)


def run(case: Case) -> Outcome:
    """Run one search on one board."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    network = model(case.folder, case.network)
    from simulator import AllowanceSpent, Board, Problem, uniform

    top = json.loads((case.folder / "best_known.json").read_text("utf-8"))[case.network][str(case.budget)][
        str(case.board)]["accuracy"]
    board = Board(network, "rpi4", case.board)
    budget = board.true(uniform(network, "w8a8")) * case.budget
    problem = Problem(network, board, budget, case.board, prior=case.prior, max_meas=case.measurements)
    choice: Ints | None = None
    started = time.process_time()
    try:
        choice = search_with(case.sampler)(problem, case.measurements,
                                           np.random.default_rng([case.board, case.seed]))
    except AllowanceSpent:
        choice = None
    spent = time.process_time() - started
    best, regrets, first = FLOOR, [], None
    for number, (config, _, _, true, _) in enumerate(problem.log, 1):
        if true <= budget:
            best, first = max(best, network.host(config)[0]), first or number
        regrets.append(top - best)
    met = choice is not None and board.true(choice) <= budget
    value = max(FLOOR, network.host(choice)[0]) if met else FLOOR
    return Outcome(case.sampler, tuple(regrets), first, met, top - value, problem.n_host,
                   1e3 * spent / max(1, problem.n_meas))


def row(outcomes: Sequence[Outcome], measurements: int) -> list[str]:
    """Return the cells of one sampler."""
    count = len(outcomes)
    cells = [f"{np.mean([o.regrets[min(n, len(o.regrets)) - 1] for o in outcomes]):.2f}" if n <= measurements else ""
             for n in CHECKPOINTS]
    early = sum(o.first is not None and o.first <= EARLY for o in outcomes)
    met = sum(o.shipped_met for o in outcomes)
    return [outcomes[0].sampler, *cells, f"{early}/{count}", f"{met}/{count}",
            f"{np.mean([o.shipped_regret for o in outcomes]):.2f}", f"{np.mean([o.host for o in outcomes]):.0f}",
            f"{np.mean([o.cpu_ms for o in outcomes]):.0f}"]


def line(cells: Sequence[str]) -> str:
    """Return cells as a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Parse, run, print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where simulator.py and best_known.json are")
    parser.add_argument("--samplers", default=",".join(SAMPLERS), help="names, with commas between [default: all]")
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--boards", type=int, default=4, help="how many [default: 4]")
    parser.add_argument("--first", type=int, default=0, help="the number of the first board [default: 0]")
    parser.add_argument("--budgets", default="0.42", help="shares of uniform int8's latency [default: 0.42]")
    parser.add_argument("--priors", default="roofline", help="roofline, ideal, flat [default: roofline]")
    parser.add_argument("--seeds", default="1", help="of the searchers' chance [default: 1]")
    parser.add_argument("--measurements", type=int, default=32, help="of each search [default: 32]")
    parser.add_argument("--processes", type=int, default=1, help="searches at a time [default: 1]")
    asked = parser.parse_args()
    missing = [name for name in NEEDED if not (asked.folder / name).is_file()]
    if missing:
        print(f"exam_table: {asked.folder} holds no {' and no '.join(missing)}; give the folder of the simulator "
              "(docs/search.md, 'The exam')", file=sys.stderr)
        return 2
    try:
        samplers = [name for name in asked.samplers.split(",") if sampler_named(name)]
    except ValueError as error:
        print(f"exam_table: --samplers: {error}", file=sys.stderr)
        return 2
    known = json.loads((asked.folder / "best_known.json").read_text("utf-8")).get(asked.network, {})
    budgets = [float(b) for b in asked.budgets.split(",")]
    boards = range(asked.first, asked.first + asked.boards)
    unknown = [f"{b} board {n}" for b, n in product(budgets, boards) if str(n) not in known.get(str(b), {})]
    if unknown:
        print(f"exam_table: best_known.json has no {asked.network} budget {unknown[0]}, so regret is undefined there",
              file=sys.stderr)
        return 2
    cases = [Case(sampler, asked.folder.resolve(), asked.network, board, budget, prior, seed, asked.measurements)
             for sampler, budget, prior, seed, board in product(
                 samplers, budgets, asked.priors.split(","), [int(s) for s in asked.seeds.split(",")], boards)]
    print(f"{asked.network}, budgets {asked.budgets}, priors {asked.priors}, seeds {asked.seeds}, boards "
          f"{boards.start}-{boards.stop - 1}, {asked.measurements} measurements\n")
    print(line(HEAD))
    print("|---" * len(HEAD) + "|", flush=True)
    with ProcessPoolExecutor(asked.processes, mp_context=get_context("spawn")) as pool:
        for _, outcomes in groupby(pool.map(run, cases), key=lambda outcome: outcome.sampler):
            print(line(row(list(outcomes), asked.measurements)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
