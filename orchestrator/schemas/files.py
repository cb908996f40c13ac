"""The JSON schemas of all documents, as docs/schemas/ holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.schemas.costmodel import CostmodelCollected, CostmodelEvaluated, CostmodelTrained
from orchestrator.schemas.devices import (
    DeviceAdded,
    DeviceChecked,
    DeviceHistory,
    DeviceLogs,
    DevicePower,
    DeviceReleased,
    DeviceRemoved,
    DeviceReserved,
    DevicesChecked,
    DeviceSetUp,
    DevicesList,
)
from orchestrator.schemas.doctor import DoctorDocument
from orchestrator.schemas.dry_run import DryRunDocument
from orchestrator.schemas.init import InitDocument
from orchestrator.schemas.recipes import RecipeExported, RecipesList, RecipeVerified
from orchestrator.schemas.search import SearchDocument
from orchestrator.schemas.studies import (
    StudiesList,
    StudyLayers,
    StudyPareto,
    StudyPick,
    StudyPlot,
    StudyRemoved,
    StudyShow,
)
from orchestrator.schemas.tune import TuneDocument

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DOCUMENTS: Mapping[str, Any] = {
    "search": SearchDocument,
    "search-dry-run": DryRunDocument,
    "init": InitDocument,
    "studies-list": StudiesList,
    "studies-show": StudyShow,
    "studies-pareto": StudyPareto,
    "studies-layers": StudyLayers,
    "studies-pick": StudyPick,
    "studies-plot": StudyPlot,
    "studies-rm": StudyRemoved,
    "recipes-list": RecipesList,
    "recipes-export": RecipeExported,
    "recipes-verify": RecipeVerified,
    "devices-list": DevicesList,
    "devices-add": DeviceAdded,
    "devices-check": DeviceChecked,
    "devices-check-all": DevicesChecked,
    "devices-setup": DeviceSetUp,
    "devices-remove": DeviceRemoved,
    "devices-reserve": DeviceReserved,
    "devices-release": DeviceReleased,
    "devices-history": DeviceHistory,
    "devices-power": DevicePower,
    "devices-logs": DeviceLogs,
    "costmodel-collect": CostmodelCollected,
    "costmodel-train": CostmodelTrained,
    "costmodel-evaluate": CostmodelEvaluated,
    "tune": TuneDocument,
    "doctor": DoctorDocument,
}
"""Verb -> its document; docs/schemas/VERB.schema.json describes it."""


def schema_of(verb: str) -> dict[str, Any]:
    """Return the JSON schema of a verb's document."""
    return {"$schema": DIALECT, **TypeAdapter(DOCUMENTS[verb]).json_schema()}


def schema_text(verb: str) -> str:
    """Return the schema as the text of its file."""
    return json.dumps(schema_of(verb), indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> None:
    """Write the schema of every document into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for verb in DOCUMENTS:
        (folder / f"{verb}.schema.json").write_text(schema_text(verb), "utf-8")
