"""A user's model and data: what is accepted, and one clear message for what is not."""

from __future__ import annotations

import multiprocessing
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes.blobs import BlobStore
from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.compilers.tflite.graph import read_graph
from recipes.errors import DataError, ModelError
from recipes.models.dataset import Split, apply_metrics, check_data, check_labels, top1
from recipes.models.fit import check_shapes
from recipes.models.prepare import Prepared, prepare
from recipes.models.source import parse_data, parse_model
from search.goal import Requirement
from tests.profilers.tiny_model import dense_bytes
from tests.recipes.conversion_cases import write_archives

X = np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])
GOOD: dict[str, Any] = {"calibration": X, "validation": (X, Y), "test": (X, Y)}
HEAD = """
    import numpy as np
    import torch
    from torch import nn

    X = np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype(np.float32)
    Y = np.array([0, 1, 2, 0, 1, 2])

    def body(*more):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(4, 3), *more)

    def good():
        return body()

    def data(**changed):
        return {"calibration": X, "validation": (X, Y), "test": (X, Y), **changed}
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Where user code runs: in one spawned process, as in a search."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


class Study:
    """A folder with a user's files, and what becomes of it."""

    def __init__(self, folder: Path, pool: ProcessPoolExecutor) -> None:
        self.folder, self.pool, self.blobs = folder, pool, BlobStore(folder / "blobs")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def prepare(self, model: str = "net.py:good", data: str = "net.py:data") -> Prepared:
        references = parse_model(model, self.folder), parse_data(data, self.folder)
        return self.pool.submit(prepare, TfliteCompiler(), *references, self.blobs.root).result()


@pytest.fixture
def study(tmp_path: Path, pool: ProcessPoolExecutor) -> Study:
    made = Study(tmp_path, pool)
    made.write("net.py", HEAD)
    return made


# References


@pytest.mark.parametrize(("text", "expected"), [
    ("demo:residuall", "demo:residual, demo:separable, demo:transformer"),
    ("gone.py:make", "no such file"),
    ("gone.pt2", "no such file"),
    ("gone.onnx", "no such file"),
    ("folder.pt2", "this is a folder"),
    ("model.pt", "expected FILE.py:FACTORY"),
    ("net.py", "expected FILE.py:FACTORY"),
    ("net.py:", "expected FILE.py:FACTORY"),
    ("net.py:make()", "expected FILE.py:FACTORY"),
    ("my-net:make", "neither a .py file nor a dotted module name"),
])
def test_a_model_that_cannot_be_meant_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(ModelError, match="--model") as error:
        parse_model(text, tmp_path)
    assert expected in str(error.value)
    assert text in str(error.value)


def test_only_our_own_demo_data_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="demo:fashion_mnist"):
        parse_data("demo:mnist", tmp_path)


@pytest.mark.parametrize("text", ["search:make", "recipes.nets:make"])
def test_a_module_hidden_by_our_names_is_refused_with_the_way_out(text: str, tmp_path: Path) -> None:
    name = text.partition(":")[0].partition(".")[0]
    (tmp_path / f"{name}.py").touch()
    with pytest.raises(ModelError, match=rf"{name}\.py is hidden by this tool's own package '{name}'") as error:
        parse_model(text, tmp_path)
    assert f"name the file: {text.partition(':')[0].replace('.', '/')}.py:make" in str(error.value)


# Data


def test_arrays_of_every_kind_are_taken() -> None:
    found = check_data({"calibration": X.astype(np.float64), "validation": (X.tolist(), Y.tolist()),
                        "test": [X.astype(np.float16), Y.astype(np.uint8)], "train": None}, "d")
    assert {split.inputs["input"].dtype for split in found.splits.values()} == {np.dtype(np.float32)}
    assert (found.positional, tuple(found.metrics), set(found.splits)) == (
        True, ("top1",), {"calibration", "validation", "test"})


def test_several_inputs_keep_their_names() -> None:
    inputs = {"ids": np.zeros((4, 7), np.int64), "mask": np.ones((4, 7), bool)}
    found = check_data({"calibration": inputs, "validation": (inputs, [1] * 4), "test": (inputs, [1] * 4)}, "d")
    assert not found.positional
    assert {n: a.dtype.kind for n, a in found.splits["test"].inputs.items()} == {"ids": "i", "mask": "b"}


