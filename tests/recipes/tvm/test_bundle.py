"""Bundles of the compiler tvm: the same bytes again, and what damage does."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from recipes.blobs import BlobStore
from recipes.bundle.document import load_recipe
from recipes.bundle.export import export_bundle
from recipes.bundle.schema import CandidateEntry, DataEntry, ModelEntry, PortEntry, RecipeFacts, TargetEntry
from recipes.bundle.verify import verify_bundle
from recipes.compilers.tvm.legal import STATIC_8
from search.candidate import Candidate
from tests.recipes.tvm.test_compiler import COMPILER, HOST, Converted, converted


def mixed(given: Converted) -> Candidate:
    """Draw every layer's format."""
    rng, space = np.random.default_rng(3), given.layers.space
    return Candidate.of(space, {layer.name: layer.choices[rng.integers(len(layer.choices))]
                                for layer in space.layers})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    given, blobs = converted("residual"), BlobStore(tmp_path / "blobs")
    candidate = mixed(given)
    facts = RecipeFacts.model_validate({
        "study": "default", "created": datetime(2026, 3, 1, 12, 30, tzinfo=UTC), "seed": 7, "compiler": "tvm",
        "io": "float", "target": TargetEntry.of(HOST), "candidate": CandidateEntry.of(candidate),
        "prune_criterion": None, "model": ModelEntry(name="demo:residual", sha256="a" * 64),
        "data": DataEntry(name="demo:fashion_mnist", sha256={"calibration": "b" * 64}),
        "tools": {name: version(name) for name in COMPILER.quantises_with},
        "inputs": tuple(map(PortEntry.of, given.ports.inputs)),
        "outputs": tuple(map(PortEntry.of, given.ports.outputs)), "measured": (), "accuracy": {}})
    return export_bundle(tmp_path / "bundle", facts, blobs, artifact=blobs.put_bytes(given.artifact(candidate)).sha256,
                         float_model=blobs.put_bytes(given.model).sha256,
                         statistics=blobs.put_bytes(given.statistics).sha256)


def failed(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in verify_bundle(folder) if not check.ok}


def test_it_holds_what_is_promised_and_makes_the_same_bytes(bundle: Path) -> None:
    assert {file.name for file in bundle.iterdir()} == {"model.so", "float.json", "calibration.json", "recipe.yaml",
                                                        "README.md", "SHA256SUMS"}
    assert failed(bundle) == {}
    assert "candidate -> model.so" in {check.name for check in verify_bundle(bundle)}
    assert load_recipe(bundle).to_candidate() == mixed(converted("residual"))
    assert "ziglang" in (bundle / "README.md").read_text()


@pytest.mark.parametrize(("file", "broken"), [
    ("model.so", set()), ("float.json", {"candidate -> model.so"}), ("calibration.json", {"candidate -> model.so"})])
def test_a_damaged_file_is_found_and_not_fed_to_native_code(bundle: Path, file: str, broken: set[str]) -> None:
    (bundle / file).write_bytes((bundle / file).read_bytes()[:-1])
    assert set(failed(bundle)) == {file, *broken}


def test_another_librarys_bytes_are_found(bundle: Path) -> None:
    given = converted("residual")
    uniform = Candidate.of(given.layers.space, {x.name: x.widen(STATIC_8) for x in given.layers.space.layers})
    path = bundle / "recipe.yaml"
    path.write_text(path.read_text().replace(load_recipe(bundle).candidate.id, uniform.id))
    with pytest.raises(Exception, match="changed by hand"):
        verify_bundle(bundle)
