"""How much of the front of accuracy and latency a search finds: the share of the hypervolume of everything known.

    .venv/bin/python -m benchmarks.fronts [--network residual] [--seeds 5] [--measurements 32] [--store FOLDER]

Every study searches with `--objective accuracy,latency` on this machine, formats and widths together; the uniform and
the per-operator-kind recipes come first and count: `recipes` is what they have alone. What is known is the front of
every study in the store on the same network, those of `benchmarks.search` too, whatever they looked for. The area is
what a front dominates of float32's latency and of five points less than float32's accuracy, latency in shares of
float32's in the same study. Readings are those of the searches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.search import measured, model_of, search
from device_farm.inventory import Inventory
from orchestrator.store.records import StudyStatus
from orchestrator.store.store import Store
from search.goal import Evidence
from search.hypervolume import Corner, hypervolume
from search.samplers import SAMPLERS

POINTS = (8, 16, 32, 64)
DROP = 0.05
"""Of accuracy below float32, from which on a candidate counts as nothing."""


def logs(store: Store, model: object) -> dict[str, list[Evidence]]:
    """Return what every finished study on a network measured, latencies in shares of its own float32's."""
    found = {}
    for study in store.studies():
        if study.config.get("model") == model and study.status is StudyStatus.FINISHED:
            trials = measured(study, store.histories(study.id))
            found[study.name] = [Evidence(t.latency_s / trials[0].latency_s, 0, {"top1": t.accuracy}) for t in trials]
    return found


def area(front: Iterable[Evidence], float32: float) -> float:
    """Return the area that is dominated of float32, whose accuracy is given."""
    return hypervolume(front, Corner(1.0, float32 - DROP), "top1")


def cell(values: Sequence[float]) -> str:
    """Return mean and standard deviation."""
    spread = f" ±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="residual")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--measurements", type=int, default=32)
    parser.add_argument("--store", type=Path, help="Keep the studies here, and do not run again what it has.")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = [name for name, sampler in SAMPLERS.items() if sampler.fronts]
    keys: dict[str, object] = {"device": "local", **model_of(given.network), "objective": "accuracy,latency",
                               "prune": True, "measurements": given.measurements}
    with tempfile.TemporaryDirectory() as folder, Store.open(given.store or Path(folder) / "store") as store:
        studies = [search(store, Inventory(), keys, sampler, seed, f"front-{given.network}-{sampler}-{seed}")
                   for seed in range(given.seeds) for sampler in samplers]
        known = logs(store, keys["model"])
    accuracy = studies[0].trials[0].accuracy
    whole = area([e for found in known.values() for e in found], accuracy)
    points = [n for n in POINTS if n < given.measurements] + [given.measurements]
    table = Table(title=f"{given.network}, {given.seeds} seeds, {os.cpu_count()} cores: % of the hypervolume of "
                        f"{sum(map(len, known.values()))} readings of {len(known)} studies",
                  title_justify="left", show_edge=False, pad_edge=False)
    for column in ("sampler", "recipes", *(f"@{n}" for n in points), "measured", "study s"):
        table.add_column(column, justify="left" if column == "sampler" else "right", no_wrap=True)
    for sampler in samplers:
        own = [s for s in studies if s.sampler == sampler]
        cells = [cell([100 * area(known[s.name][:count or s.proposed_from], accuracy) / whole for s in own])
                 for count in (0, *points)]
        table.add_row(sampler, *cells, f"{min(len(s.trials) for s in own)} - {max(len(s.trials) for s in own)}",
                      f"{statistics.median(s.wall_s for s in own):.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
