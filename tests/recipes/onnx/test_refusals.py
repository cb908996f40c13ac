"""ONNX files that cannot be used: one message that says what is wrong, where, and what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from recipes.errors import ModelError
from recipes.models.network import load_network, run
from recipes.models.onnx.check import check_onnx
from recipes.models.source import Reference
from tests.recipes.onnx.graphs import Live, constant, drawn, image, model, one_node, saved

ROW = Live((6,))


def refused(reference: Reference) -> str:
    with pytest.raises(ModelError) as raised:
        load_network(reference)
    message = str(raised.value)
    assert message.startswith("net.onnx: ")
    assert "\n" not in message
    return message


def small() -> onnx.ModelProto:
    return model([helper.make_node("Gemm", ["x", "w"], ["y"], "head")], {"x": ROW}, {"w": constant(6, 3)})


# The file


def test_without_the_package_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = saved(small(), tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert refused(reference) == ("net.onnx: reading ONNX needs the package onnx, which is not installed: "
                                  "pip install 'hil-orchestrator[onnx]'")


@pytest.mark.parametrize("content", [b"", b"no model", b"\x00" * 100, "cut"])
def test_a_file_that_is_no_model_is_refused(content: bytes | str, tmp_path: Path) -> None:
    reference = saved(small(), tmp_path)
    path = Path(reference.target)
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:-30])
    message = refused(reference)
    assert "not an ONNX file, or cut short (" in message
    assert message.endswith("; export it again, or copy it whole")


def test_a_model_that_breaks_the_rules_is_refused(tmp_path: Path) -> None:
    made = small()
    made.graph.node[0].input[0] = "nowhere"
    assert "not a valid ONNX model: Nodes in a graph must be topologically sorted" in refused(saved(made, tmp_path))


@pytest.mark.parametrize("opset", [11, 99])
def test_an_opset_that_is_too_old_or_too_new_is_refused(opset: int, tmp_path: Path) -> None:
    made = small()
    made.opset_import[0].version = opset
    message = refused(saved(made, tmp_path))
    assert f"opset {opset}; expected 13 to 28: export it with opset_version=17" in message
    assert "onnx.version_converter.convert_version" in message


def test_an_older_opset_is_taken_once_it_is_converted_as_the_message_says(tmp_path: Path) -> None:
    made = one_node("Clip", [ROW, None, np.array(0.5, np.float32)], {}, opset=11)
    assert "opset 11" in refused(saved(made, tmp_path))
    load_network(saved(onnx.version_converter.convert_version(made, 17), tmp_path))


def test_weights_that_are_not_beside_it_are_named(tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    (tmp_path / "net.bin").unlink()
    message = refused(Reference("net.onnx", "onnx", str(tmp_path / "net.onnx")))
    assert f"its weights are in 'net.bin', and there is no such file in {tmp_path}; copy it there" in message


def test_weights_beside_it_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    (tmp_path / "net.bin").write_bytes(b"\x00" * 10)
    message = refused(Reference("net.onnx", "onnx", str(tmp_path / "net.onnx")))
    assert "not a valid ONNX model" in message or "reading its weights" in message or "reading the weights" in message


# Numbers


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_weights_that_are_not_float32_are_refused(kind: str, tmp_path: Path) -> None:
    made = model([helper.make_node("Gemm", ["x", "w"], ["y"])], {"x": Live((6,), kind)},
                 {"w": constant(6, 3).astype(kind)})
    message = refused(saved(made, tmp_path))
    assert f"the weights 'w' are {kind}; expected float32: export the network in float32 (call .float()" in message


def test_inputs_that_are_not_float32_are_refused(tmp_path: Path) -> None:
    message = refused(saved(one_node("Relu", [Live((6,), "float16")], {}), tmp_path))
    assert "the input 'x0' is float16; expected float32" in message


def test_a_constant_that_is_not_float32_is_refused(tmp_path: Path) -> None:
    wide = numpy_helper.from_array(np.arange(6.0))
    nodes = [helper.make_node("Constant", [], ["c"], value=wide),
             helper.make_node("Add", ["x", "c"], ["y"], "sum")]
    made = model(nodes, {"x": ROW})
    assert "(Add): its constant 'c' is float64; expected float32" in refused(saved(made, tmp_path))


def test_a_quantised_file_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "narrow"),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    made = model(nodes, {"x": ROW}, {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)})
    message = refused(saved(made, tmp_path))
    assert "the node 'narrow' (QuantizeLinear) quantises: the file is quantised already; give the float32" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    weights = constant(6, 3)
    weights[2, 1] = value
    made = model([helper.make_node("Gemm", ["x", "w"], ["y"], "head")], {"x": ROW}, {"w": weights})
    assert "head.weight has values that are not finite" in refused(saved(made, tmp_path))


# Shapes


def test_a_batch_of_several_is_refused(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], {"x": ROW}, batch=8)
    assert "the input 'x' has a batch of 8; export it with one example, or with a free first axis" in refused(
        saved(made, tmp_path))


def test_another_free_axis_is_refused(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], {"x": image()})
    made.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    assert "axis 2 of the input 'x' has no fixed size; only the first, the batch, may be free" in refused(
        saved(made, tmp_path))


def test_an_input_without_a_batch_is_refused(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], {"x": ROW})
    made.graph.input[0].type.tensor_type.shape.ClearField("dim")
    assert "the input 'x' has no batch axis; expected (1, ...) or (N, ...)" in refused(saved(made, tmp_path))


def test_an_output_that_depends_on_no_input_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["w"], ["z"])]
    made = model(nodes, {"x": ROW}, {"w": constant(2)}, outputs=["y", "z"])
    assert "the output 'z' does not depend on the inputs; remove it" in refused(saved(made, tmp_path))


# Operators


def test_unknown_operators_are_all_named_with_their_nodes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Det", ["x"], ["d"], "area"), helper.make_node("Round", ["d"], ["r"], "even"),
             helper.make_node("Round", ["r"], ["y"])]
    message = refused(saved(model(nodes, {"x": Live((3, 3))}), tmp_path))
    assert "no PyTorch for the operators Det (node 'area'), Round (node 'even'); export the network in other" in message
    assert message.endswith("give the network as FILE.py:FACTORY")


def test_operators_of_others_are_named_with_their_domain(tmp_path: Path) -> None:
    made = small()
    made.graph.node[0].domain = "com.microsoft"
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "the operators com.microsoft.Gemm (node 'head')" in refused(saved(made, tmp_path))


def test_control_flow_is_refused(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Neg", ["x"], [name])], name, [], [value])

    nodes = [helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0), helper.make_node("Cast", ["m"], ["b"], to=9),
             helper.make_node("If", ["b"], ["y"], "fork", then_branch=branch("t"), else_branch=branch("e"))]
    message = refused(saved(model(nodes, {"x": ROW}), tmp_path))
    assert "the node 'fork' (If) is control flow, and a compiled model has one path for all inputs" in message


@pytest.mark.parametrize(("op", "operands", "attributes", "expected"), [
    ("Conv", [image(), Live((3, 3, 3))], {}, "computes its weights while it runs; expected a constant"),
    ("Reshape", [ROW, Live((2,), "int64")], {}, "computes its shape while it runs"),
    ("Gemm", [Live((6,)), constant(6, 3), constant(1, 1, 3)[0][:, :2]], {}, "adds a constant of the shape (1, 2)"),
    ("Gemm", [ROW, constant(1, 3)], {"transA": 1}, "transposes its first input, the batch"),
    ("BatchNormalization", [image(), *[constant(3) ** 2] * 4], {"training_mode": 1}, "is in training mode; call"),
    ("Dropout", [ROW, np.array(0.5, np.float32), np.array(True)], {}, "is in training mode; call .eval()"),
    ("ConvTranspose", [image(), constant(3, 2, 3, 3)], {"pads": [0, 0, 1, 1]}, "expected the same on both sides"),
    ("ConvTranspose", [image(), constant(3, 2, 3, 3)], {"auto_pad": "SAME_UPPER"}, "expected the attribute pads"),
    ("LayerNormalization", [image(), constant(8), None], {"axis": 2}, "scales by the shape (8,); expected (8, 8)"),
    ("PRelu", [image(), constant(8)], {}, "has slopes of the shape (8,)"),
    ("Gather", [image(), np.zeros((2, 2), np.int64)], {"axis": 1}, "has indices of the shape (2, 2)"),
    ("Cast", [ROW], {"to": TensorProto.FLOAT16}, "casts to type 10; expected float32"),
    ("MaxPool", [image()], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, "pads (0, 0) before and (1, 1) after"),
    ("AveragePool", [image()], {"kernel_shape": [2, 2], "dilations": [2, 2]}, "has dilations (2, 2)"),
    ("Resize", [image(), None, np.array([1, 1, 2, 2], np.float32)], {"mode": "cubic"}, "by cubic, half_pixel"),
    ("Resize", [image(), None, np.array([1, 1, 1.5, 2], np.float32)], {}, "resizes (1, 3, 8, 8) to (1, 3, 12, 16)"),
    ("Pad", [image(), np.array([0, 0, 1, 1, 0, 0, 1, 1])], {"mode": "wrap"}, "pads by wrap"),
    ("Slice", [ROW, np.array([5]), np.array([0]), np.array([1]), np.array([-1])], {}, "has the steps (-1,)"),
    ("Squeeze", [Live((1, 6))], {}, "names no axes, and so takes the batch away too"),
])
def test_a_form_that_cannot_be_rebuilt_is_refused_with_its_node(op: str, operands: list[Any],
                                                                attributes: dict[str, Any], expected: str,
                                                                tmp_path: Path) -> None:
    made = one_node(op, operands, attributes)
    for output in made.graph.output:
        output.type.tensor_type.shape.SetInParent()
    message = refused(saved(made, tmp_path))
    assert f"the node 'it' ({op}) " in message
    assert expected in message


def test_where_the_maxima_are_is_not_returned(tmp_path: Path) -> None:
    made = one_node("MaxPool", [image()], {"kernel_shape": [2, 2]}, results=2)
    assert "also returns where the maxima are; expected one output" in refused(saved(made, tmp_path))


def test_what_fails_in_pytorch_is_said_with_its_node(tmp_path: Path) -> None:
    made = one_node("Reshape", [ROW, np.array([1, 4])], {})
    assert "the node 'it' (Reshape): rebuilding it in PyTorch failed with RuntimeError: shape '[1, 4]' is invalid" in (
        refused(saved(made, tmp_path)))


def test_what_takes_the_batch_away_is_refused_when_it_runs(tmp_path: Path) -> None:
    network = load_network(saved(one_node("ReduceSum", [ROW], {"keepdims": 0}), tmp_path))
    with pytest.raises(ModelError, match="keep the batch axis"):
        run(network, {"x0": drawn(ROW, 2, 0)}, True, "the inputs")


def test_what_the_reference_evaluator_cannot_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = saved(small(), tmp_path)
    network = load_network(reference)
    inputs = {"x": drawn(ROW, 2, 0)}
    check_onnx(reference, network, inputs, True)

    def broken(*given: Any, **named: Any) -> None:
        raise NotImplementedError("not here")

    monkeypatch.setattr("onnx.reference.ReferenceEvaluator.run", broken)
    with pytest.raises(ModelError, match="net.onnx: running it by ONNX's reference evaluator failed with NotImpl"):
        check_onnx(reference, network, inputs, True)
