"""`--dry-run`: the space, what one candidate costs, how long the search will take. Nothing is stored as a study."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from device_farm.inventory import Inventory
from orchestrator.bench import Job
from orchestrator.config import StudyConfig
from orchestrator.leasing import UNHURRIED, Waiting
from orchestrator.phases import seeds_of_all
from orchestrator.progress import Progress
from orchestrator.store.store import Store
from orchestrator.tables import SIMULATED, Name, figures_table
from orchestrator.toolchain import Toolchain
from orchestrator.units import counted, show_bytes, show_seconds
from orchestrator.workbench import Workbench, open_workbench, result_of
from profilers.accuracy import HostReport, build_and_evaluate
from profilers.golden import tolerance
from profilers.sites import sites_of
from search.adaptive.quality import probes
from search.proposers.adaptive import COMBINATIONS, EVALUATIONS, PASSES
from search.recipes import uniform, uniforms

SCHEMA = 1
CONFIRMATION_S = 3.0
"""Confirmation and test split, of a small network; part of the estimate only."""
PASS = 0.1
"""A calibration pass beside an evaluation of the accuracy; part of the estimate only."""
RECOVERY_S = 1.0
CONVERSION_S = 3.0
"""Both of a small network at new widths; part of the estimate only."""


def dry_run(store: Store, inventory: Inventory, config: StudyConfig, base: Path, progress: Progress,
            waiting: Waiting = UNHURRIED) -> dict[str, Any]:
    """Build, evaluate and measure float32 alone, of every compiler, and return the dry-run document.

    Raises what `StudyRun.run` raises.
    """
    with open_workbench(store, inventory, config, base, progress, waiting=waiting) as bench:
        progress.phase("building, evaluating and measuring float32")
        tried = [_try(bench, own) for own in bench.toolchains.values()]
        first = tried[0]
        baselines = {candidate for one in tried for candidate in one.baselines}
        seeds = seeds_of_all(bench, baselines, len(baselines))
        for one in tried:
            one.document["seeds"] = [s.name for s in seeds if s.candidate.compiler == one.document["name"]]
        shares = [one.estimate_s * config.measurements / len(tried) for one in tried]
        several = {} if len(tried) == 1 else {"compilers": [one.document for one in tried]}
        return {
            "schema": SCHEMA, "dry_run": True, "model": config.model,
            "board": {"name": bench.board.name, "kind": bench.board.kind, "runtime": first.document["runtime"]},
            **{key: value for key, value in first.document.items() if key not in ("name", "runtime")},
            **several, "parameters": bench.first.prepared.parameters, "measurements": config.measurements,
            "estimate_s": round(sum(shares) + sum(engine_s(bench, own, one.report) for own, one in zip(
                bench.toolchains.values(), tried, strict=True)) + CONFIRMATION_S, 1),
            "simulated": first.simulated,
        }


@dataclass(frozen=True, slots=True)
class _Tried:
    """One compiler's part of a dry run."""

    document: dict[str, Any]
    baselines: tuple[str, ...]
    """Ids of the candidates."""
    report: HostReport
    estimate_s: float
    """Of one candidate."""
    simulated: bool


