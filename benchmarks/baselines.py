"""Every uniform recipe on the three demo networks, then searches where none of them is enough.

    .venv/bin/python -m benchmarks.baselines [--measurements 64] [--seeds 1]

(a) residual, a latency and a size budget chosen from the table so that int8 is too big and int4 too slow;
    beside the winner the best of an enumeration (benchmarks/enumeration.py), of which it may lose 0.3 points.
(b) transformer: at most 0.97 x the fastest uniform recipe, at most 0.5 points lost; beside it the best seed.
A winner that is a uniform recipe counts as missed. Latencies of one table are from one run on one machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.enumeration import best_of_enumeration
from device_farm.inventory import Inventory
from orchestrator.config import StudyConfig
from orchestrator.progress import Silent
from orchestrator.store.store import Store
from orchestrator.study_run import StudyRun
from orchestrator.units import show_bytes, show_seconds
from orchestrator.workbench import open_workbench
from search.goal import Goal
from search.recipes import UNIFORM

NETWORKS = ("residual", "separable", "transformer")
Document = dict[str, Any]


def run(store: Store, name: str, **keys: object) -> Document:
    """Run one study on this machine and return its document."""
    config = StudyConfig.model_validate({"study": name, "device": "local", **keys})
    return StudyRun(store, Inventory(), config, Path.cwd(), Silent()).run()[1]


def by_name(document: Document) -> dict[str, Document]:
    return {entry["name"]: entry for entry in document["baselines"]}


def latency(entry: Document) -> float:
    return float(entry["latency_s"]["median"])


def row(table: Table, label: str, entry: Document, float32: Document) -> None:
    low, high = entry["latency_s"]["ci95"]
    table.add_row(label, show_seconds(latency(entry)), f"{show_seconds(low)} - {show_seconds(high)}",
                  f"{latency(entry) / latency(float32):.2f}", show_bytes(entry["size_bytes"]),
                  f"{100 * entry['accuracy']['validation']:.2f}",
                  "-" if entry["accuracy"]["test"] is None else f"{100 * entry['accuracy']['test']:.2f}")


def new_table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in ("candidate", "median", "95 % interval", "x float32", "size", "val %", "test %"):
        table.add_column(column, justify="left" if column == "candidate" else "right", no_wrap=True)
    return table


def uniform_tables(store: Store, console: Console) -> dict[str, Document]:
    found = {}
    for network in NETWORKS:
        document = run(store, f"uniform-{network}", model=f"demo:{network}", measurements=6)
        table = new_table(f"{network}: the uniform recipes")
        for entry in document["baselines"]:
            row(table, entry["name"], entry, by_name(document)["float32"])
        console.print(table, "")
        found[network] = document
    return found


def case_a(store: Store, console: Console, table_of: Document, measurements: int, seeds: int) -> None:
    names = by_name(table_of)
    small, large = names["int4"]["size_bytes"], names["int8"]["size_bytes"]
    size = round((small + 0.35 * (large - small)) / 1000) * 1000
    limit = 0.6 * latency(names["float32"])
    console.print(f"(a) residual, --budget 0.6x --size-budget {size // 1000}KB, {measurements} measurements")
    for name, entry in names.items():
        too = [w for w, bad in (("too slow", latency(entry) > limit), ("too big", entry["size_bytes"] > size)) if bad]
        console.print(f"    {name}: {' and '.join(too) or 'ENOUGH: this case proves nothing'}")
    config = StudyConfig.model_validate({"study": "enumeration", "device": "local", "model": "demo:residual"})
    with open_workbench(store, Inventory(), config, Path.cwd(), Silent()) as bench:
        _, evidence, evaluated = best_of_enumeration(bench, Goal("top1", limit, size))
    for seed in range(seeds):
        document = run(store, f"a-{seed}", model="demo:residual", budget="0.6x", size_budget=f"{size // 1000}KB",
                       measurements=measurements, seed=seed)
        winner, float32 = document["winner"], by_name(document)["float32"]
        table = new_table(f"(a) seed {seed}: goal met: {document['goal_met']}, P = "
                          f"{winner['latency_s']['probability_met']:.3f}, {document['wall_s']:.0f} s")
        row(table, "float32", float32, float32)
        row(table, "winner", winner, float32)
        table.add_row(f"enumeration (best of {evaluated})", show_seconds(evidence.latency_s), "",
                      f"{evidence.latency_s / latency(float32):.2f}", show_bytes(evidence.size_bytes),
                      f"{100 * evidence.metrics['top1']:.2f}", "-")
        console.print(table)
        lost = 100 * (evidence.metrics["top1"] - winner["accuracy"]["validation"])
        met = document["goal_met"] and lost <= 0.3 and winner["name"] not in UNIFORM
        console.print(f"    {lost:+.2f} points below the enumeration (at most 0.30): {'met' if met else 'MISSED'}", "")


def case_b(store: Store, console: Console, measurements: int, seeds: int) -> None:
    for seed in range(seeds):
        document = run(store, f"b-{seed}", model="demo:transformer", max_drop=0.5, measurements=measurements, seed=seed)
        names, winner = by_name(document), document["winner"]
        fastest = min(names.values(), key=latency)
        legal = [s for s in document["seeds"]
                 if s["accuracy"]["validation"] >= names["float32"]["accuracy"]["validation"] - 0.005]
        table = new_table(f"(b) transformer, --max-drop 0.5, {measurements} measurements, seed {seed}, "
                          f"{document['wall_s']:.0f} s")
        row(table, "float32", names["float32"], names["float32"])
        row(table, f"fastest uniform: {fastest['name']}", fastest, names["float32"])
        if legal:
            best = min(legal, key=latency)
            row(table, f"best seed: {best['name']}", best, names["float32"])
        row(table, "winner" + (f" = {winner['name']}" if winner["name"] else ""), winner, names["float32"])
        console.print(table)
        ratio = latency(winner) / latency(fastest)
        lost = 100 * (names["float32"]["accuracy"]["validation"] - winner["accuracy"]["validation"])
        met = ratio <= 0.97 and lost <= 0.5 and winner["name"] not in UNIFORM
        which = "the winner IS a seed" if winner["name"] else "the winner is no seed"
        console.print(f"    {ratio:.3f} x the fastest uniform recipe (at most 0.97), {lost:+.2f} points lost (at most "
                      f"0.50), {which}: {'met' if met else 'MISSED'}", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=("uniform", "a", "b"))
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console(width=110)
    console.print(f"{os.cpu_count()} cores; every latency measured on this machine, one thread")
    with tempfile.TemporaryDirectory() as folder, Store.open(folder) as store:
        tables = uniform_tables(store, console) if given.only != "b" else {}
        if given.only in (None, "a"):
            case_a(store, console, tables["residual"], given.measurements, given.seeds)
        if given.only in (None, "b"):
            case_b(store, console, given.measurements, given.seeds)


if __name__ == "__main__":
    main()
