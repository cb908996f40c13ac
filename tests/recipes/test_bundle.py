"""Bundles: written whole, read strictly, verified; the README's commands and the quantiser alone."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import re
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from filelock import FileLock
from pydantic import ValidationError

from recipes.blobs import BlobStore
from recipes.bundle.document import load_recipe, recipe_text
from recipes.bundle.export import export_bundle
from recipes.bundle.schema import (
    FILES as KEPT,
)
from recipes.bundle.schema import (
    BundleError,
    CandidateEntry,
    DataEntry,
    Latency,
    Measured,
    ModelEntry,
    PortEntry,
    Recipe,
    RecipeFacts,
    TargetEntry,
    recipe_schema,
)
from recipes.bundle.verify import verify_bundle
from recipes.ports import Ports
from recipes.target import Target
from search.candidate import Candidate, Recovery
from search.space import Calibration, Clipping, LayerConfig

DOCS = Path(__file__).parents[2] / "docs"
FILES = KEPT["tflite"].names
MODEL_FROM_CANDIDATE = "candidate -> model.tflite"
MODEL_FROM_RULES = "quantizer_recipe.json -> model.tflite"
RULES_FROM_CANDIDATE = "candidate -> quantizer_recipe.json"
EVERY_FILE = (*FILES, "recipe.yaml", "README.md", "SHA256SUMS")
REBUILDS = {RULES_FROM_CANDIDATE, MODEL_FROM_CANDIDATE, MODEL_FROM_RULES}
CASES = ("mixed", "int8", "transformer", "pair", "float32", "clipped")
TARGET = Target("x86_64", "litert", version("ai-edge-litert"), ("avx2",))


@dataclass(frozen=True)
class Case:
    """One artifact and what it was built from."""

    io: str
    model: bytes
    float_model: bytes
    statistics: bytes
    rules: list[dict[str, Any]]
    ports: Ports
    candidate: Candidate

    def keep(self, blobs: BlobStore) -> dict[str, Any]:
        """Store the files; return the arguments of `export_bundle`."""
        return {"artifact": blobs.put_bytes(self.model).sha256,
                "float_model": blobs.put_bytes(self.float_model).sha256,
                "statistics": blobs.put_bytes(self.statistics).sha256}


def make_cases() -> dict[str, Case]:
    """Convert and quantise, in a process of its own: the converter warns and prints."""
    import torch

    from recipes.compilers.tflite.calibrate import calibrate, clip, load_statistics
    from recipes.compilers.tflite.compiler import quantised_ports
    from recipes.compilers.tflite.convert import convert
    from recipes.compilers.tflite.graph import read_graph
    from recipes.compilers.tflite.layers import map_layers
    from recipes.compilers.tflite.quantise import Quantiser, quantiser_recipe
    from recipes.demo import networks
    from recipes.demo.data import fashion_mnist
    from recipes.models.network import Network
    from search.recipes import uniform

    class Pair(torch.nn.Module):
        """Two inputs of different kinds, two outputs."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.look = torch.nn.Conv2d(3, 4, 3)
            self.weigh = torch.nn.Linear(5, 3)

        def forward(self, image: torch.Tensor, facts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.look(image), image.mean((2, 3)) + self.weigh(facts)

    def prepared(network: torch.nn.Module, inputs: dict[str, Any], positional: bool) -> tuple[bytes, Ports, bytes]:
        model, ports = convert(Network(network), {n: a[:1] for n, a in inputs.items()}, positional)
        return model, ports, calibrate(model, ports, inputs)

    def built(float_model: bytes, ports: Ports, statistics: bytes, recipe: str | int, io: str = "float",
              clipping: Clipping = Clipping.NONE, calibration: Calibration = Calibration.MIN_MAX) -> Case:
        layers = map_layers(read_graph(float_model), TARGET)
        if isinstance(recipe, int):
            rng = np.random.default_rng(recipe)
            candidate = Candidate.of(layers.space, {x.name: x.choices[rng.integers(len(x.choices))]
                                                    for x in layers.space.layers})
        else:
            named = uniform(layers.space, recipe, 1)
            assert not isinstance(named, str)
            candidate = replace(named.candidate, clipping=clipping, calibration=calibration)
        model = Quantiser(float_model, load_statistics(statistics), layers).quantise(candidate, io)
        return Case(io, model, float_model, statistics, quantiser_recipe(layers, candidate, io),
                    quantised_ports(ports, model) if io == "int8" else ports, candidate)

    images = {"input": fashion_mnist()["calibration"][:16]}
    residual = prepared(networks.residual(), images, positional=True)
    rng = np.random.default_rng(0)
    two = {"image": rng.random((16, 3, 8, 8), np.float32), "facts": rng.random((16, 5), np.float32)}
    return {"mixed": built(*residual, 1), "int8": built(*residual, "int8", "int8"),
            "float32": built(*residual, "float32"),
            "clipped": built(residual[0], residual[1], clip(residual[0], residual[1], images, residual[2])[
                Calibration.MSE], "int4", "float", Clipping.OCTAV, Calibration.MSE),
            "transformer": built(*prepared(networks.transformer(), images, positional=True), 2),
            "pair": built(*prepared(Pair(), two, positional=False), 3, "int8")}


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Case]:
    """Made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    kept = (base if worker_id == "master" else base.parent) / "bundle_cases.pickle"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                kept.write_bytes(pickle.dumps(pool.submit(make_cases).result()))
        found: dict[str, Case] = pickle.loads(kept.read_bytes())  # noqa: S301 - written by this very test run
    return found


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def facts_of(case: Case, **changes: Any) -> RecipeFacts:
    latency = Latency(median_s=0.00231, p90_s=0.0025, ci95_s=(0.00229, 0.00233), statistic="median", budget_s=0.01,
                      probability=0.999)
    values: dict[str, Any] = {
        "study": "default", "created": datetime(2026, 3, 1, 12, 30, tzinfo=UTC), "seed": 7, "compiler": "tflite",
        "io": case.io, "target": TargetEntry.of(TARGET), "candidate": CandidateEntry.of(case.candidate),
        "prune_criterion": None,
        "model": ModelEntry(name="demo:residual", sha256="a" * 64),
        "data": DataEntry(name="demo:fashion_mnist", sha256={"calibration": "b" * 64, "validation": "c" * 64}),
        "tools": {"torch": "2.13.0", "ai-edge-quantizer": version("ai-edge-quantizer"),
                  "ai-edge-litert": version("ai-edge-litert")},
        "inputs": tuple(PortEntry.of(p) for p in case.ports.inputs),
        "outputs": tuple(PortEntry.of(p) for p in case.ports.outputs),
        "measured": (Measured(board="pi-a", kind="rpi4", runtime="litert", runtime_version="2.3.0", threads=1,
                              latency=latency, simulated=False),),
        "accuracy": {"validation": {"top1": 0.914}, "test": {"top1": 0.911}},
    }
    return RecipeFacts.model_validate({**values, **changes})


@pytest.fixture
def bundle(cases: dict[str, Case], blobs: BlobStore, tmp_path: Path) -> Path:
    """A bundle of a residual network with mixed precision."""
    return export_bundle(tmp_path / "bundle", facts_of(cases["mixed"]), blobs, **cases["mixed"].keep(blobs))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def failed(folder: Path) -> set[str]:
    return {check.name for check in verify_bundle(folder) if not check.ok}


def blocks(folder: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def python(code: str, folder: Path) -> str:
    """Run code in the folder, in a Python that cannot import from the checkout's root."""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seal(folder: Path) -> None:
    """Make every recorded digest fit the files as they are: what a careful forger does."""
    path = folder / "recipe.yaml"
    data = yaml.safe_load(path.read_text())
    for name, entry in data["files"].items():
        entry["sha256"] = sha256(folder / name)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    (folder / "SHA256SUMS").write_text(
        "".join(f"{sha256(folder / name)}  {name}\n" for name in EVERY_FILE if name != "SHA256SUMS"))


