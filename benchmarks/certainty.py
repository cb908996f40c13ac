"""Is the stated probability of meeting the budget right? Simulated winners, judged by the product's own rule.

    .venv/bin/python -m benchmarks.certainty [--winners 2000]

A winner is chosen as a search chooses: it is near the budget, and its one reading (2 % of noise) met it. Then it is
confirmed in rounds of 25 runs (1 % from round to round) until the answer is clear; a bias that all its rounds share is
added. Beside it, the same rule without an allowance for that bias.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from orchestrator.confirm import BIAS, LOOKS, is_clear
from profilers.statistics import probability_within

CONFIDENCE = 0.95
READING, ROUND, RUN = 0.02, 0.01, 0.01
RUNS = 25
SECONDS = 1e-3
FAST = 0.97


def winner(rng: np.random.Generator) -> float:
    """Return the true latency, as a share of the budget, of a candidate whose reading met it."""
    while True:
        true = float(rng.uniform(FAST, 1.02))
        if true * np.exp(READING * rng.normal()) <= 1.0:
            return true


def stated(rng: np.random.Generator, true: float, bias: float, allowed: float) -> tuple[float, int]:
    """Confirm a winner; return the probability that is stated, and after how many rounds."""
    shift = bias * rng.normal()
    sessions: list[tuple[int, ...]] = []
    for rounds in range(1, LOOKS[-1] + 1):
        centre = true * SECONDS * np.exp(shift + ROUND * rng.normal())
        runs = centre * np.exp(RUN * rng.normal(size=RUNS))
        sessions.append(tuple(int(run * 1e9) for run in runs))
        if rounds in LOOKS:
            probability = probability_within(sessions, SECONDS, "median", allowed)
            if is_clear(probability, CONFIDENCE):
                break
    return probability, rounds


def simulate(count: int, bias: float, seed: int, allowed: float = BIAS) -> dict[str, float]:
    """Return how often what is stated at 95 % or more is true, and how often a fast winner is stated so."""
    rng = np.random.default_rng(seed)
    true = np.array([winner(rng) for _ in range(count)])
    found = [stated(rng, value, bias, allowed) for value in true]
    sure = np.array([probability >= CONFIDENCE for probability, _ in found])
    fast = [stated(rng, FAST, bias, allowed)[0] >= CONFIDENCE for _ in range(count // 4)]
    return {"stated": float(sure.mean()), "right": float((true[sure] <= 1.0).mean()), "fast": float(np.mean(fast)),
            "rounds": float(np.mean([rounds for _, rounds in found]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winners", type=int, default=2000)
    given = parser.parse_args()
    table = Table(title=f"{given.winners} simulated winners, stated at {CONFIDENCE:.0%} or more",
                  title_justify="left", show_edge=False, pad_edge=False)
    for column in ("allowed for", "bias of a session", "stated", "of these true", f"stated at {FAST} x the budget",
                   "rounds"):
        table.add_column(column, justify="right")
    for allowed, bias in ((0.0, 0.0), (0.0, 0.007), (BIAS, 0.0), (BIAS, 0.007), (BIAS, 0.014)):
        found = simulate(given.winners, bias, seed=1, allowed=allowed)
        table.add_row(f"{allowed:.1%}", f"{bias:.1%}", f"{found['stated']:.1%}", f"{found['right']:.1%}",
                      f"{found['fast']:.1%}", f"{found['rounds']:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
