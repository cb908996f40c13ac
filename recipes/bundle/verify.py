"""Is a bundle what it says? Every digest, and the model rebuilt in two ways."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from recipes.boundary import foreign
from recipes.bundle.document import load_recipe
from recipes.bundle.export import rules_text
from recipes.bundle.schema import FILES, FLOAT_MODEL, MODEL, README, RECIPE, RULES, STATISTICS, SUMS, Recipe
from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.calibrate import load_statistics
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.compilers.tflite.quantise import Quantiser, quantiser_recipe
from recipes.errors import ModelError
from search.candidate import Candidate

RULES_FROM_CANDIDATE = f"candidate -> {RULES}"
MODEL_FROM_CANDIDATE = f"candidate -> {MODEL}"
MODEL_FROM_RULES = f"{RULES} -> {MODEL}"
_STEP = {FLOAT_MODEL: "convert", STATISTICS: "calibrate", RULES: "write the rules", MODEL: "quantise",
         RECIPE: "export", README: "export"}
_QUANTISERS = {"ai-edge-quantizer": "ai_edge_quantizer", "ai-edge-litert": "ai_edge_litert"}


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

    The model is rebuilt from the candidate, as the search built it, and from the rules in the
    bundle, as a production line without this program does.

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
    checks = [_check_file(folder / name, recorded.get(name) or listed.get(name)) for name in (*FILES, RECIPE, README)]
    wrong = [name for name in (*FILES, RECIPE, README)
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


def _check_file(path: Path, expected: str | None) -> Check:
    if expected is None:
        return Check(path.name, False, f"{SUMS} does not say what its digest should be")
    try:
        got = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return Check(path.name, False, f"cannot be read: {error.strerror}", expected)
    return _compared(path.name, _STEP[path.name], expected, got)


def _compared(name: str, step: str, expected: str, got: str, hint: str = "") -> Check:
    if got == expected:
        return Check(name, True, "the same bytes", expected, got)
    return Check(name, False, f"other bytes than the step '{step}' gave: expected sha256 {expected}, got {got}{hint}",
                 expected, got)


def _rebuild(folder: Path, recipe: Recipe, damaged: set[str]) -> tuple[Check, ...]:
    """Rebuild from files that are as recorded; what is damaged is not fed to native code."""
    absent = [name for name, module in _QUANTISERS.items() if find_spec(module) is None]

    def blocked(name: str, needs: tuple[str, ...]) -> Check | None:
        bad = [file for file in needs if file in damaged]
        if bad:
            return Check(name, False, f"not tried: {', '.join(bad)} is damaged or missing")
        if absent:
            return Check(name, False, f"not tried: {' and '.join(absent)} is not installed here; install "
                         "'hil-orchestrator[tflite]'")
        return None

    model, rules = recipe.files[MODEL].sha256, recipe.files[RULES].sha256
    hint = _other_tools(recipe)
    return (
        blocked(RULES_FROM_CANDIDATE, (FLOAT_MODEL,))
        or _attempt(RULES_FROM_CANDIDATE, "write the rules", rules, lambda: _rules(folder, recipe), hint),
        blocked(MODEL_FROM_CANDIDATE, (FLOAT_MODEL, STATISTICS))
        or _attempt(MODEL_FROM_CANDIDATE, "quantise", model, lambda: _from_candidate(folder, recipe), hint),
        blocked(MODEL_FROM_RULES, (FLOAT_MODEL, STATISTICS, RULES))
        or _attempt(MODEL_FROM_RULES, "quantise", model, lambda: _from_rules(folder), hint),
    )


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
    for name in _QUANTISERS:
        try:
            here = version(name)
        except PackageNotFoundError:
            continue
        if recipe.tools.get(name, here) != here:
            other.append(f"{name} {recipe.tools[name]}, here is {here}")
    return f" (the bundle was made with {' and '.join(other)})" if other else ""


def _candidate(layers: LayerMap, recipe: Recipe) -> Candidate:
    """Return a recipe's candidate on its own (narrowed) float model. Raises ValueError where it is not legal there."""
    found = recipe.to_candidate()
    return Candidate.of(layers.space, found.config_of, found.threads, calibration=found.calibration,
                        clipping=found.clipping)


def _rules(folder: Path, recipe: Recipe) -> bytes:
    layers = map_layers(read_graph(folder / FLOAT_MODEL), recipe.target.to_target())
    candidate = _candidate(layers, recipe)
    return rules_text(quantiser_recipe(layers, candidate, recipe.io))


def _from_candidate(folder: Path, recipe: Recipe) -> bytes:
    model = (folder / FLOAT_MODEL).read_bytes()
    layers = map_layers(read_graph(model), recipe.target.to_target())
    candidate = _candidate(layers, recipe)
    statistics = load_statistics((folder / STATISTICS).read_bytes())
    return Quantiser(model, statistics, layers).quantise(candidate, recipe.io)


def _from_rules(folder: Path) -> bytes:
    """Do what the bundle's README tells a production line to do."""
    from ai_edge_quantizer import Quantizer
    from ai_edge_quantizer.utils.calibration_utils import load_calibration_results

    quantizer = Quantizer(str(folder / FLOAT_MODEL), str(folder / RULES))
    if not quantizer.get_quantization_recipe():
        return (folder / FLOAT_MODEL).read_bytes()
    statistics, _ = load_calibration_results(str(folder / STATISTICS))
    result = quantizer.quantize(statistics, enable_progress_report=False, enable_progress_bar=False)
    return bytes(result.quantized_model)
