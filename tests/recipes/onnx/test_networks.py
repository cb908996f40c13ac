"""Whole networks by way of ONNX: the same outputs, the same names, and a comparison that finds what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from recipes.compilers.tflite.compiler import TfliteCompiler
from recipes.demo import networks
from recipes.errors import DataError, ModelError
from recipes.models.network import Network, load_network, parameter_count, run, settle
from recipes.models.onnx.check import check_onnx
from recipes.models.prepare import prepare
from recipes.models.source import Reference, parse_data
from tests.recipes.conversion_cases import NETWORKS
from tests.recipes.onnx.graphs import Array, Live, by_definition, constant, drawn, exported, model, outputs, saved

RECORDED = Path(__file__).with_name("recorded")
PICTURES = {"images": np.random.default_rng(0).uniform(size=(5, 1, 28, 28)).astype(np.float32)}


def paths(network: Network) -> dict[str, str]:
    """Return path -> class of what has weights, and of nothing else."""
    return {path: type(module).__name__ for path, module in network.module.named_modules()
            if list(module.parameters(recurse=False)) and path}


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize(("name", "opset"), [("residual", 13), ("separable", 17), ("transformer", 17),
                                             ("transformer", 20)])
def test_a_demo_network_computes_the_same_under_the_same_names(name: str, opset: int, free: bool,
                                                               tmp_path: Path) -> None:
    original = getattr(networks, name)()
    wanted = run(Network(original), PICTURES, True, "the images")
    reference = exported(original, PICTURES, tmp_path, opset=opset, free=free)
    network, got = outputs(reference, PICTURES)
    check_onnx(reference, network, PICTURES, True)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5, atol=1e-5)
    assert network.arguments == ("images",)
    assert network.shapes == {"images": (1, 28, 28)}
    assert network.module.one_by_one == (not free or name == "transformer")
    norms = ("BatchNorm2d",)  # the exporter folds them
    assert paths(network) == {path: kind for path, kind in paths(Network(original)).items() if kind not in norms}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_every_kind_compute_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, inputs_of = NETWORKS[name]
    original, inputs = make().eval(), inputs_of()
    settle(original, name)
    reference = exported(original, inputs, tmp_path)
    network, got = outputs(reference, inputs)
    check_onnx(reference, network, inputs, True)
    wanted = run(Network(original), inputs, True, name)
    assert network.arguments == tuple(inputs)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_used_twice_is_one(tmp_path: Path) -> None:
    make, inputs_of = NETWORKS["shared"]
    network = load_network(exported(make(), inputs_of(), tmp_path))
    assert paths(network) == {"twice": "Linear", "head": "Linear"}
    assert parameter_count(network) == 8 * 8 + 8 + 8 * 3 + 3


def test_what_the_newer_exporter_writes_is_taken_with_its_names() -> None:
    """recorded/dynamo.onnx: torch.onnx.export(dynamo=True) of PyTorch 2.13 with onnxscript 0.7, without its traces.

    Both norms have the same weights, of which the exporter keeps one.
    """
    reference = Reference("dynamo.onnx", "onnx", str(RECORDED / "dynamo.onnx"))
    inputs = {"image": drawn(Live((3, 8, 8)), 4, 0)}
    network, got = outputs(reference, inputs)
    check_onnx(reference, network, inputs, True)
    np.testing.assert_allclose(got[0], by_definition(reference, inputs)[0], rtol=1e-5, atol=1e-5)
    assert paths(network) == {"stem.0": "Conv2d", "blocks.0.norm": "LayerNorm", "blocks.0.mix": "Linear",
                              "blocks.1.norm": "LayerNorm", "blocks.1.mix": "Linear", "head": "Linear"}
    assert {step.path for step in network.module.steps if step.compute} == {  # type: ignore[union-attr] # steps
        "", "stem.2", "blocks.0", "blocks.1"}


@pytest.mark.parametrize(("names", "wanted"), [
    (["features/conv1/Conv2D", "features/conv2/Conv2D"], ["features.conv1", "features.conv2"]),
    (["Conv_0", "Conv_1"], ["Conv_0", "Conv_1"]),
    (["", ""], ["conv", "conv_1"]),
    (["/head/Conv", "/head/inner/Conv"], ["head", "head_inner"]),
    (["/head/inner/Conv", "/head/Conv"], ["head.inner", "head.conv"]),
    (["/a b/type/Conv", "/a b/type/Conv_1"], ["a_b.type_", "a_b.type__1"]),
])
def test_paths_are_those_of_the_file_and_legal(names: list[str], wanted: list[str], tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "v"], ["h"], names[0]),
             helper.make_node("Conv", ["h", "w"], ["y"], names[1])]
    made = model(nodes, {"x": Live((3, 8, 8))}, {"v": constant(3, 3, 1, 1), "w": constant(3, 3, 2, 2)})
    assert list(paths(load_network(saved(made, tmp_path)))) == wanted


def test_local_functions_are_taken_apart(tmp_path: Path) -> None:
    body = helper.make_function("own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
                                [helper.make_opsetid("", 20)])
    made = model([helper.make_node("Relu", ["x"], ["y"])], {"x": Live((4,))})
    made.graph.node[0].CopyFrom(helper.make_node("Twice", ["x"], ["y"], domain="own"))
    made.functions.append(body)
    made.opset_import.append(helper.make_opsetid("own", 1))
    inputs = {"x": drawn(Live((4,)), 2, 0)}
    np.testing.assert_array_equal(outputs(saved(made, tmp_path), inputs)[1][0], 2 * inputs["x"])


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    made = model([helper.make_node("Gemm", ["x", "w"], ["y"])], {"x": Live((4,))}, {"w": constant(4, 4)})
    onnx.save(made, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    assert (tmp_path / "net.bin").exists()
    inputs = {"x": drawn(Live((4,)), 2, 0)}
    got = outputs(Reference("net.onnx", "onnx", str(tmp_path / "net.onnx")), inputs)[1][0]
    np.testing.assert_allclose(got, inputs["x"] @ constant(4, 4), rtol=1e-5)


# The comparison with the file


def two_layers(tmp_path: Path) -> tuple[Reference, Network, dict[str, Array]]:
    nodes = [helper.make_node("Conv", ["x", "v"], ["h"], "first"), helper.make_node("Relu", ["h"], ["r"], "between"),
             helper.make_node("Conv", ["r", "w"], ["y"], "second")]
    made = model(nodes, {"x": Live((3, 8, 8))}, {"v": constant(3, 3, 1, 1), "w": constant(3, 3, 2, 2)})
    reference = saved(made, tmp_path)
    return reference, load_network(reference), {"x": drawn(Live((3, 8, 8)), 4, 0)}


@pytest.mark.parametrize("layer", ["first", "second"])
def test_a_difference_is_refused_with_its_first_node(layer: str, tmp_path: Path) -> None:
    reference, network, inputs = two_layers(tmp_path)
    check_onnx(reference, network, inputs, True)
    network.module.get_parameter(f"{layer}.weight").data *= 1.01
    with pytest.raises(ModelError, match="the output 'y' differs by .* of its range between PyTorch and ONNX's "
                                         f"reference evaluator, first at the node '{layer}' \\(Conv\\)"):
        check_onnx(reference, network, inputs, True)


def test_a_difference_that_is_not_finite_is_one(tmp_path: Path) -> None:
    reference, network, inputs = two_layers(tmp_path)
    network.module.get_parameter("second.weight").data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ModelError, match="first at the node 'second'"):
        check_onnx(reference, network, inputs, True)


@pytest.mark.parametrize(("inputs", "positional", "error", "expected"), [
    ({"x": np.zeros((2, 3, 9, 8), np.float32)}, True, DataError, "takes x (N, 3, 8, 8), got (N, 3, 9, 8)"),
    ({"x": np.zeros((2, 8, 8, 3), np.float32)}, True, DataError, "channels first"),
    ({"z": np.zeros((2, 3, 8, 8), np.float32)}, False, ModelError, "the model has the inputs x; the data have z"),
    ({"x": np.zeros((2, 3, 8, 8), np.uint8)}, True, DataError, "the model takes x float32, got x uint8"),
    ({"x": np.zeros((2, 3, 8, 8), np.float32), "z": np.zeros((2, 1), np.float32)}, False, ModelError,
     "the model has the inputs x; the data have x, z"),
])
def test_data_that_do_not_fit_are_refused(inputs: dict[str, Array], positional: bool, error: type[Exception],
                                          expected: str, tmp_path: Path) -> None:
    reference, network, _ = two_layers(tmp_path)
    with pytest.raises(error) as raised:
        check_onnx(reference, network, inputs, positional)
    assert expected in str(raised.value)


def test_the_comparison_comes_before_anything_else(tmp_path: Path) -> None:
    reference, _, _ = two_layers(tmp_path)
    (tmp_path / "bytes.py").write_text("import numpy as np\nx, y = np.ones((4, 3, 8, 8), np.uint8), [0] * 4\n"
                                       "def make(): return {'calibration': x, 'validation': (x, y), 'test': (x, y)}\n")
    with pytest.raises(DataError, match="the model takes x float32, got input uint8"):
        prepare(TfliteCompiler(), reference, parse_data("bytes.py:make", tmp_path), tmp_path / "blobs")


def test_integers_of_another_width_are_taken(tmp_path: Path) -> None:
    made = model([helper.make_node("Gather", ["table", "ids"], ["y"])], {"ids": Live((5,), "int64")},
                 {"table": constant(9, 4)})
    reference, inputs = saved(made, tmp_path), {"ids": drawn(Live((5,), "int64"), 3, 0).astype(np.int32)}
    network, got = outputs(reference, inputs)
    check_onnx(reference, network, inputs, True)
    np.testing.assert_array_equal(got[0], constant(9, 4)[inputs["ids"]])
    values = network.module.values(torch.from_numpy(inputs["ids"]))  # type: ignore[operator] # OnnxNetwork's
    assert values["ids"].dtype == torch.int64


