"""Write a bundle: whole, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

from recipes.blobs import BlobMissing, BlobStore
from recipes.bundle.document import recipe_text
from recipes.bundle.formats import FORMATS
from recipes.bundle.readme import readme
from recipes.bundle.schema import (
    EVERY_NAME,
    README,
    RECIPE,
    SCHEDULES,
    STATISTICS,
    SUMS,
    BundleError,
    FileFacts,
    FileName,
    PlaceTaken,
    Recipe,
    RecipeFacts,
)
from recipes.bundle.whole_folder import whole_folder


def export_bundle(destination: Path, recipe: RecipeFacts, blobs: BlobStore, *, artifact: str, float_model: str,
                  statistics: str, schedules: str | None = None, overwrite: bool = False) -> Path:
    """Write a bundle to `destination`: whole, or not at all.

    Args:
        destination: the folder to make; it may be there when it is empty.
        recipe: all of recipe.yaml but the digests of the files, which are taken here.
        blobs: where the files lie.
        artifact: blob of the artifact.
        float_model: blob of the float model.
        statistics: blob of the calibration statistics.
        schedules: blob of the tiles that kernels were built with; None where they are the default.
        overwrite: replace a bundle that is there. Other files are never removed.

    Returns:
        The bundle's folder, absolute.

    Raises:
        BundleError: the folder is taken, a blob is missing or damaged, or writing failed. Nothing
            half-written is left, and a bundle that was there is untouched.
    """
    destination = destination.resolve()
    try:
        _check_free(destination, overwrite)
        network = _blob(blobs, float_model, destination)
        content: dict[FileName, bytes] = {
            recipe.kept.model: _blob(blobs, artifact, destination), recipe.kept.float_model: network,
            STATISTICS: _blob(blobs, statistics, destination), **FORMATS[recipe.compiler].others(recipe, network)}
        if schedules is not None:
            content[SCHEDULES] = _blob(blobs, schedules, destination)
        with whole_folder(destination) as folder:
            for name, data in _all_files(recipe, content).items():
                (folder / name).write_bytes(data)
    except OSError as error:
        raise BundleError(f"cannot be written ({error.strerror})", destination,
                          "see the free space and the permissions, or choose another folder") from error
    return destination


def _all_files(facts: RecipeFacts, content: dict[FileName, bytes]) -> dict[str, bytes]:
    """Add what describes the files: recipe.yaml, README.md, SHA256SUMS."""
    recipe = Recipe.of(facts, {name: FileFacts(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
                               for name, data in content.items()})
    files: dict[str, bytes] = {str(name): data for name, data in content.items()}
    files |= {RECIPE: recipe_text(recipe).encode(), README: readme(recipe).encode()}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    return {**files, SUMS: sums.encode()}


def _check_free(destination: Path, overwrite: bool) -> None:
    if not destination.exists():
        return
    if not destination.is_dir():
        raise PlaceTaken("is a file; a bundle is a folder", destination, "choose another name")
    found = sorted(entry.name for entry in destination.iterdir())
    others = [name for name in found if name not in EVERY_NAME]
    if found and not overwrite:
        raise PlaceTaken("the folder is not empty", destination, "choose another, or replace the bundle (--overwrite)")
    if others:
        raise PlaceTaken(f"the folder holds files that are no part of a bundle: {', '.join(others)}", destination,
                         "they would be lost: move them away, or choose another folder")


def _blob(blobs: BlobStore, sha256: str, destination: Path) -> bytes:
    """Read a blob and make sure that it is what its name says."""
    try:
        data = blobs.path(sha256).read_bytes()
    except BlobMissing as error:
        raise BundleError(f"a file for it is missing: {error}", destination, "then export again") from error
    except OSError as error:
        raise BundleError(f"blob {sha256} of it cannot be read ({error.strerror})", destination,
                          f"see the permissions of {blobs.root}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(f"blob {sha256} has other bytes than its name says", destination,
                          f"the disk of {blobs.root} is damaged: remove the blob and build again")
    return data
