"""How well does what the engine believes of accuracies tell the accuracy on examples that nobody has seen?

    .venv/bin/python -m benchmarks.luck [--network residual] [--networks 120] [--seed 0]

Random widths of a demo network, recovered by least squares, float32. Each is judged on the validation split; the error
is to its accuracy on the test split, after the best constant is added (the splits differ by one).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr

from profilers.closeness import closeness, halves_of
from recipes.compress.fold import fold
from recipes.compress.planning import FEW, PruneSettings, plan_pruning
from recipes.compress.recover import recover
from recipes.compress.repeatable import repeatable
from recipes.models.dataset import load_data, top1
from recipes.models.network import Network, load_network, run, tensors
from recipes.models.source import parse_data, parse_model
from recipes.ports import Array
from search.adaptive.luck import Close, believed
from search.candidate import Recovery

LOST = (0.01, 0.02, 0.05)
"""Tables are of the networks that lose at most so much on the test split."""
Floats = NDArray[np.float64]


def judged(name: str, count: int, seed: int) -> tuple[dict[str, Floats], Floats]:
    """Return what is said of every network on the validation split, and its accuracy on the test split."""
    model, data = parse_model(f"demo:{name}", Path()), load_data(parse_data("demo:fashion_mnist", Path()))
    network, splits, positional = load_network(model), data.splits, data.positional
    calibration = splits["calibration"].inputs
    plan = plan_pruning(model, network, calibration, positional, PruneSettings("obs", 0))
    whole = fold(network, tensors(calibration, 0, FEW), positional).network
    everything = tensors(calibration, 0, splits["calibration"].examples)

    def outputs(of: Network, split: str) -> tuple[Array, ...]:
        return run(of, splits[split].inputs, positional, split)

    targets, hidden = splits["validation"].targets, splits["test"].targets
    assert targets is not None
    assert hidden is not None
    metrics = {"top1": top1}
    reference, rng = outputs(whole, "validation"), np.random.default_rng(seed)
    its_halves = halves_of(metrics, reference, targets)
    accuracy: dict[bytes, float] = {}
    close: dict[bytes, Close] = {}
    test = []
    for number in track(range(count), "networks", console=Console(stderr=True)):
        share = rng.uniform(0.05, 0.6)
        widths = {g.name: int(rng.choice(range(8, g.channels, 8))) for g in plan.groups if rng.random() < share}
        narrowed = recover(whole, plan, widths, everything, positional, Recovery.RECONSTRUCT, 0).network
        with repeatable():
            found = outputs(narrowed, "validation")
            test.append(top1(outputs(narrowed, "test"), hidden))
        key, apart = number.to_bytes(4), closeness(reference, its_halves, found, halves_of(metrics, found, targets))
        accuracy[key] = top1(found, targets)
        close[key] = Close(apart.divergence, apart.luck["top1"])
    expected = believed(accuracy, close, top1(reference, targets))
    said = {"accuracy": [accuracy[k] for k in accuracy], "divergence": [-close[k].divergence for k in accuracy],
            "believed": [expected[k] for k in accuracy]}
    return {what: np.array(values) for what, values in said.items()}, np.array(test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("residual", "separable"), default="residual")
    parser.add_argument("--networks", type=int, default=120, help="how many widths")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    said, test = judged(given.network, given.networks, given.seed)
    title = f"{given.network}, {given.networks} random widths; on the validation split, against the test split"
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in ("said by", *(f"{what}, within {100 * lost:g}" for lost in LOST for what in ("rank", "points"))):
        table.add_column(column, justify="left" if column == "said by" else "right")
    for what, values in said.items():
        cells = []
        for lost in LOST:
            near = test >= test.max() - lost
            off = values[near] - test[near]
            points = "" if what == "divergence" else f"{100 * float(off.std()):.2f}"
            cells += [f"{float(spearmanr(values[near], test[near])[0]):.2f}", points]
        table.add_row(what, *cells)
    table.caption = "rank: Spearman's correlation; points: standard deviation of the error"
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