@pytest.mark.parametrize("name", ["top1_of_mine", "top-5", "mAP@0.5", "f1.macro", "précision"])
def test_every_metric_can_be_required(name: str) -> None:
    assert list(check_data({**GOOD, "metrics": {name: raising}}, "d").metrics) == [name]
    assert Requirement.parse(f"{name} >= -0.01").metric == name


@pytest.mark.parametrize(("wanted", "got", "positional", "expected"), [
    ({"image": (3, 8, 8)}, {"image": (3, 9, 9)}, False, "the model takes image (N, 3, 8, 8), got (N, 3, 9, 9)"),
    ({"image": (3, 8, 8)}, {"input": (8, 8, 3)}, True, "channels first"),
    ({"a": (4,), "b": (5,)}, {"b": (6,), "a": (4,)}, False, "takes b (N, 5), got (N, 6)"),
    ({"ids": (None, 4)}, {"ids": (7, 5)}, False, "takes ids (N, any, 4), got (N, 7, 5)"),
    ({"image": (3, 8, 8)}, {"image": (8,)}, False, "got (N, 8)"),
])
def test_inputs_of_the_wrong_size_are_refused(wanted: Any, got: Any, positional: bool, expected: str) -> None:
    inputs = {name: np.zeros((2, *shape), np.float32) for name, shape in got.items()}
    with pytest.raises(DataError) as error:
        check_shapes(wanted, inputs, positional, "the test inputs")
    assert str(error.value).startswith("the test inputs have the wrong size: ")
    assert expected in str(error.value)


def test_inputs_of_the_right_size_are_taken() -> None:
    inputs = {"b": np.zeros((2, 5)), "a": np.zeros((2, 7, 4))}
    check_shapes({"a": (None, 4), "b": (5,)}, inputs, False, "d")
    check_shapes({}, inputs, True, "d")
    check_shapes({"first": (5,), "second": (None, 4)}, inputs, True, "d")


def test_a_split_survives_its_file() -> None:
    split = Split({"a": X, "b": Y}, Y)
    again = Split.from_bytes(split.to_bytes())
    assert list(again.inputs) == ["a", "b"]
    assert again.targets is not None
    np.testing.assert_array_equal(again.inputs["a"], X)
    np.testing.assert_array_equal(again.targets, Y)


def nan() -> Any:
    broken = X.copy()
    broken[4, 1] = np.nan
    return broken


@pytest.mark.parametrize(("changed", "expected"), [
    ([1, 2], ["returned list", "calibration, validation and test"]),
    ({"valid": 1}, ["unknown: valid", "expected the keys calibration, validation, test"]),
    ({"calibration": X[:0]}, ["calibration", "the split is empty", "N >= 1"]),
    ({"test": (X[:0], Y[:0])}, ["test", "the split is empty"]),
    ({"validation": X}, ["validation", "expected a pair (inputs, targets)", "ndarray"]),
    ({"validation": (X, Y[:3])}, ["validation", "6 inputs but 3 targets"]),
    ({"test": (X[:, :, :2], Y)}, ["test", "(3, 2, 4)", "calibration has (3, 4, 4)", "shapes must be fixed"]),
    ({"test": ((X * 255).astype(np.uint8), Y)}, ["test", "uint8", "in calibration it is float32"]),
    ({"test": ({"image": X}, Y)}, ["test has the inputs ['image']", "calibration has ['input']"]),
    ({"calibration": nan()}, ["calibration", "not finite", "first in example 4"]),
    ({"calibration": [["a"], ["b"]]}, ["calibration", "expected an array of numbers"]),
    ({"calibration": [[1, 2], [3]]}, ["calibration", "reading list as an array"]),
    ({"calibration": 5.0}, ["calibration", "empty (shape ())"]),
    ({"calibration": {}}, ["calibration", "expected at least one input"]),
    ({"calibration": {"a": X, "b": X[:2]}}, ["different lengths", "'a': 6", "'b': 2"]),
    ({"calibration": np.array([[2**40]])}, ["calibration", "1099511627776", "32 bits"]),
    ({"metrics": 5}, ["metrics", "expected a callable", "int"]),
    ({"metrics": {}}, ["metrics", "an empty mapping"]),
    ({"metrics": {"f1": 3}}, ["metrics: f1", "expected a callable"]),
    ({"metrics": {"top 5": top1}}, ["metrics", "'top 5'"]),
    ({"metrics": {"top1": len}}, ["top1 is that of the built-in metric"]),
])
def test_malformed_data_are_refused_in_one_message(changed: Any, expected: list[str]) -> None:
    found = {**GOOD, **changed} if isinstance(changed, dict) else changed
    with pytest.raises(DataError) as error:
        check_data(found, "data.py:make")
    assert str(error.value).startswith("data.py:make")
    assert "\n" not in str(error.value)
    for part in expected:
        assert part in str(error.value)


