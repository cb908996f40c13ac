"""Is a bundle what it says? Every digest, and the model rebuilt."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from recipes.boundary import foreign
from recipes.bundle.document import load_recipe
from recipes.bundle.format import Rebuild, candidate_of
from recipes.bundle.formats import FORMATS
from recipes.bundle.schema import README, RECIPE, RULES, SCHEDULES, STATISTICS, SUMS, Recipe
from recipes.errors import ModelError


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared."""

    name: str
    """The file, or `source -> file` for a rebuild."""
    ok: bool
    detail: str
    """One sentence; where digests differ, it names the step that gave other bytes."""
    expected: str | None = None
    """SHA-256."""
    got: str | None = None
    """SHA-256; None where there is nothing to compare."""


def verify_bundle(folder: Path) -> tuple[Check, ...]:
    """Compare every file with its digest, and rebuild the model from the float model.

    The model is rebuilt from the candidate, as the search built it, and in every other way that its compiler knows.

    Raises:
        BundleError: recipe.yaml cannot be read, so there is nothing to compare with.
    """
    recipe = load_recipe(folder)
    files = _check_files(folder, recipe)
    damaged = {check.name for check in files if not check.ok}
    return (*files, *_rebuild(folder, recipe, damaged))


def _check_files(folder: Path, recipe: Recipe) -> tuple[Check, ...]:
    listed = _listed(folder)
    recorded: dict[str, str] = {name: facts.sha256 for name, facts in recipe.files.items()}
    steps: dict[str, str] = {recipe.kept.model: "quantise", recipe.kept.float_model: "convert",
                             STATISTICS: "calibrate", RULES: "write the rules", SCHEDULES: "tune"}
    names: tuple[str, ...] = (*recipe.files, RECIPE, README)
    checks = [_check_file(folder / name, steps.get(name, "export"), recorded.get(name) or listed.get(name))
              for name in names]
    wrong = [name for name in names
             if name not in listed or listed[name] != recorded.get(name, listed[name])]
    detail = "lists every file" if not wrong else f"missing there, or other than in {RECIPE}: {', '.join(wrong)}"
    return (*checks, Check(SUMS, not wrong, detail))


def _listed(folder: Path) -> Mapping[str, str]:
    """Read SHA256SUMS: file name -> digest; what cannot be read is not listed."""
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.partition("  ") for line in lines)
    return {name: digest for digest, _, name in pairs}


def _check_file(path: Path, step: str, expected: str | None) -> Check:
    if expected is None:
        return Check(path.name, False, f"{SUMS} does not say what its digest should be")
    try:
        got = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return Check(path.name, False, f"cannot be read: {error.strerror}", expected)
    return _compared(path.name, step, expected, got)


def _compared(name: str, step: str, expected: str, got: str, hint: str = "") -> Check:
    if got == expected:
        return Check(name, True, "the same bytes", expected, got)
    return Check(name, False, f"other bytes than the step '{step}' gave: expected sha256 {expected}, got {got}{hint}",
                 expected, got)


def _rebuild(folder: Path, recipe: Recipe, damaged: set[str]) -> tuple[Check, ...]:
    """Rebuild from files that are as recorded; what is damaged is not fed to native code."""
    form, names = FORMATS[recipe.compiler], recipe.kept
    absent = [name for name in form.compiler.quantises_with if not _version(name)]
    hint = _other_tools(recipe)
    needs = (names.float_model, STATISTICS, *(name for name in names.optional if name in recipe.files))
    built = Rebuild(f"candidate -> {names.model}", "quantise", names.model, needs,
                    lambda: _from_candidate(folder, recipe))

    def checked(rebuild: Rebuild) -> Check:
        bad = [file for file in rebuild.needs if file in damaged]
        if bad:
            return Check(rebuild.name, False, f"not tried: {', '.join(bad)} is damaged or missing")
        if absent:
            return Check(rebuild.name, False, f"not tried: {' and '.join(absent)} is not installed here; install "
                         f"'hil-orchestrator[{recipe.compiler}]'")
        return _attempt(rebuild.name, rebuild.step, recipe.files[rebuild.file].sha256, rebuild.make, hint)

    return tuple(checked(rebuild) for rebuild in (built, *form.rebuilds(folder, recipe)))


def _attempt(name: str, step: str, expected: str, make: Callable[[], bytes], hint: str) -> Check:
    try:
        with foreign("the rebuild", ModelError), warnings.catch_warnings():
            # The quantiser reads the tensors' names through a debugging interpreter, which warns of its memory.
            warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors", category=UserWarning)
            data = make()
    except ModelError as error:
        return Check(name, False, f"{error}{hint}", expected)
    return _compared(name, step, expected, hashlib.sha256(data).hexdigest(), hint)


def _other_tools(recipe: Recipe) -> str:
    """Say which tools are installed in another version than the one that made the bundle."""
    other = []
    for name in FORMATS[recipe.compiler].compiler.quantises_with:
        here = _version(name)
        if here and recipe.tools.get(name, here) != here:
            other.append(f"{name} {recipe.tools[name]}, here is {here}")
    return f" (the bundle was made with {' and '.join(other)})" if other else ""


def _version(distribution: str) -> str | None:
    """Return an installed version; None for what is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _from_candidate(folder: Path, recipe: Recipe) -> bytes:
    compiler, target = FORMATS[recipe.compiler].compiler, recipe.target.to_target()
    model, statistics = ((folder / name).read_bytes() for name in (recipe.kept.float_model, STATISTICS))
    schedules = (folder / SCHEDULES).read_bytes() if SCHEDULES in recipe.files else None
    layers = compiler.layers(model, target)
    quantiser = compiler.quantiser(model, statistics, layers, target, schedules=schedules)
    return quantiser.quantise(candidate_of(layers, recipe), recipe.io)
