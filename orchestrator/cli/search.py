"""`orchestrator search`: the main job."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import print_document
from orchestrator.cli.outcome import GOAL_MET, INTERRUPTED, NOT_MET, Format, exit_codes, start_logging

_GOAL, _WORK, _PLACES = "Goal", "How to search", "Places and output"


def search(
    device: Annotated[str | None, typer.Option(help="A board's name or kind, or local, sim. [default: local]")] = None,
    budget: Annotated[str | None, typer.Option(
        help="Latency: 10ms, 0.5x (of float32), 0.6x:int8 (of a baseline).", rich_help_panel=_GOAL)] = None,
    size_budget: Annotated[str | None, typer.Option(
        help="Artifact size: 80KB, 0.8x:int8.", rich_help_panel=_GOAL)] = None,
    max_drop: Annotated[float | None, typer.Option(
        help="Points of the objective that may be lost (1 point = 0.01).", rich_help_panel=_GOAL)] = None,
    require: Annotated[list[str] | None, typer.Option(
        help="'METRIC >= NUMBER' relative to float32, or 'METRIC >= NUMBER abs'; may be repeated.",
        rich_help_panel=_GOAL)] = None,
    latency_stat: Annotated[str | None, typer.Option(
        help="median, p90, p99 or mean. [default: median]", rich_help_panel=_GOAL)] = None,
    confidence: Annotated[float | None, typer.Option(
        help="Probability with which the budget must be met. [default: 0.95]", rich_help_panel=_GOAL)] = None,
    model: Annotated[str | None, typer.Option(
        help="demo:NAME, FILE.py:FACTORY, PACKAGE.MODULE:FACTORY, a .pt2 or a float .tflite. "
             "[default: demo:residual]")] = None,
    data: Annotated[str | None, typer.Option(help="FILE.py:FACTORY or PACKAGE.MODULE:FACTORY.")] = None,
    config: Annotated[Path | None, typer.Option(
        help="A study.yaml. [default: ./study.yaml when there is one and no --model]")] = None,
    measurements: Annotated[int | None, typer.Option(
        help="Candidates to time, baselines included. [default: 48]", rich_help_panel=_WORK)] = None,
    time: Annotated[str | None, typer.Option(help="Stop after, e.g. 30m.", rich_help_panel=_WORK)] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe or random. [default: tpe]", rich_help_panel=_WORK)] = None,
    compiler: Annotated[str | None, typer.Option(help="tflite. [default: tflite]", rich_help_panel=_WORK)] = None,
    threads: Annotated[int | None, typer.Option(
        help="Threads on the board. [default: 1]", rich_help_panel=_WORK)] = None,
    io: Annotated[str | None, typer.Option(
        help="Inputs and outputs of the artifact: float or int8. [default: float]", rich_help_panel=_WORK)] = None,
    accuracy: Annotated[str | None, typer.Option(
        help="Where accuracy is evaluated: host, or board:N examples. [default: host]", rich_help_panel=_WORK)] = None,
    baselines: Annotated[str | None, typer.Option(help="all or needed. [default: all]", rich_help_panel=_WORK)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the proposer. [default: 0]", rich_help_panel=_WORK)] = None,
    study: Annotated[str | None, typer.Option(
        help="Name in the store. [default: the time of the start]", rich_help_panel=_PLACES)] = None,
    dry_run: Annotated[bool, typer.Option(
        "--dry-run", help="Show the space, the prices and a time estimate; measure float32 only.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue --study.", rich_help_panel=_PLACES)] = False,
    store: Annotated[str | None, typer.Option(help="Folder of the store.", rich_help_panel=_PLACES)] = None,
    inventory: Annotated[str | None, typer.Option(help="The inventory.yaml.", rich_help_panel=_PLACES)] = None,
    format_: Annotated[Format, typer.Option("--format", help="text or json.", rich_help_panel=_PLACES)] = Format.TEXT,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything.", rich_help_panel=_PLACES)] = False,
) -> None:
    """Find the best per-layer bit-widths for a network on a board, by measuring candidates there."""
    with exit_codes():
        from rich.console import Console

        from orchestrator import wiring
        from orchestrator.config import DEFAULT_FILE, load_config
        from orchestrator.errors import UsageError
        from orchestrator.store.places import find_inventory, find_store

        here = Path.cwd()
        if config is None and model is None and (here / DEFAULT_FILE).is_file():
            config = here / DEFAULT_FILE
        name = study or (None if config else f"{datetime.now().astimezone():%Y%m%d-%H%M%S}")
        if resume and study is None and config is None:
            raise UsageError("--resume: which study? give --study NAME")
        found = load_config(config, {
            "device": device, "budget": budget, "size_budget": size_budget, "max_drop": max_drop,
            "require": tuple(require or ()), "latency_stat": latency_stat, "confidence": confidence, "model": model,
            "data": data, "measurements": measurements, "time": time, "sampler": sampler, "compiler": compiler,
            "threads": threads, "io": io, "accuracy": accuracy, "baselines": baselines, "seed": seed, "study": name})
        store_folder = find_store(store, os.environ, here)
        boards = wiring.load_inventory(find_inventory(inventory, os.environ, here))
    log_file = store_folder / "logs" / f"{found.study}.log"
    command = f"orchestrator search --study {found.study} --resume" + (f" --store {store}" if store else "")
    with exit_codes(log_file, lambda: command if _exists(store_folder, found.study) else None):
        from orchestrator.dry_run import dry_run as measure_prices
        from orchestrator.dry_run import print_dry_run
        from orchestrator.report import print_report
        from orchestrator.store.store import Store
        from orchestrator.study_run import StudyRun
        from orchestrator.terminal import Live, Plain

        console = Console(stderr=True)
        start_logging(log_file, debug)
        with Store.open(store_folder) as opened:
            stored = opened.study(found.study).config if resume else None
            if stored is not None:
                found = load_config(config, {**_given(stored), **_changed(locals())})
            progress = Live(console, found.device) if console.is_terminal else Plain(console)
            with progress:
                if config is None and model is None and not resume:
                    progress.note(f"no --model and no {DEFAULT_FILE} here: searching the demo network {found.model}")
                base = config.parent.resolve() if config is not None else here
                if dry_run:
                    plan = measure_prices(opened, boards, found, base, progress)
                    print_document(plan, format_, lambda: print_dry_run(plan, Console()))
                    return
                outcome, document = StudyRun(opened, boards, found, base, progress, resume).run()
        print_document(document, format_, lambda: print_report(document, Console()))
        if outcome.interrupted:
            typer.echo(f"interrupted; continue with: {command}", err=True)
            raise typer.Exit(INTERRUPTED)
        raise typer.Exit(GOAL_MET if outcome.verdict.goal_met else NOT_MET)


def _exists(store_folder: Path, study: str) -> bool:
    """Tell whether there is something to resume."""
    from orchestrator.store.errors import StoreError
    from orchestrator.store.store import Store

    try:
        with Store.open(store_folder) as opened:
            return study in [record.name for record in opened.studies()]
    except StoreError:
        return False


def _given(stored: object) -> dict[str, object]:
    return dict(stored) if isinstance(stored, dict) else {}


def _changed(given: dict[str, object]) -> dict[str, object]:
    """Return the options of this command line that are set."""
    keys = ("device", "budget", "size_budget", "max_drop", "latency_stat", "confidence", "model", "data",
            "measurements", "time", "sampler", "compiler", "threads", "io", "accuracy", "baselines", "seed", "study")
    found = {key: given[key] for key in keys if given.get(key) is not None}
    if given.get("require"):
        found["require"] = tuple(given["require"])  # type: ignore[arg-type]
    return found