class TestExport:
    def test_holds_exactly_the_promised_files(self, bundle: Path, cases: dict[str, Case]) -> None:
        assert {path.name for path in bundle.iterdir()} == set(EVERY_FILE)
        case = cases["mixed"]
        assert (bundle / "model.tflite").read_bytes() == case.model
        assert (bundle / "float.tflite").read_bytes() == case.float_model
        assert (bundle / "calibration.json").read_bytes() == case.statistics
        assert json.loads((bundle / "quantizer_recipe.json").read_text()) == case.rules
        assert all(path.stat().st_mode & 0o400 for path in bundle.iterdir())
        assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []

    @pytest.mark.parametrize("name", CASES)
    def test_reads_back_what_was_given(self, name: str, cases: dict[str, Case], blobs: BlobStore,
                                       tmp_path: Path) -> None:
        case = cases[name]
        facts = facts_of(case)
        folder = export_bundle(tmp_path / "deep" / "er" / "bundle", facts, blobs, **case.keep(blobs))
        recipe = load_recipe(folder)
        assert {n: getattr(recipe, n) for n in RecipeFacts.model_fields} == dict(facts)
        assert {n: f.sha256 for n, f in recipe.files.items()} == {n: sha256(folder / n) for n in FILES}
        assert {n: f.size_bytes for n, f in recipe.files.items()} == {n: (folder / n).stat().st_size for n in FILES}
        assert recipe.to_candidate() == case.candidate
        assert recipe.to_ports() == case.ports
        assert recipe.target.to_target() == TARGET

    def test_a_folder_with_something_in_it_is_taken(self, bundle: Path, cases: dict[str, Case],
                                                    blobs: BlobStore) -> None:
        given = cases["int8"].keep(blobs)
        with pytest.raises(BundleError, match="the folder is not empty; choose another"):
            export_bundle(bundle, facts_of(cases["int8"]), blobs, **given)
        assert failed(bundle) == set()
        export_bundle(bundle, facts_of(cases["int8"]), blobs, **given, overwrite=True)
        assert (bundle / "model.tflite").read_bytes() == cases["int8"].model
        assert failed(bundle) == set()
        assert sorted(p.name for p in bundle.parent.iterdir()) == ["blobs", "bundle"]

    def test_overwriting_never_removes_other_files(self, bundle: Path, cases: dict[str, Case],
                                                   blobs: BlobStore) -> None:
        (bundle / "thesis.tex").write_text("years of work")
        with pytest.raises(BundleError, match=r"no part of a bundle: thesis\.tex"):
            export_bundle(bundle, facts_of(cases["mixed"]), blobs, **cases["mixed"].keep(blobs), overwrite=True)
        assert (bundle / "thesis.tex").read_text() == "years of work"

    def test_an_empty_folder_is_free_and_a_file_is_not(self, cases: dict[str, Case], blobs: BlobStore,
                                                       tmp_path: Path) -> None:
        given = cases["mixed"].keep(blobs)
        (tmp_path / "empty").mkdir()
        assert failed(export_bundle(tmp_path / "empty", facts_of(cases["mixed"]), blobs, **given)) == set()
        (tmp_path / "file").write_text("")
        with pytest.raises(BundleError, match="is a file; a bundle is a folder"):
            export_bundle(tmp_path / "file", facts_of(cases["mixed"]), blobs, **given, overwrite=True)

    @pytest.mark.parametrize("there", [False, True])
    def test_a_failed_write_leaves_nothing_and_harms_nothing(self, there: bool, cases: dict[str, Case],
                                                             blobs: BlobStore, tmp_path: Path) -> None:
        mixed, int8 = cases["mixed"], cases["int8"]
        if there:
            export_bundle(tmp_path / "bundle", facts_of(mixed), blobs, **mixed.keep(blobs))
        given = int8.keep(blobs)
        with room_for(len(int8.float_model) - 1), pytest.raises(BundleError, match="cannot be written .*see the free"):
            export_bundle(tmp_path / "bundle", facts_of(int8), blobs, **given, overwrite=True)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["blobs", *(["bundle"] if there else [])]
        if there:
            assert failed(tmp_path / "bundle") == set()
            assert (tmp_path / "bundle" / "model.tflite").read_bytes() == mixed.model

    def test_a_missing_or_damaged_blob_is_named(self, cases: dict[str, Case], blobs: BlobStore,
                                                tmp_path: Path) -> None:
        given = cases["mixed"].keep(blobs)
        path = blobs.path(given["statistics"])
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(BundleError, match=f"blob {given['statistics']} has other bytes"):
            export_bundle(tmp_path / "bundle", facts_of(cases["mixed"]), blobs, **given)
        path.unlink()
        with pytest.raises(BundleError, match=f"no blob {given['statistics']}"):
            export_bundle(tmp_path / "bundle", facts_of(cases["mixed"]), blobs, **given)
        assert not (tmp_path / "bundle").exists()

    def test_the_error_survives_a_process_boundary(self, tmp_path: Path) -> None:
        error = pickle.loads(pickle.dumps(BundleError("what", tmp_path, "do this")))  # noqa: S301 - our own bytes
        assert str(error) == f"{tmp_path}: what; do this"