def test_a_missing_split_is_named() -> None:
    with pytest.raises(DataError, match="missing: test; unknown: none"):
        check_data({k: v for k, v in GOOD.items() if k != "test"}, "d")


def test_metrics_see_one_output_as_an_array_and_several_as_a_tuple() -> None:
    seen: list[Any] = []

    def look(outputs: Any, targets: Any) -> float:
        seen.append(outputs)
        return 1.0

    scores = np.eye(3)[Y]
    assert apply_metrics({"look": look, "top1": top1}, (scores,), Y) == {"look": 1.0, "top1": 1.0}
    apply_metrics({"look": look}, (scores, scores), Y)
    assert isinstance(seen[0], np.ndarray)
    assert isinstance(seen[1], tuple)


def raising(outputs: Any, targets: Any) -> float:
    raise KeyError("recall")


@pytest.mark.parametrize(("metric", "expected"), [
    (lambda outputs, targets: float("nan"), "returned nan; expected a finite number"),
    (lambda outputs, targets: "good", "returned str; expected one number"),
    (raising, "failed with KeyError: 'recall'"),
])
def test_a_metric_that_gives_no_number_is_refused(metric: Any, expected: str) -> None:
    with pytest.raises(DataError, match="the metric 'mine'") as error:
        apply_metrics({"mine": metric}, (X,), Y)
    assert expected in str(error.value)


@pytest.mark.parametrize(("shape", "targets", "expected"), [
    ((6, 3), Y + 1, "3 classes (0 to 2), the targets run from 1 to 3"),
    ((6, 3), Y - 1, "the targets run from -1 to 1"),
    ((6, 3), Y.astype(np.float32), "top-1 needs outputs (N, classes) and integer targets (N,)"),
    ((6, 3, 4), Y, "give `metrics` of your own"),
    ((6, 3), np.eye(3)[Y], "targets float64 (6, 3)"),
])
def test_labels_that_do_not_fit_top1_are_refused(shape: tuple[int, ...], targets: Any, expected: str) -> None:
    with pytest.raises(DataError, match="test: ") as error:
        check_labels({"top1": top1}, shape, targets, "test")
    assert expected in str(error.value)


def test_labels_are_not_looked_at_without_top1() -> None:
    check_labels({"mine": raising}, (6, 2, 2), Y + 7, "test")


# The user's files


