"""After a search: the winner's bundle and the final document go into the store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from orchestrator.document import Document, search_document
from orchestrator.loop import Found
from orchestrator.outcome import Outcome
from orchestrator.store.store import Store
from recipes.bundle.export import export_bundle
from recipes.bundle.schema import (
    SCHEMA,
    CandidateEntry,
    DataEntry,
    Latency,
    Measured,
    ModelEntry,
    PortEntry,
    RecipeFacts,
    TargetEntry,
)


def recipe_folder(store: Store, study: str) -> Path:
    """Return where a study's bundle lies."""
    return store.folder / "recipes" / study


def conclude(store: Store, outcome: Outcome) -> Document:
    """Write the winner's bundle and the final document into the store, and return the document.

    Raises BundleError when the bundle cannot be written.
    """
    winner, bench = outcome.verdict.winner, outcome.bench
    place: Path | None = None
    if winner is not None and winner.report is not None:
        built = winner.report.built
        place = export_bundle(
            recipe_folder(store, bench.config.study), _facts(outcome, winner), store.blobs,
            artifact=built.artifact.sha256, float_model=built.float_model.model,
            statistics=built.float_model.statistics, schedules=built.schedules, overwrite=True)
    document = search_document(outcome, place)
    store.set_document(outcome.study.id, document)
    return document


def _facts(outcome: Outcome, winner: Found) -> RecipeFacts:
    bench = outcome.bench
    own = bench.toolchains[winner.candidate.compiler]
    config, prepared, measurement, report = bench.config, own.prepared, winner.measurement, winner.report
    if measurement is None or report is None or winner.evidence is None:
        raise ValueError(f"candidate {winner.candidate.id} was not measured")
    latency = outcome.latency_of(winner)
    accuracy = {"validation": dict(winner.evidence.metrics)}
    if (test := outcome.test.get(winner.candidate.id)) is not None:
        accuracy["test"] = dict(test)
    return RecipeFacts.model_validate({
        "schema": SCHEMA, "study": config.study, "created": datetime.now(UTC), "seed": config.seed,
        "compiler": own.name, "io": config.io, "target": TargetEntry.of(own.builder.target),
        "candidate": CandidateEntry.of(winner.candidate),
        "prune_criterion": config.prune_criterion if config.prune else None,
        "model": ModelEntry(name=config.model, sha256=prepared.model_digest),
        "data": DataEntry(name=config.data, sha256=dict(prepared.splits)), "tools": dict(prepared.versions),
        "inputs": tuple(PortEntry.of(p) for p in report.built.ports.inputs),
        "outputs": tuple(PortEntry.of(p) for p in report.built.ports.outputs),
        "measured": (Measured(
            board=bench.board.name, kind=bench.board.kind, runtime=measurement.runtime,
            runtime_version=measurement.runtime_version, threads=measurement.threads,
            latency=Latency(median_s=latency.median, p90_s=latency.p90, ci95_s=latency.ci95,
                            statistic=config.latency_stat, budget_s=outcome.budget_s(),
                            probability=outcome.verdict.probability),
            simulated=measurement.simulated),),
        "accuracy": accuracy})