@contextmanager
def room_for(size_bytes: int) -> Iterator[None]:
    """Let the kernel refuse files of more than `size_bytes`, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestVerify:
    @pytest.mark.parametrize("name", CASES)
    def test_a_good_bundle_passes_every_check(self, name: str, cases: dict[str, Case], blobs: BlobStore,
                                              tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        folder = export_bundle(tmp_path / "bundle", facts_of(cases[name]), blobs, **cases[name].keep(blobs))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # also what pytest is told to ignore: users see no warnings
            checks = verify_bundle(folder)
        assert {check.name for check in checks} == {*EVERY_FILE, *REBUILDS}
        assert [check for check in checks if not check.ok] == []
        rebuilt = {check.name: check.got for check in checks}
        assert rebuilt[MODEL_FROM_CANDIDATE] == rebuilt[MODEL_FROM_RULES] == sha256(folder / "model.tflite")
        assert capfd.readouterr().out == ""

    @pytest.mark.parametrize(("file", "broken"), [
        ("model.tflite", set()),
        ("float.tflite", REBUILDS),
        ("calibration.json", {MODEL_FROM_CANDIDATE, MODEL_FROM_RULES}),
        ("quantizer_recipe.json", {MODEL_FROM_RULES}),
        ("README.md", set()),
    ])
    @pytest.mark.parametrize("how", ["flip", "cut", "remove"])
    def test_finds_a_damaged_file(self, bundle: Path, file: str, broken: set[str], how: str) -> None:
        path = bundle / file
        expected, data = sha256(path), bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.unlink()
        if how != "remove":
            path.write_bytes(data if how == "flip" else data[:-1])
        assert failed(bundle) == {file, *broken}
        check = next(c for c in verify_bundle(bundle) if c.name == file)
        if how == "remove":
            assert (check.expected, check.got) == (expected, None)
            assert "No such file" in check.detail
        else:
            assert (check.expected, check.got) == (expected, sha256(path))
            assert f"expected sha256 {expected}, got {check.got}" in check.detail

    def test_finds_a_figure_that_was_polished(self, bundle: Path) -> None:
        path = bundle / "recipe.yaml"
        path.write_text(path.read_text().replace("median_s: 0.00231", "median_s: 0.00131"))
        assert load_recipe(bundle).measured[0].latency.median_s == 0.00131
        assert failed(bundle) == {"recipe.yaml"}

    @pytest.mark.parametrize("name", EVERY_FILE[:-1])
    def test_finds_a_changed_list_of_digests(self, bundle: Path, name: str) -> None:
        sums = bundle / "SHA256SUMS"
        whole = sums.read_text()
        sums.write_text(whole.replace(sha256(bundle / name), "0" * 64))
        assert failed(bundle) == {"SHA256SUMS" if name in FILES else name}
        sums.write_text("".join(line for line in whole.splitlines(keepends=True) if not line.endswith(f" {name}\n")))
        assert failed(bundle) == {"SHA256SUMS", *([] if name in FILES else [name])}
        sums.unlink()
        assert failed(bundle) == {"SHA256SUMS", "recipe.yaml", "README.md"}

    def test_finds_another_model_under_fitting_digests(self, bundle: Path, cases: dict[str, Case]) -> None:
        (bundle / "model.tflite").write_bytes(cases["int8"].model)
        seal(bundle)
        assert failed(bundle) == {MODEL_FROM_CANDIDATE, MODEL_FROM_RULES}
        check = next(c for c in verify_bundle(bundle) if c.name == MODEL_FROM_CANDIDATE)
        assert (check.expected, check.got) == tuple(
            hashlib.sha256(cases[name].model).hexdigest() for name in ("int8", "mixed"))
        assert "the step 'quantise' gave" in check.detail
        assert "the bundle was made with" not in check.detail

    def test_finds_other_rules_under_fitting_digests(self, bundle: Path, cases: dict[str, Case]) -> None:
        (bundle / "quantizer_recipe.json").write_text(json.dumps(cases["int8"].rules))
        seal(bundle)
        assert failed(bundle) == {RULES_FROM_CANDIDATE, MODEL_FROM_RULES}

    @pytest.mark.parametrize("file", FILES[1:])
    def test_reports_files_that_cannot_be_read_under_fitting_digests(self, bundle: Path, file: str) -> None:
        (bundle / file).write_bytes((bundle / file).read_bytes()[:-100])
        seal(bundle)
        assert failed(bundle) & REBUILDS
        assert failed(bundle) <= REBUILDS

    def test_says_which_tool_is_another_version(self, cases: dict[str, Case], blobs: BlobStore,
                                                tmp_path: Path) -> None:
        facts = facts_of(cases["mixed"], tools={"ai-edge-quantizer": "0.0.1"})
        folder = export_bundle(tmp_path / "bundle", facts, blobs, **cases["mixed"].keep(blobs))
        assert failed(folder) == set()
        (folder / "model.tflite").write_bytes(cases["int8"].model)
        seal(folder)
        details = [check.detail for check in verify_bundle(folder) if not check.ok]
        here = version("ai-edge-quantizer")
        assert len(details) == 2
        assert all(f"made with ai-edge-quantizer 0.0.1, here is {here}" in detail for detail in details)

    def test_a_layer_that_the_model_does_not_have_is_named(self, bundle: Path, cases: dict[str, Case]) -> None:
        path = bundle / "recipe.yaml"
        data = yaml.safe_load(path.read_text())
        layers = dict(cases["mixed"].candidate.layers)
        layers["extra"] = layers.pop("head")
        changed = Candidate("tflite", tuple(layers.items()), 1)
        data["candidate"] = CandidateEntry.of(changed).model_dump()
        path.write_text(yaml.safe_dump(data))
        seal(bundle)
        wrong = {check.name: check.detail for check in verify_bundle(bundle) if not check.ok}
        assert set(wrong) == {RULES_FROM_CANDIDATE, MODEL_FROM_CANDIDATE}
        assert all("unknown ['extra'], missing ['head']" in detail for detail in wrong.values())


class TestWithoutThisProgram:
    @pytest.mark.parametrize("name", [name for name in CASES if name != "float32"])
    def test_the_quantiser_alone_gives_the_same_bytes(self, name: str, cases: dict[str, Case], blobs: BlobStore,
                                                      tmp_path: Path) -> None:
        folder = export_bundle(tmp_path / "bundle", facts_of(cases[name]), blobs, **cases[name].keep(blobs))
        code = (
            "import hashlib, sys\n"
            "from ai_edge_quantizer import Quantizer\n"
            "from ai_edge_quantizer.utils.calibration_utils import load_calibration_results\n"
            "made = Quantizer('float.tflite', 'quantizer_recipe.json').quantize(\n"
            "    load_calibration_results('calibration.json')[0]).quantized_model\n"
            "ours = {'recipes', 'search', 'profilers', 'device_farm', 'orchestrator', 'torch'} & set(sys.modules)\n"
            "print('made', hashlib.sha256(made).hexdigest(), sorted(ours))\n")
        assert f"made {hashlib.sha256(cases[name].model).hexdigest()} []" in python(code, folder)

    @pytest.mark.parametrize("name", CASES)
    def test_the_readme_works_as_it_stands(self, name: str, cases: dict[str, Case], blobs: BlobStore,
                                           tmp_path: Path) -> None:
        case = cases[name]
        folder = export_bundle(tmp_path / "bundle", facts_of(case), blobs, **case.keep(blobs))
        run, *rebuild = blocks(folder, "python")
        for port in (*case.ports.inputs, *case.ports.outputs):
            assert f"{port.name!r}" in run
            assert str(port.shape) in run
        keep = "".join(f"\nnp.save('y{i}.npy', y{i})" for i in range(len(case.ports.outputs)))
        python(run + keep, tmp_path / "bundle")
        zeros = {p.source: np.zeros(pytorch_shape(p), np.float32) for p in case.ports.inputs}
        got = [np.load(folder / f"y{i}.npy") for i in range(len(case.ports.outputs))]
        for expected, port, value in zip(interpreted(case, zeros), case.ports.outputs, got, strict=True):
            wanted = np.moveaxis(expected, 1, -1) if port.channels_last else expected
            assert np.array_equal(value, wanted)
            assert np.ptp(value) > 0
        if name == "float32":
            assert rebuild == []
        else:
            assert "the same bytes" in python(rebuild[0], folder)

    @pytest.mark.parametrize("name", ["mixed", "float32"])
    def test_the_readme_finds_damage(self, name: str, cases: dict[str, Case], blobs: BlobStore,
                                     tmp_path: Path) -> None:
        folder = export_bundle(tmp_path / "bundle", facts_of(cases[name]), blobs, **cases[name].keep(blobs))
        commands = blocks(folder, "sh")
        assert len(commands) == {"mixed": 1, "float32": 2}[name]
        assert [shell(command, folder) for command in commands] == [0] * len(commands)
        (folder / "model.tflite").write_bytes(cases["int8"].model)
        assert all(shell(command, folder) != 0 for command in commands)
        if name == "mixed":
            assert "OTHER BYTES" in python(blocks(folder, "python")[1], folder)

    def test_the_readme_says_where_the_figures_come_from(self, cases: dict[str, Case], blobs: BlobStore,
                                                         tmp_path: Path) -> None:
        case = cases["int8"]
        facts = facts_of(case, target=TargetEntry.of(Target("armv7l", "tflite-runtime", "2.14.0")),
                         candidate=CandidateEntry.of(replace(case.candidate, threads=3)))
        simulated = facts.measured[0].model_copy(update={"simulated": True})
        for name, entry in (("real", facts.measured[0]), ("simulated", simulated)):
            changed = facts.model_copy(update={"measured": (entry,)})
            text = (export_bundle(tmp_path / name, changed, blobs, **case.keep(blobs)) / "README.md").read_text()
            assert ("Simulated on pi-a" in text, "Measured on pi-a" in text) == (name == "simulated", name == "real")
            assert "median 2.31 ms, 90 % within 2.5 ms, budget 10 ms (met with probability 0.999)" in text
            assert 'Interpreter("model.tflite", num_threads=3)' in text
            assert "on the board, import from `tflite_runtime.interpreter`" in text


def pytorch_shape(port: Any) -> tuple[int, ...]:
    return (port.shape[0], port.shape[-1], *port.shape[1:-1]) if port.channels_last else port.shape


def interpreted(case: Case, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """Run an artifact through its ports, as the profilers do."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=case.model)
    interpreter.allocate_tensors()
    for name, tensor in case.ports.encode(inputs).items():
        interpreter.set_tensor(interpreter.get_input_details()[int(name[1:])]["index"], tensor)
    interpreter.invoke()
    return case.ports.decode({f"o{i}": interpreter.get_tensor(d["index"])
                              for i, d in enumerate(interpreter.get_output_details())})