@pytest.mark.parametrize(("source", "error", "expected"), [
    ("", ModelError, ["net.py has no callable 'make'", "body, data, good"]),
    ("make = 5", ModelError, ["no callable 'make'"]),
    ("def make(): raise RuntimeError('no weights here')", ModelError,
     ["net.py:make() failed with RuntimeError: no weights here", "net.py:"]),
    ("def make(): raise SystemExit(4)", ModelError, ["failed with SystemExit: 4"]),
    ("def make(): return good", ModelError, ["returned function", "expected a torch.nn.Module"]),
    ("def make(", DataError, ["importing", "net.py failed with SyntaxError", "net.py:"]),
    ("import missing_module", DataError, ["ModuleNotFoundError: No module named 'missing_module'",
                                           "modules are looked for in"]),
    ("def make(): return good().double()", ModelError, ["0.weight is float64", "call .float()"]),
    ("def make(): return nn.Sequential(nn.LazyLinear(3))", ModelError, ["reading the parameters", "uninitialized"]),
    ("""
    def make():
        network = good()
        network[0].bias.data[2] = float("inf")
        return network
    """, ModelError, ["0.bias has values that are not finite"]),
    ("""
    class Broken(nn.Linear):
        def forward(self, x):
            raise IndexError("my own mistake")
    def make(): return Broken(4, 3)
    """, DataError, ["running the model on the calibration inputs (input (1, 3, 4, 4) float32)",
                     "IndexError: my own mistake", "net.py:"]),
    ("def make(): return nn.Sequential(nn.Flatten(), nn.Linear(7, 3))", DataError,
     ["the model does not take the calibration inputs (input (1, 3, 4, 4) float32)",
      "its layer '1' (Linear) takes 7 features in the last axis, got (1, 48)", "give data of the size"]),
    ("def make(): return nn.Sequential(nn.Conv2d(4, 3, 1), nn.Flatten())", DataError,
     ["its layer '0' (Conv2d) takes 4 channels in the second axis, got (1, 3, 4, 4)", "channels first"]),
    ("def make(): return nn.BatchNorm2d(5)", DataError,
     ["the network (BatchNorm2d) takes 5 channels in the second axis, got (1, 3, 4, 4)"]),
    ("""
    def make(width, depth=2, *more, name="x"): return body()
    """, ModelError, ["net.py:make: a factory is called without arguments, but make(width, depth=2, *more, name='x') "
                      "in ", "net.py:", " needs width; ", "def make(): return make(width=...)"]),
    ("""
    class make(nn.Linear):
        def __init__(self, width, *, depth):
            super().__init__(width, depth)
    """, ModelError, ["make(width, *, depth)", " needs width, depth; "]),
    ("def make(): raise ValueError('\\n one\\n\\ntwo\\nthree')", ModelError,
     ["net.py:make() failed with ValueError: one (", "; --debug shows the other 2 lines)"]),
    ("def make(): return nn.LSTM(4, 3)", DataError, ["running the model on the calibration inputs"]),
    ("""
    class Nested(nn.Linear):
        def forward(self, x):
            y = super().forward(x.flatten(1)[:, :4])
            return y, {"again": y}
    def make(): return Nested(4, 3)
    """, ModelError, ["returns tuple of Tensor, dict", "expected a tensor"]),
    ("""
    class Total(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)[:, :4]).sum()
    def make(): return Total(4, 3)
    """, ModelError, ["output 0 has the shape ()", "keep the batch axis"]),
    ("""
    class Random(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)[:, :4]) + torch.rand(len(x), 1)
    def make(): return Random(4, 3)
    """, ModelError, ["net.py:make: output 0", "must not be random"]),
    ("""
    class Mixing(nn.Linear):
        def forward(self, x):
            y = super().forward(x.flatten(1)[:, :4])
            return y - y.mean(0)
    def make(): return Mixing(4, 3)
    """, ModelError, ["must not mix the examples of a batch"]),
    ("""
    class Infinite(nn.Linear):
        def forward(self, x):
            return 1 / (super().forward(x.flatten(1)[:, :4]) * 0)
    def make(): return Infinite(4, 3)
    """, ModelError, ["output 0 is not finite (input 0)"]),
    ("""
    class Branching(nn.Linear):
        def forward(self, x):
            y = super().forward(x.flatten(1)[:, :4])
            return y if y.abs().sum() >= 0 else -y
    def make(): return Branching(4, 3)
    """, ModelError, ["net.py:", ": 'return y if y.abs().sum() >= 0 else -y' depends on the values of the inputs",
                      "write it with torch.where"]),
    ("""
    class Numpy(nn.Linear):
        def forward(self, x):
            return torch.from_numpy(super().forward(x.flatten(1)[:, :4]).numpy())
    def make(): return Numpy(4, 3)
    """, ModelError, ["the conversion (the model must pass torch.export", "net.py:"]),
])
def test_a_model_that_does_not_work_is_refused_in_one_message(
        source: str, error: type[Exception], expected: list[str], study: Study) -> None:
    study.write("net.py", textwrap.dedent(HEAD) + textwrap.dedent(source))
    with pytest.raises(error) as raised:
        study.prepare("net.py:make")
    assert "\n" not in str(raised.value)
    for part in expected:
        assert part in str(raised.value)


