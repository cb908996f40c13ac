"""Recipes: which studies have one, handing one over, verifying one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.schemas.recipes import RecipeExported, RecipesList, RecipeSummary, RecipeVerified, VerifiedCheck
from orchestrator.schemas.search import SearchDocument
from orchestrator.schemas.strict import SCHEMA
from orchestrator.store.records import StudyRecord
from orchestrator.store.store import Store
from orchestrator.studies import bundle_folder, final_document, why_no_result
from recipes.bundle.schema import EVERY_NAME, RECIPE, BundleError
from recipes.bundle.whole_folder import whole_folder


def recipes_document(store: Store) -> RecipesList:
    """Return the winners of all finished studies, oldest study first."""
    found = [_summary(store, study, document) for study in store.studies()
             if (document := final_document(study)) is not None and document["winner"] is not None]
    return {"schema": SCHEMA, "store": str(store.place), "recipes": [entry for entry in found if entry is not None]}


def export_recipe(store: Store, name: str, output: Path, overwrite: bool = False) -> RecipeExported:
    """Copy a study's bundle to a folder: whole, or not at all.

    Args:
        store: an open store.
        name: the study.
        output: the folder to make; it may be there when it is empty.
        overwrite: replace a bundle that is there. A folder with anything else is never touched.

    Raises:
        StudyNotFound: naming the nearest studies.
        UsageError: the study has no bundle, or the folder is taken or cannot be written.
    """
    study = store.study(name)
    source, document = bundle_folder(store, name), final_document(study)
    if source is None or document is None:
        why = why_no_result(study) if document is None else document.get("recipe_absent_because", "it was removed")
        raise UsageError(f"study {name!r} has no recipe yet: {why}")
    output = Path(os.path.abspath(output.expanduser()))
    _check_free(output, overwrite)
    try:
        with whole_folder(output) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {output}: the recipe cannot be written there ({error.strerror}); see the free "
                         "space and the permissions, or choose another folder") from error
    sizes = [file.stat().st_size for file in output.iterdir()]
    return {"schema": SCHEMA, "study": name, "output": str(output), "files": len(sizes), "size_bytes": sum(sizes)}


def verify_recipe(folder: Path) -> RecipeVerified:
    """Compare a bundle's files with their digests and build its model again. Raises UsageError for no bundle."""
    from recipes.bundle.verify import verify_bundle

    if not (folder / RECIPE).is_file():
        raise UsageError(f"{folder}: no {RECIPE} there; give the folder of a recipe, as 'orchestrator recipes export' "
                         "writes it")
    checks: list[VerifiedCheck]
    try:
        checks = [{"name": c.name, "ok": c.ok, "detail": c.detail, "expected": c.expected, "got": c.got}
                  for c in verify_bundle(folder)]
    except BundleError as error:
        checks = [{"name": RECIPE, "ok": False, "detail": f"{error.what}; {error.remedy}", "expected": None,
                   "got": None}]
    return {"schema": SCHEMA, "bundle": str(folder), "ok": all(check["ok"] for check in checks), "checks": checks}


def _summary(store: Store, study: StudyRecord, document: SearchDocument) -> RecipeSummary | None:
    winner, folder = document["winner"], bundle_folder(store, study.name)
    if winner is None:
        return None
    found: RecipeSummary = {
        "study": study.name, "model": document["model"], "device": document["boards"][0]["name"],
        "latency_s": winner["latency_s"][document["budget"]["latency_stat"]], "accuracy": winner["accuracy"],
        "size_bytes": winner["size_bytes"], "goal_met": document["goal_met"], "simulated": document["simulated"],
        "path": None if folder is None else str(folder)}
    if folder is None:
        found["path_absent_because"] = document.get("recipe_absent_because", "it was removed from the store")
    return found


def _check_free(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"--output {output}: is a file; a recipe is a folder, choose another name")
    found = sorted(entry.name for entry in output.iterdir())
    others = [name for name in found if name not in EVERY_NAME]
    if others:
        raise UsageError(f"--output {output}: holds files that are no part of a recipe: {', '.join(others[:5])}; "
                         "choose another folder")
    if found and not overwrite:
        raise UsageError(f"--output {output}: holds a recipe already; --overwrite replaces it")