def shell(command: str, folder: Path) -> int:
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, timeout=60).returncode


class TestDocument:
    def test_a_cut_off_file_never_passes_for_a_whole_one(self, bundle: Path, tmp_path: Path) -> None:
        whole = (bundle / "recipe.yaml").read_text()
        (tmp_path / "cut").mkdir()
        ends = {*range(0, len(whole) - 1, 41), *range(len(whole) - 200, len(whole) - 1, 7), len(whole) - 2}
        for end in sorted(ends):
            (tmp_path / "cut" / "recipe.yaml").write_text(whole[:end])
            with pytest.raises(BundleError, match="damaged, cut off or was edited"):
                load_recipe(tmp_path / "cut")
        (tmp_path / "cut" / "recipe.yaml").write_text(whole)
        assert load_recipe(tmp_path / "cut") == load_recipe(bundle)

    @pytest.mark.parametrize(("old", "new", "message"), [
        ("schema: 5", "schema: 6", r"schema 6 is newer than this program reads \(up to 5\); upgrade hil-orchestrator"),
        ("schema: 5", "schema: 0", "schema: expected 1 to 5, got 0"),
        ("schema: 5", "schema: true", "schema: expected 1 to 5, got True"),
        ("schema: 5\n", "", "the key 'schema' is missing"),
        ("schema: 5", "schema: 2", r"candidate\.calibration, candidate\.clipping: unknown key in schema 2"),
        ("schema: 5", "schema: 1", r"candidate\.widths, candidate\.recovery, prune_criterion: unknown key in schema 1"),
        ("  calibration: min_max", "  calibration: kl", "candidate.calibration: input should be 'min_max', 'perc"),
        ("  clipping: none", "  clipping: octav", r"candidate\.id: the rest of it gives .* changed by hand"),
        ("  recovery: none", "  recovery: magic", "candidate.recovery: input should be 'none' or 'reconstruct', got"),
        ("prune_criterion: null", "prune_criterion: luck", "prune_criterion: input should be 'obs', 'magnitude', "),
        ("  widths: {}", "  widths: {stem: 8}", r"candidate\.id: the rest of it gives .* changed by hand"),
        ("seed:", "sed:", "sed: unknown key, did you mean 'seed'"),
        ("median_s:", "medain_s:", r"measured\.0\.latency\.medain_s: unknown key, did you mean 'median_s'"),
        ("  zero_point:", "  zeropoint:", r"inputs\.0\.zeropoint: unknown key, did you mean 'zero_point'"),
        ("runtime_version:", "runtimeversion:", r"target\.runtimeversion: .*did you mean 'runtime_version'"),
        ("  size_bytes:", "  sizebytes:", r"files\.model\.tflite\.sizebytes: .*did you mean 'size_bytes'"),
        ("seed: 7", "seed: '7'", "seed: .*valid integer, got '7'"),
        ("seed: 7", "seed: -7", "seed: .*greater than or equal to 0, got -7"),
        ("probability: 0.999", "probability: .nan", "probability: .*got"),
        ("top1: 0.914", "top1: .nan", r"accuracy\.validation\.top1: .*finite"),
        ("budget_s: 0.01", "budget_s: soon", "budget_s: .*valid number, got 'soon'"),
        ("12:30:00Z", "12:30:00", "created: .*timezone"),
        ("compiler: tflite", "compiler: magic", "compiler: input should be 'tflite' or 'tvm', got 'magic'"),
        ("calibration: b", "calibration: x", r"data\.sha256\.calibration: .*pattern"),
        ("  calibration.json:", "  other.json:", r"files\.other\.json: input should be 'model\.tflite'"),
        ("  calibration.json:", "  model.so:", "files: a bundle of the compiler tflite has model.tflite, "),
        ("  threads: 1", "  threads: 2", r"candidate\.id: the rest of it gives .* changed by hand"),
        ("static_w8a8", "static_w9a8", r"candidate\.layers\..*: no layer configuration is called 'static_w9a8'"),
        ("schema: 5", "schema: 5\n2026-01-01: x", "not plain keys and values"),
        ("schema: 5", "schema: [4", "not valid YAML"),
        ("schema: 5", "\x00", "not valid YAML"),
    ])
    def test_says_what_is_wrong(self, bundle: Path, old: str, new: str, message: str) -> None:
        path = bundle / "recipe.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(BundleError, match=message) as caught:
            load_recipe(bundle)
        assert str(caught.value).startswith(str(path))
        with pytest.raises(BundleError):
            verify_bundle(bundle)

    @pytest.mark.parametrize(("schema", "unknown"), [
        (1, ("  widths: {}\n", "  recovery: none\n", "prune_criterion: null\n", "  calibration: min_max\n",
             "  clipping: none\n")),
        (2, ("  calibration: min_max\n", "  clipping: none\n")),
        (3, ()),
        (4, ()),
    ])
    def test_a_bundle_of_an_earlier_schema_is_read_and_verified(self, bundle: Path, schema: int,
                                                                unknown: tuple[str, ...]) -> None:
        path, sums, now = bundle / "recipe.yaml", bundle / "SHA256SUMS", load_recipe(bundle)
        text = path.read_text()
        for new in unknown:
            assert text.count(new) == 1
            text = text.replace(new, "")
        written = hashlib.sha256(path.read_bytes()).hexdigest()
        path.write_text(text.replace("schema: 5", f"schema: {schema}", 1))
        sums.write_text(sums.read_text().replace(written, hashlib.sha256(path.read_bytes()).hexdigest()))
        assert load_recipe(bundle) == now
        assert failed(bundle) == set()

    def test_widths_and_recovery_survive(self, bundle: Path, cases: dict[str, Case], tmp_path: Path) -> None:
        candidate = replace(cases["int8"].candidate, widths=(("stem.0", 8), ("blocks.1", 24)),
                            recovery=Recovery.RECONSTRUCT)
        facts = facts_of(cases["int8"], candidate=CandidateEntry.of(candidate), prune_criterion="taylor")
        recipe = Recipe.of(facts, load_recipe(bundle).files)
        (tmp_path / "recipe.yaml").write_text(recipe_text(recipe), "utf-8")
        assert load_recipe(tmp_path) == recipe
        assert load_recipe(tmp_path).to_candidate() == candidate

    def test_what_is_no_bundle_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="no such file; give the folder that holds a bundle's"):
            load_recipe(tmp_path)
        (tmp_path / "recipe.yaml").write_text("just words")
        with pytest.raises(BundleError, match="expected keys and values, got str"):
            load_recipe(tmp_path)
        (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\xfa")
        with pytest.raises(BundleError, match="not valid YAML"):
            load_recipe(tmp_path)
        (tmp_path / "recipe.yaml").unlink()
        (tmp_path / "recipe.yaml").mkdir()
        with pytest.raises(BundleError, match="cannot be read"):
            load_recipe(tmp_path)

    def test_times_are_utc_in_the_file(self, bundle: Path, cases: dict[str, Case]) -> None:
        there = datetime(2026, 3, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
        facts = facts_of(cases["mixed"], created=there)
        recipe = Recipe.of(facts, load_recipe(bundle).files)
        assert yaml.safe_load(recipe_text(recipe))["created"] == "2026-03-01T12:30:00Z"
        with pytest.raises(ValidationError, match="timezone"):
            facts_of(cases["mixed"], created=datetime(2026, 3, 1))  # noqa: DTZ001

    def test_numbers_and_names_survive(self, bundle: Path, cases: dict[str, Case], tmp_path: Path) -> None:
        layers = {"0": "float32", "on": "fp16", "größe: x": "static_w8a8"}
        case = cases["int8"]
        candidate = Candidate("tflite", tuple((n, LayerConfig.from_label(x)) for n, x in layers.items()), 3)
        facts = facts_of(case, candidate=CandidateEntry.of(candidate),
                         accuracy={"test": {"mse": -1e-300, "1e3": 1 / 3}},
                         tools={"torch": "2.10"})
        recipe = Recipe.of(facts, load_recipe(bundle).files)
        (tmp_path / "recipe.yaml").write_text(recipe_text(recipe), "utf-8")
        assert load_recipe(tmp_path) == recipe

    def test_the_published_schema_is_current_and_fits(self, bundle: Path) -> None:
        published = json.loads((DOCS / "schemas" / "recipe.schema.json").read_text())
        assert published == recipe_schema(), "write docs/schemas/recipe.schema.json again from recipe_schema()"
        validator = jsonschema.Draft202012Validator(published)
        validator.check_schema(published)
        good = yaml.safe_load((bundle / "recipe.yaml").read_text())
        assert list(validator.iter_errors(good)) == []
        for key in good:
            assert list(validator.iter_errors({k: v for k, v in good.items() if k != key})), key
        assert list(validator.iter_errors({**good, "extra": 1}))

    def test_the_page_explains_every_key_and_its_example_works(self, bundle: Path) -> None:
        page = (DOCS / "recipe.md").read_text()
        schema = recipe_schema()
        keys = {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}
        assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
        rebuild, ours = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        check = "\nfrom pathlib import Path\nprint(rebuilt == Path('model.tflite').read_bytes())"
        assert python(rebuild + check, bundle).endswith("True\n")
        names: dict[str, Any] = {}
        code = compile(ours.replace('Path("bundle")', f"Path({str(bundle)!r})"), "docs/recipe.md", "exec")
        exec(code, names)  # noqa: S102 - the documentation's own example
        assert names["recipe"] == load_recipe(bundle)
        assert names["failed"] == []


def test_a_bundle_can_be_moved(bundle: Path, tmp_path: Path) -> None:
    moved = shutil.move(bundle, tmp_path / "elsewhere")
    assert failed(Path(moved)) == set()