@pytest.mark.parametrize(("source", "expected"), [
    ("data(test=(X, Y + 1))", "net.py:given: test: labels out of range: the model has 3 classes"),
    ("data(validation=(X, Y - 1))", "net.py:given: validation: labels out of range"),
    ("data(calibration=X[:, :2], validation=(X[:, :2], Y), test=(X[:, :2], Y))",
     "its layer '0' (Conv2d) takes 3 channels in the second axis, got (1, 2, 4, 4)"),
    ("{k: tuple((v.transpose(0, 2, 3, 1), Y)) if k != 'calibration' else v.transpose(0, 2, 3, 1) for k, v in "
     "zip(data(), (X, X, X))}", "PyTorch's images are channels first, (N, C, H, W)"),
    ("1 / 0", "net.py:given() failed with ZeroDivisionError"),
    ("[X, Y]", "net.py:given returned list"),
    ("{k: ({'picture': v[0]}, v[1]) if isinstance(v, tuple) else {'picture': v} for k, v in data().items()}",
     "unexpected keyword argument 'picture'"),
])
def test_data_that_do_not_fit_the_model_are_refused(source: str, expected: str, study: Study) -> None:
    study.write("net.py", textwrap.dedent(HEAD) + f"\ndef given():\n    return {source}\n")
    with pytest.raises(DataError) as raised:
        study.prepare(data="net.py:given")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_token_ids_out_of_range_are_found_in_the_test_split_too(study: Study) -> None:
    study.write("net.py", textwrap.dedent(HEAD) + textwrap.dedent("""
        def make():
            return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))

        def ids(top):
            return np.random.default_rng(0).integers(0, top, (6, 5))

        def given():
            return {"calibration": ids(9), "validation": (ids(9), Y), "test": (ids(12), Y)}
        """))
    with pytest.raises(DataError, match="running the model on the test inputs .* IndexError"):
        study.prepare("net.py:make", "net.py:given")


def test_a_user_module_hidden_by_one_of_ours_is_said(study: Study) -> None:
    study.write("search.py", "blocks = 3")
    study.write("net.py", "from search import blocks")
    with pytest.raises(ModelError, match=r"cannot import name 'blocks'.*search\.py is hidden by this tool's own "
                                         r"package 'search': rename it"):
        study.prepare(data="demo:fashion_mnist")


def test_a_file_of_our_name_works_as_a_file_and_a_package_with_its_helper(study: Study) -> None:
    study.write("search.py", HEAD)
    assert study.prepare("search.py:good", "search.py:data").parameters == 4 * 27 + 4 + 15
    study.write("nets/__init__.py", "")
    study.write("nets/helper.py", HEAD)
    study.write("nets/tiny.py", "from shapes_beside import Y\nfrom .helper import good, data")
    study.write("shapes_beside.py", "Y = 1")
    prepared = study.prepare("nets.tiny:good", "nets.tiny:data")
    assert prepared.metric_names == ("top1",)
    assert prepared.reference is not None
    assert prepared.reference.positional
    assert prepared.model_digest == study.prepare("search.py:good", "search.py:data").model_digest


# Archives and models of TensorFlow Lite


def test_an_archive_is_taken_with_a_fixed_or_a_free_batch(study: Study, pool: ProcessPoolExecutor) -> None:
    pool.submit(write_archives, study.folder).result()
    one, free = study.prepare("one.pt2"), study.prepare("free.pt2")
    assert one.reference is not None
    assert free.reference is not None
    assert one.reference.metrics == free.reference.metrics
    assert one.parameters == free.parameters == 4 * 27 + 4 + 15
    graph = read_graph(study.blobs.path(one.float_model))
    assert [op.kind for op in graph.operators] == ["CONV_2D", "MEAN", "FULLY_CONNECTED"]
    study.write("wide.py", textwrap.dedent(HEAD).replace("size=(6, 3, 4, 4)", "size=(6, 3, 5, 5)"))
    for model in ("one.pt2", "free.pt2"):
        with pytest.raises(DataError, match=r"takes input \(N, 3, 4, 4\), got \(N, 3, 5, 5\); give data of the size"):
            study.prepare(model, "wide.py:data")
    with pytest.raises(DataError, match=r"the model takes images \(N, 1, 28, 28\), got \(N, 3, 5, 5\)"):
        study.prepare("demo:transformer", "wide.py:data")


