"""What every artifact was made from, kept with the study: its recipe can be written later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.store.records import StepRecord, StudyRecord, digest_of
from orchestrator.store.store import Store
from recipes.bundle.schema import TargetEntry
from recipes.ports import Ports

if TYPE_CHECKING:  # they import all that a search needs
    from orchestrator.toolchain import Toolchain
    from recipes.compilers.build import Built
    from recipes.models.prepare import Prepared

NAME, PREPARE, FACTS = "quantise", "prepare", "facts"
"""Of the steps."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the recipes of one compiler have in common."""

    target: TargetEntry
    model: str
    """Digest of its float model."""
    tools: Mapping[str, str]
    ports: Ports


def keep_prepared(store: Store, study: StudyRecord, own: Toolchain) -> None:
    """Keep what one compiler made of the network before the search, and the tiles that it began with."""
    prepared, schedules = own.prepared, own.builder.schedules
    outputs = {"float_model": prepared.float_model, "statistics": prepared.statistics,
               **({"reference_outputs": prepared.reference.outputs} if prepared.reference else {}),
               **({"plan": prepared.plan} if prepared.plan else {}),
               **({"schedules": schedules} if schedules else {}),
               **({"weights": prepared.pruning.weights} if prepared.pruning else {}),
               **{f"split:{name}": blob for name, blob in prepared.splits.items()}}
    key = digest_of({"model": prepared.model_digest, "outputs": dict(outputs), "tools": dict(prepared.versions)})
    store.put_step(study.id, StepRecord(key, PREPARE, outputs, dict(prepared.versions)))


def schedules_of(store: Store, study: StudyRecord, prepared: Prepared) -> str | None:
    """Return the tiles (a blob) with which a study began to use a float model; None where nothing was tuned."""
    return next((step.outputs.get("schedules") for step in store.steps(study.id)
                 if step.name == PREPARE and step.outputs["float_model"] == prepared.float_model), None)


def keep_facts(store: Store, study: StudyRecord, toolchains: Iterable[Toolchain]) -> None:
    """Keep what the recipes of each compiler have in common: the bundle of the winner has only its own compiler's."""
    written = {own.name: {"target": TargetEntry.of(own.builder.target).model_dump(mode="json"),
                          "model": own.prepared.model_digest, "tools": dict(own.prepared.versions),
                          "ports": own.prepared.ports.to_json()} for own in toolchains}
    blob = store.blobs.put_bytes(json.dumps(written, sort_keys=True).encode()).sha256
    store.put_step(study.id, StepRecord(digest_of({"study": str(study.id), FACTS: blob}), FACTS, {FACTS: blob}, {}))


def facts_of(store: Store, study: StudyRecord, compiler: str) -> Facts | None:
    """Return the same of one compiler; None for a study of one, whose bundle says it."""
    kept = [step.outputs[FACTS] for step in store.steps(study.id) if step.name == FACTS]
    if not kept:
        return None
    own = json.loads(store.blobs.path(kept[-1]).read_bytes())[compiler]
    return Facts(TargetEntry.model_validate_json(json.dumps(own["target"])), own["model"], own["tools"],
                 Ports.from_json(own["ports"]))


def keep_origin(store: Store, study: StudyRecord, built: Built) -> None:
    """Keep the float model, the statistics and the tiles of an artifact, and the steps that made them."""
    for step in built.steps:
        store.put_step(study.id, StepRecord(step.key, step.name, step.outputs, step.tools))
    outputs = {"model": built.artifact.sha256, "float_model": built.float_model.model,
               "statistics": built.float_model.statistics,
               **({"schedules": built.schedules} if built.schedules else {})}
    store.put_step(study.id, StepRecord(digest_of({NAME: dict(outputs)}), NAME, outputs, {}))


def origin_of(store: Store, study: StudyRecord, artifact: str) -> Mapping[str, str] | None:
    """Return the blobs `float_model`, `statistics` and (where kernels were tuned) `schedules` of an artifact (a blob).

    None where no version kept them.
    """
    return next((step.outputs for step in store.steps(study.id)
                 if step.name == NAME and step.outputs["model"] == artifact), None)
