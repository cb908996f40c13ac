"""`orchestrator search`: the main job."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from orchestrator.cli.options import (
    number,
    opened,
    output_format,
    print_document,
    read_inventory,
    read_waiting,
    store_option,
    store_place,
    whole,
)
from orchestrator.cli.outcome import (
    GOAL_MET,
    INTERRUPTED,
    NOT_MET,
    Format,
    exit_codes,
    log_optuna_too,
    start_logging,
)
from search.samplers import SAMPLERS, SamplerNotInstalled, check_installed

if TYPE_CHECKING:
    from device_farm.inventory import Inventory
    from orchestrator.config import StudyConfig
    from orchestrator.store.places import StorePlace

_GOAL, _WORK, _PLACES = "Goal", "How to search", "Places and output"
_SAMPLERS = "\n".join(["What proposes candidates. [default: adaptive]\n\n\b",  # \b: click leaves the lines as they are
                       *(f"{name:9} {sampler.line}" for name, sampler in SAMPLERS.items())])


class StudyOptions(TypedDict):
    """The options that are keys of study.yaml; None and () where they were not set."""

    device: str | None
    budget: str | None
    size_budget: str | None
    max_drop: float | None
    objective: str | None
    require: tuple[str, ...]
    latency_stat: str | None
    confidence: float | None
    model: str | None
    data: str | None
    measurements: int | None
    time: str | None
    stop_below: float | None
    sampler: str | None
    prior: str | None
    compiler: str | None
    threads: int | None
    io: str | None
    accuracy: str | None
    baselines: str | None
    prune: bool | None
    prune_criterion: str | None
    seed: int | None
    study: str | None


def search(
    device: Annotated[str | None, typer.Option(help="A board's name or kind, or local, sim. [default: local]")] = None,
    budget: Annotated[str | None, typer.Option(
        help="Latency: 10ms, 0.5x (of float32), 0.6x:int8 (of a baseline).", rich_help_panel=_GOAL)] = None,
    size_budget: Annotated[str | None, typer.Option(
        help="Artifact size: 80KB, 0.8x:int8.", rich_help_panel=_GOAL)] = None,
    max_drop: Annotated[float | None, typer.Option(
        parser=number, metavar="<float>", help="Points of the objective that may be lost (1 point = 0.01).",
        rich_help_panel=_GOAL)] = None,
    objective: Annotated[str | None, typer.Option(
        help="accuracy,latency: the Pareto front of several objectives (accuracy or a metric's name, latency, size).",
        rich_help_panel=_GOAL)] = None,
    require: Annotated[list[str] | None, typer.Option(
        help="'METRIC >= NUMBER' relative to float32, or 'METRIC >= NUMBER abs'; may be repeated.",
        rich_help_panel=_GOAL)] = None,
    latency_stat: Annotated[str | None, typer.Option(
        help="median, p90, p99 or mean. [default: median]", rich_help_panel=_GOAL)] = None,
    confidence: Annotated[float | None, typer.Option(
        parser=number, metavar="<float>", help="Probability with which the budget must be met. [default: 0.95]",
        rich_help_panel=_GOAL)] = None,
    model: Annotated[str | None, typer.Option(
        help="demo:NAME, FILE.py:FACTORY, PACKAGE.MODULE:FACTORY, a .pt2, an .onnx or a float .tflite. "
             "[default: demo:residual]")] = None,
    data: Annotated[str | None, typer.Option(help="FILE.py:FACTORY or PACKAGE.MODULE:FACTORY.")] = None,
    config: Annotated[Path | None, typer.Option(
        help="A study.yaml. [default: ./study.yaml when there is one and no --model]")] = None,
    measurements: Annotated[int | None, typer.Option(
        parser=whole, metavar="<int>", help="Candidates to time, baselines included. [default: 48]",
        rich_help_panel=_WORK)] = None,
    time: Annotated[str | None, typer.Option(help="Stop after, e.g. 30m.", rich_help_panel=_WORK)] = None,
    stop_below: Annotated[float | None, typer.Option(
        parser=number, metavar="<float>", help="Stop when one more measurement improves the result with less than "
        "this probability; 0: never. [default: 0.05]", rich_help_panel=_WORK)] = None,
    sampler: Annotated[str | None, typer.Option(
        help=_SAMPLERS, rich_help_panel=_WORK)] = None,
    prior: Annotated[str | None, typer.Option(
        help="What is believed before the first measurement: auto, roofline, xgboost or both. [default: auto]",
        rich_help_panel=_WORK)] = None,
    compiler: Annotated[str | None, typer.Option(
        help="tflite, or tvm: kernels of our own, also below 8 bits; tflite,tvm: one search over both. "
             "[default: tflite]", rich_help_panel=_WORK)] = None,
    threads: Annotated[int | None, typer.Option(
        parser=whole, metavar="<int>", help="Threads on the board. [default: 1]", rich_help_panel=_WORK)] = None,
    io: Annotated[str | None, typer.Option(
        help="Inputs and outputs of the artifact: float or int8. [default: float]", rich_help_panel=_WORK)] = None,
    accuracy: Annotated[str | None, typer.Option(
        help="Where accuracy is evaluated: host, or board:N examples. [default: host]", rich_help_panel=_WORK)] = None,
    baselines: Annotated[str | None, typer.Option(help="all or needed. [default: all]", rich_help_panel=_WORK)] = None,
    prune: Annotated[bool | None, typer.Option(
        "--prune/--no-prune", help="Also prune channels. [default: no-prune]", show_default=False,
        rich_help_panel=_WORK)] = None,
    prune_criterion: Annotated[str | None, typer.Option(
        help="In which order channels go: obs, magnitude, bn_scale, taylor or activation. [default: obs]",
        rich_help_panel=_WORK)] = None,
    seed: Annotated[int | None, typer.Option(
        parser=whole, metavar="<int>", help="Seed of the proposer. [default: 0]", rich_help_panel=_WORK)] = None,
    study: Annotated[str | None, typer.Option(
        help="Name in the store. [default: the time of the start]", rich_help_panel=_PLACES)] = None,
    dry_run: Annotated[bool, typer.Option(
        "--dry-run", help="Show the space, the prices and a time estimate; measure float32 only.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue --study.", rich_help_panel=_PLACES)] = False,
    wait: Annotated[str | None, typer.Option(
        help="How long to wait for a board that is another's; 0s: not at all. [default: 1h]",
        rich_help_panel=_PLACES)] = None,
    priority: Annotated[int, typer.Option(
        parser=whole, metavar="<int>", help="Who waits with a greater one comes first.",
        rich_help_panel=_PLACES)] = 0,
    store: Annotated[str | None, typer.Option(
        help="Folder of the store, or postgresql://USER@HOST/DATABASE.", rich_help_panel=_PLACES)] = None,
    inventory: Annotated[str | None, typer.Option(help="The inventory.yaml.", rich_help_panel=_PLACES)] = None,
    format_: Annotated[Format, typer.Option("--format", parser=output_format, metavar="<format>", help="text or json.",
                                            rich_help_panel=_PLACES)] = Format.TEXT,
    debug: Annotated[bool, typer.Option(
        "--debug", help="Log everything, and show where an error comes from.", rich_help_panel=_PLACES)] = False,
) -> None:
    """Find the best per-layer bit-widths for a network on a board, by measuring candidates there."""
    here = Path.cwd()
    with exit_codes(debug=debug):
        from orchestrator.config import DEFAULT_FILE, differing, load_config
        from orchestrator.errors import UsageError

        if config is None and model is None and (here / DEFAULT_FILE).is_file():
            config = here / DEFAULT_FILE
        if resume and study is None and config is None:
            raise UsageError("--resume: which study? give --study NAME")
        asked = _given({
            "device": device, "budget": budget, "size_budget": size_budget, "max_drop": max_drop,
            "objective": objective, "require": tuple(require or ()), "latency_stat": latency_stat,
            "confidence": confidence, "model": model, "data": data, "measurements": measurements,
            "time": time, "stop_below": stop_below, "sampler": sampler, "prior": prior,
            "compiler": compiler, "threads": threads, "io": io, "accuracy": accuracy, "baselines": baselines,
            "prune": prune, "prune_criterion": prune_criterion, "seed": seed,
            "study": study or (None if config else f"{datetime.now().astimezone():%Y%m%d-%H%M%S}")})
        if resume:
            stored = _stored(study or load_config(config, asked).study, store)
            found = load_config(config, {**stored, **asked})
            ignored = differing(config, stored, asked)
        else:
            found, ignored = load_config(config, asked), []
        waiting = read_waiting(wait, priority)
        base = config.parent.resolve() if config is not None else here
        boards = read_inventory(inventory)
        at_place = store_place(store)
        _check_references(found, base, boards)
    log_file = at_place.folder / "logs" / f"{found.study}.log"
    command = f"orchestrator search --study {found.study} --resume{store_option(store)}"
    with exit_codes(log_file, lambda: command if _exists(at_place, found.study) else None, debug):
        from rich.console import Console

        from orchestrator.dry_run import dry_run as measure_prices
        from orchestrator.dry_run import print_dry_run
        from orchestrator.report import print_report
        from orchestrator.store.store import Store
        from orchestrator.study_run import StudyRun
        from orchestrator.terminal import Live, Plain

        log_optuna_too()
        start_logging(log_file, debug)
        console, simulated = Console(stderr=True), boards.find(found.device).transport == "sim"
        progress = Live(console, found.device, simulated) if console.is_terminal else Plain(console, simulated)
        with Store.open(at_place) as at, progress:
            if config is None and model is None and not resume:
                progress.note(f"no --model and no {DEFAULT_FILE} here: searching the demo network {found.model}")
            for text in ignored:
                progress.note(text)
            if dry_run:
                document = measure_prices(at, boards, found, base, progress, waiting)
            else:
                outcome, document = StudyRun(at, boards, found, base, progress, resume, waiting).run()
        if dry_run:
            print_document(document, format_, lambda: print_dry_run(document, Console()))
            return
        print_document(document, format_, lambda: print_report(document, Console()))
        if outcome.interrupted:
            typer.echo(f"interrupted; continue with: {command}", err=True)
            raise typer.Exit(INTERRUPTED)
        raise typer.Exit(GOAL_MET if outcome.verdict.goal_met else NOT_MET)


def _given(options: StudyOptions) -> dict[str, object]:
    """Return the options that were set."""
    return {key: value for key, value in options.items() if value not in (None, ())}


def _stored(study: str, store: str | None) -> Mapping[str, object]:
    """Return the configuration with which a study was started. Raises UsageError, StoreError."""
    with opened(store) as found:
        return dict(found.study(study).config)


def _check_references(config: StudyConfig, base: Path, boards: Inventory) -> None:
    """Refuse what is not there before anything is written.

    Raises ModelError, DataError, InventoryError, UsageError.
    """
    from orchestrator.errors import UsageError
    from orchestrator.toolchain import refuse_foreign
    from recipes.models.source import parse_data, parse_model

    try:
        check_installed(config.sampler)
    except SamplerNotInstalled as error:
        raise UsageError(f"--sampler: {error}") from error
    refuse_foreign(parse_model(config.model, base), config.compiler)
    parse_data(config.data, base)
    boards.find(config.device)


def _exists(place: StorePlace, study: str) -> bool:
    """Tell whether there is something to resume."""
    from orchestrator.store.errors import StoreError
    from orchestrator.store.store import Store

    if not place.exists:
        return False
    try:
        with Store.open(place) as found:
            return study in [record.name for record in found.studies()]
    except StoreError:
        return False