@pytest.mark.parametrize(("name", "expected"), [
    ("eight.pt2", "exported for a batch of 8; export it with one example, or with a dynamic batch"),
    ("training.pt2", "was exported in training mode"),
    ("text.pt2", "loading"),
])
def test_archives_that_cannot_be_used_are_refused(name: str, expected: str, study: Study,
                                                  pool: ProcessPoolExecutor) -> None:
    pool.submit(write_archives, study.folder).result()
    with pytest.raises(ModelError) as raised:
        study.prepare(name)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


VECTORS = """
    import numpy as np

    def data(size=4, top=3, **changed):
        x = np.random.default_rng(0).normal(size=(8, size)).astype(np.float32)
        y = np.arange(8) % top
        return {"calibration": x, "validation": (x, y), "test": (x, y), **changed}

    def named():
        return {k: ({"x": v[0]}, v[1]) if isinstance(v, tuple) else {"x": v} for k, v in data().items()}
    def wide(): return data(size=5)
    def other(): return {k: ({"z": v[0]}, v[1]) if isinstance(v, tuple) else {"z": v} for k, v in data().items()}
    def labels(): return data(top=4)
"""


@pytest.mark.parametrize("data", ["vectors.py:data", "vectors.py:named"])
def test_a_float_tflite_is_its_own_reference(data: str, study: Study) -> None:
    study.write("vectors.py", VECTORS)
    model = dense_bytes(np.ones((3, 4), np.float32))
    (study.folder / "dense.tflite").write_bytes(model)
    prepared = study.prepare("dense.tflite", data)
    assert prepared.reference is None
    graph = read_graph(study.blobs.path(prepared.float_model))
    assert graph.tensors == read_graph(model).tensors
    assert [port.name for port in (*graph.inputs, *graph.outputs)] == ["x", "y"]
    assert (prepared.parameters, prepared.metric_names) == (12, ("top1",))
    assert prepared.ports.outputs[0].shape == (1, 3)


@pytest.mark.parametrize(("model", "data", "error", "expected"), [
    ("dense", "wide", DataError, "the model's input x is float32 (N, 4), the data are float32 (N, 5)"),
    ("dense", "other", ModelError, "the model has the inputs x, the data are a mapping with z"),
    ("dense", "labels", DataError, "labels out of range: the model has 3 classes"),
    ("batch", "data", ModelError, "expected a batch of one"),
    ("junk", "data", ModelError, "not a .tflite file"),
    ("int8", "data", ModelError, "the model is quantised already; expected the float32 model"),
])
def test_tflite_models_that_cannot_be_used_are_refused(model: str, data: str, error: type[Exception], expected: str,
                                                       study: Study) -> None:
    study.write("vectors.py", VECTORS)
    content = {"dense": dense_bytes(np.ones((3, 4), np.float32)), "batch": dense_bytes(np.ones((3, 4), np.float32), 2),
               "junk": b"PK\x03\x04 no model at all", "int8": quantised()}[model]
    (study.folder / f"{model}.tflite").write_bytes(content)
    with pytest.raises(error) as raised:
        study.prepare(f"{model}.tflite", f"vectors.py:{data}")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def quantised() -> bytes:
    """A dense layer whose weights say that they are 8-bit integers."""
    from ai_edge_litert.tools import flatbuffer_utils as flat

    parsed = flat.convert_bytearray_to_object(bytearray(dense_bytes(np.ones((3, 4), np.float32))))
    weights = parsed.subgraphs[0].tensors[1]
    weights.type = flat.TensorType.INT8
    parsed.buffers[weights.buffer].data = np.ones(12, np.uint8)
    return bytes(flat.convert_object_to_bytearray(parsed))