def _try(bench: Workbench, own: Toolchain) -> _Tried:
    """Build, evaluate and measure a compiler's float32."""
    config, space = bench.config, own.space
    float32 = uniform(space, "float32", config.threads)
    if isinstance(float32, str):
        raise ValueError(float32)
    report = result_of(bench.pool.submit(build_and_evaluate, own.builder, own.evaluator, float32.candidate))
    started = time.perf_counter()
    measurement = bench.crew.measure(Job(
        report.built.artifact, report.golden_inputs, report.golden_outputs,
        tolerance(list(float32.candidate.config_of.values())), own.runtime))
    measured_s = time.perf_counter() - started
    host_s = report.build_s + report.evaluate_s
    baselines = uniforms(space, config.needed_baselines(), config.threads)[0]
    document = {
        "name": own.name, "runtime": {"name": measurement.runtime, "version": measurement.runtime_version},
        "layers": [{"name": layer.name, "kind": layer.kind, "weights": layer.weights, "macs": layer.macs,
                    "choices": [choice.label for choice in layer.choices]} for layer in space.layers],
        "groups": [{"name": group.name, "channels": group.channels, "widths": list(group.widths),
                    "produced_by": list(group.produced_by), "read_by": list(group.read_by)} for group in space.groups],
        "for_all": {"calibration": [*space.calibrations], "clipping": [*space.clippings]},
        "left_out": [{"name": entry.name or None, "reason": entry.reason} for entry in own.left_out],
        "log10_candidates": round(space.log10_size, 2),
        "baselines": [bench.recipe(own.name, b.name) for b in baselines],
        "seeds": [],
        "prices": {"build_s": report.build_s, "accuracy_s": report.evaluate_s, "measurement_s": measured_s},
        "float32": {"latency_s": sorted(measurement.wall_ns)[len(measurement.wall_ns) // 2] * 1e-9,
                    "size_bytes": report.built.artifact.size_bytes, "metrics": dict(report.score.metrics)}}
    return _Tried(document, tuple(b.candidate.id for b in baselines), report,
                  measured_s + host_s / 2 if bench.exclusive else max(measured_s, host_s / 2), measurement.simulated)


def engine_s(bench: Workbench, own: Toolchain, report: HostReport) -> float:
    """Estimate what the adaptive engine takes on the host: its first table, then tables and accuracies every time."""
    config = bench.config
    if config.sampler != "adaptive":
        return 0.0
    graph = sites_of(own.layers).graph
    table = len(probes(graph, np.zeros(graph.length, np.int64)))
    proposals = max(config.measurements / len(bench.toolchains) - len(config.needed_baselines()), 0)
    passes, accuracies = table + PASSES * proposals, 2 * EVALUATIONS * proposals
    narrowed_s = proposals * (2 * COMBINATIONS * RECOVERY_S + CONVERSION_S) if own.space.groups else 0.0
    host_s = report.build_s + report.evaluate_s
    return (passes * (report.build_s + PASS * report.evaluate_s) + accuracies * host_s + narrowed_s) / 2


def print_dry_run(document: dict[str, Any], console: Console) -> None:
    """Print a dry-run document for a person."""
    place = f"{document['model']} on {document['board']['name']}"
    several = document.get("compilers")
    for one in several or [document]:
        _print_space(one, f"{place} with {one['name']}" if several else place, document["simulated"], console)
    console.print(f"{document['measurements']} measurements: about {document['estimate_s']:.0f} s after start-up",
                  highlight=False)
    if document["simulated"]:
        console.print(SIMULATED)


def _print_space(document: dict[str, Any], title: str, simulated: bool, console: Console) -> None:
    table = figures_table(("layer", "operator"), ("weights", "MACs", "choices"),
                          f"{title}: {counted(len(document['layers']), 'layer')}")
    for layer in document["layers"]:
        table.add_row(Name(layer["name"]), Name(layer["kind"]), f"{layer['weights']:,}", f"{layer['macs']:,}",
                      str(len(layer["choices"])))
    console.print(table)
    _print_groups(document, console)
    prices, float32 = document["prices"], document["float32"]
    for_all = "; ".join(f"{name} {', '.join(choices)}" for name, choices in document["for_all"].items())
    for line in (
        f"for all layers: {for_all}",
        f"10^{document['log10_candidates']:.1f} candidates; baselines: {', '.join(document['baselines'])}; "
        f"{counted(len(document['seeds']), 'seed')}",
        f"float32: {show_seconds(float32['latency_s'])}{' (simulated)' if simulated else ''}, "
        f"{show_bytes(float32['size_bytes'])}",
        f"one candidate: build {show_seconds(prices['build_s'])}, accuracy {show_seconds(prices['accuracy_s'])}, "
        f"measurement {show_seconds(prices['measurement_s'])}"):
        console.print(line, highlight=False)


def _print_groups(document: dict[str, Any], console: Console) -> None:
    if document["groups"]:
        table = figures_table(("channels of", "and of", "read by"), ("kept",),
                              f"{counted(len(document['groups']), 'group')} of channels that may be pruned")
        for group in document["groups"]:
            first, *others = group["produced_by"]
            table.add_row(Name(first), Name(" ".join(others) or "-"), Name(" ".join(group["read_by"])),
                          " ".join(map(str, group["widths"])))
        console.print(table)
    for entry in document["left_out"]:
        console.print(f"not pruned: {escape(entry['name'] + ': ' if entry['name'] else '')}{escape(entry['reason'])}",
                      highlight=False)
