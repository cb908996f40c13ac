"""The bundle of any candidate that a study has measured, made from what the store keeps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.pick import Picked
from orchestrator.provenance import Facts, facts_of, origin_of
from orchestrator.store.records import Purpose
from orchestrator.store.store import Store
from orchestrator.studies import bundle_folder
from orchestrator.study_view import StudyView
from recipes.bundle.document import load_recipe
from recipes.bundle.export import export_bundle
from recipes.bundle.formats import FORMATS
from recipes.bundle.schema import (
    SCHEMA,
    CandidateEntry,
    Latency,
    Measured,
    ModelEntry,
    PortEntry,
    Recipe,
    RecipeFacts,
)
from search.candidate import Candidate, candidate_in


def export_picked(store: Store, view: StudyView, found: Picked, output: Path, overwrite: bool = False) -> Path:
    """Write a picked candidate's bundle to a folder: whole, or not at all.

    Target, ports and tools are those of the bundle that the study made for its winner, unless the study has several
    compilers: then each has its own.

    Raises:
        UsageError: the study has no bundle yet, or an older version did not keep what the candidate was made from.
        BundleError: the folder is taken, a blob is missing, or writing failed.
    """
    record, trial = view.record, found.point.trial
    folder = bundle_folder(store, record.name)
    if folder is None:
        raise UsageError(f"study {record.name!r} has no recipe of its own yet, from which target and tools would be "
                         f"taken; let it finish with: orchestrator search --study {record.name} --resume")
    own = load_recipe(folder)
    candidate = candidate_in(record.spaces, trial.candidate)
    artifact = trial.artifact_sha256
    if artifact is None:
        raise ValueError(f"trial {trial.number} is complete, but has no artifact")
    origin = origin_of(store, record, artifact) or _older_origin(store, view, own, candidate)
    common = facts_of(store, record, candidate.compiler) or Facts(own.target, own.model.sha256, own.tools,
                                                                  own.to_ports())
    ports = common.ports
    if own.io == "int8":
        ports = FORMATS[candidate.compiler].compiler.quantised_ports(ports, store.blobs.path(artifact).read_bytes())
    facts = RecipeFacts.model_validate({
        "schema": SCHEMA, "study": record.name, "created": datetime.now(UTC), "seed": own.seed,
        "compiler": candidate.compiler, "io": own.io, "target": common.target,
        "candidate": CandidateEntry.of(candidate), "prune_criterion": own.prune_criterion,
        "model": ModelEntry(name=own.model.name, sha256=common.model), "data": own.data, "tools": dict(common.tools),
        "inputs": tuple(PortEntry.of(p) for p in ports.inputs),
        "outputs": tuple(PortEntry.of(p) for p in ports.outputs),
        "measured": (_measured(store, found),), "accuracy": _accuracy(found)})
    return export_bundle(output, facts, store.blobs, artifact=artifact, float_model=origin["float_model"],
                         statistics=origin["statistics"], schedules=origin.get("schedules"), overwrite=overwrite)


def _older_origin(store: Store, view: StudyView, own: Recipe, candidate: Candidate) -> Mapping[str, str]:
    """Return the same for a study from before every artifact's origin was kept. Raises UsageError."""
    if candidate.widths == own.to_candidate().widths and candidate.recovery == own.to_candidate().recovery:
        return {"float_model": own.files[own.kept.float_model].sha256,
                "statistics": own.files["calibration.json"].sha256}
    prepared = next((step.outputs for step in reversed(store.steps(view.record.id)) if step.name == "prepare"), None)
    if candidate.widths or prepared is None:
        raise UsageError(f"study {view.record.name!r} was made by a version of orchestrator that kept the float models "
                         "of its winner's widths only; to get this recipe, search again with constraints that it "
                         "wins by")
    return prepared


def _measured(store: Store, found: Picked) -> Measured:
    point, config = found.point, found.config
    purpose = Purpose.CONFIRM if point.confirmed else Purpose.SEARCH
    measurement = next(m.measurement for m in store.history(point.trial.id).measurements if m.purpose is purpose)
    latency = point.latency
    return Measured(
        board=measurement.board, kind=measurement.kind, runtime=measurement.runtime,
        runtime_version=measurement.runtime_version, threads=measurement.threads,
        latency=Latency(median_s=latency.median, p90_s=latency.p90, ci95_s=latency.ci95, statistic=config.latency_stat,
                        budget_s=found.goal.latency_budget_s, probability=found.probability),
        simulated=measurement.simulated)


def _accuracy(found: Picked) -> dict[str, dict[str, float]]:
    known = {"validation": dict(found.point.evidence.metrics)}
    return known if found.point.test is None else {**known, "test": dict(found.point.test)}
