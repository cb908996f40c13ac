"""What every artifact was quantised from, kept with the study: its recipe can be written later."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.store.records import StepRecord, StudyRecord, digest_of
from orchestrator.store.store import Store
from recipes.compilers.build import Built

NAME = "quantise"
"""Of the step."""


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
