"""Every operator that is rebuilt computes what its definition says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from recipes.models.onnx.functions import FUNCTIONS
from recipes.models.onnx.layers import LAYERS
from tests.recipes.onnx.graphs import (
    Array,
    Live,
    by_definition,
    constant,
    drawn,
    image,
    model,
    one_node,
    outputs,
    saved,
)

ROW = Live((6,))
SIGNAL = Live((3, 9))
VOLUME = Live((2, 4, 4, 4))
TOKENS = Live((5, 6))


def numbers(*values: int) -> Array:
    return np.array(values, np.int64)


CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Conv", [image(), constant(4, 3, 3, 3), constant(4)], {"pads": [1, 1, 1, 1]}),
    ("Conv", [image(), constant(6, 1, 3, 3)], {"group": 3, "strides": [2, 1], "dilations": [2, 1]}),
    ("Conv", [image(), constant(4, 3, 3, 3)], {"pads": [0, 1, 2, 1]}),
    ("Conv", [image(), constant(4, 3, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [image(), constant(4, 3, 4, 4)], {"auto_pad": "SAME_LOWER"}),
    ("Conv", [SIGNAL, constant(4, 3, 3), constant(4)], {"pads": [2, 0]}),
    ("Conv", [VOLUME, constant(4, 2, 2, 2, 2)], {}),
    ("ConvTranspose", [image(), constant(3, 2, 3, 3), constant(2)],
     {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("Gemm", [ROW, constant(6, 4), constant(4)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", [ROW, constant(4, 6), constant(1)], {"transB": 1}),
    ("Gemm", [ROW, constant(4, 6)], {"transB": 1}),
    ("MatMul", [TOKENS, constant(6, 4)], {}),
    ("MatMul", [TOKENS, Live((6, 2))], {}),
    ("MatMul", [TOKENS, constant(1, 6, 3)], {}),
    ("MatMul", [constant(1, 4, 5), TOKENS], {}),
    ("MatMul", [Live((1,)), constant(1, 1)], {}),
    ("BatchNormalization", [image(), constant(3), constant(3), constant(3), constant(3) ** 2 + 0.1],
     {"epsilon": 1e-3}),
    ("BatchNormalization", [ROW, constant(6), constant(6), constant(6), constant(6) ** 2 + 0.1], {}),
    ("LayerNormalization", [TOKENS, constant(6), constant(6)], {"epsilon": 1e-3}),
    ("LayerNormalization", [TOKENS, constant(5, 6)], {"axis": 1}),
    ("PRelu", [Live((3, 2)), -constant(3, 1)], {}),
    ("PRelu", [ROW, constant(1)], {}),
    ("Gather", [constant(9, 4), Live((5,), "int64")], {}),
    ("Gather", [TOKENS, numbers(-1, 0)], {"axis": 1}),
    ("Gather", [TOKENS, np.array(2, np.int64)], {"axis": 1}),
    *((op, [image()], {}) for op in ("Abs", "Erf", "Exp", "HardSwish", "Identity", "Log", "Neg", "Reciprocal", "Relu",
                                     "Sigmoid", "Softplus", "Sqrt", "Tanh", "GlobalAveragePool", "GlobalMaxPool",
                                     "Dropout", "Gelu", "HardSigmoid", "Elu", "LeakyRelu", "Flatten")),
    ("GlobalAveragePool", [SIGNAL], {}),
    ("Flatten", [TOKENS], {"axis": -2}),
    ("Elu", [Live((4, 4))], {"alpha": 0.5}),
    ("LeakyRelu", [Live((4, 4))], {"alpha": 0.3}),
    ("HardSigmoid", [Live((4, 4))], {"alpha": 1 / 6}),
    ("Gelu", [TOKENS], {"approximate": "tanh"}),
    ("Clip", [TOKENS, np.float32(0.2), np.float32(0.7)], {}),
    ("Clip", [TOKENS, None, np.float32(0.7)], {}),
    ("Clip", [TOKENS, np.float32(0)], {}),
    ("Softmax", [TOKENS], {"axis": 1}),
    ("LogSoftmax", [TOKENS], {}),
    *((op, [TOKENS, Live((5, 6))], {}) for op in ("Add", "Sub", "Mul", "Div", "Pow", "Less", "Greater")),
    *((op, [TOKENS, constant(1, 6)], {}) for op in ("Add", "Sub", "Mul", "Div")),
    *((op, [np.float32(0.25), TOKENS], {}) for op in ("Add", "Sub", "Mul", "Div", "Pow")),
    ("Mul", [ROW, constant(1, 1, 1)], {}),
    ("Div", [Live((5,), "int64"), numbers(3)], {}),
    ("Pow", [TOKENS, np.float32(2)], {}),
    ("Equal", [Live((5,), "int64"), numbers(4)], {}),
    ("And", [Live((5,), "bool"), Live((5,), "bool")], {}),
    ("Not", [Live((5,), "bool")], {}),
    *((op, [TOKENS, Live((5, 6)), constant(6)], {}) for op in ("Max", "Min", "Sum")),
    ("Where", [Live((5, 6), "bool"), TOKENS, np.float32(-9)], {}),
    ("Concat", [TOKENS, Live((2, 6)), constant(1, 3, 6)[:1]], {"axis": 1}),
    ("Cast", [Live((5,), "int64")], {"to": 1}),
    ("Cast", [TOKENS], {"to": 9}),
    ("MaxPool", [image()], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [SIGNAL], {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}),
    ("AveragePool", [image()], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", [image()], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", [image()], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("Resize", [image(), None, np.array([1, 1, 2, 2], np.float32)], {}),
    ("Resize", [image(), None, None, numbers(1, 3, 16, 24)],
     {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("Resize", [image(), None, np.array([1, 1, 2, 1.5], np.float32)], {"mode": "linear"}),
    ("Resize", [image(), None, None, numbers(1, 3, 5, 12)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("Expand", [Live((1, 6)), numbers(1, 5, 1)], {}),
    ("Pad", [image(), numbers(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)], {}),
    ("Pad", [image(), numbers(1, 2, 0, 1), None, numbers(-1, 2)], {"mode": "reflect"}),
    ("Pad", [image(), numbers(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "edge"}),
    ("Reshape", [TOKENS, numbers(0, 3, -1)], {}),
    ("Reshape", [TOKENS, numbers(-1, 30)], {"allowzero": 1}),
    ("Slice", [TOKENS, numbers(1, 0), numbers(-1, 2**40), numbers(1, -1), numbers(1, 2)], {}),
    ("Squeeze", [Live((1, 6)), numbers(1)], {}),
    ("Unsqueeze", [TOKENS, numbers(-1, 1)], {}),
    ("Transpose", [TOKENS], {"perm": [0, 2, 1]}),
    *((op, [image(), numbers(2, 3)], {}) for op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")),
    ("ReduceMean", [image(), numbers(-1)], {"keepdims": 0}),
    ("ReduceSum", [image()], {"noop_with_empty_axes": 1}),
]


@pytest.mark.parametrize(("op", "operands", "attributes"), CASES)
def test_an_operator_computes_what_its_definition_says(op: str, operands: list[Any], attributes: dict[str, Any],
                                                       tmp_path: Path) -> None:
    operands = [np.asarray(o) if isinstance(o, np.generic) else o for o in operands]
    reference = saved(one_node(op, operands, attributes), tmp_path)
    inputs = {f"x{i}": drawn(o, 3, i) for i, o in enumerate(operands) if isinstance(o, Live)}
    if op not in ("Log", "Sqrt", "Reciprocal", "Pow"):
        inputs = {name: 2 * array - 1 if array.dtype == np.float32 else array for name, array in inputs.items()}
    (got,), (wanted,) = outputs(reference, inputs)[1], by_definition(reference, inputs)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_every_known_operator_has_a_case() -> None:
    assert {case[0] for case in CASES} | {"Split"} == FUNCTIONS | set(LAYERS)


@pytest.mark.parametrize(("operands", "attributes", "results"), [
    ([TOKENS, numbers(1, 4)], {"axis": 1}, 2),
    ([TOKENS], {"axis": 2, "num_outputs": 3}, 3),
    ([TOKENS], {"axis": 1, "num_outputs": 3}, 3),
])
def test_a_split_gives_every_part(operands: list[Any], attributes: dict[str, Any], results: int,
                                  tmp_path: Path) -> None:
    reference = saved(one_node("Split", operands, attributes, results), tmp_path)
    inputs = {"x0": drawn(TOKENS, 3, 0)}
    got, wanted = outputs(reference, inputs)[1], by_definition(reference, inputs)
    assert len(got) == results
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("operand", "held"), [(np.array(2, np.float32), []), (constant(6), ["x1"])])
def test_a_constant_number_is_no_tensor_of_the_network(operand: Array, held: list[str], tmp_path: Path) -> None:
    network, _ = outputs(saved(one_node("Mul", [TOKENS, operand], {}), tmp_path), {"x0": drawn(TOKENS, 2, 0)})
    assert [name for name, _ in network.module.named_parameters()] == held


@pytest.mark.parametrize(("opset", "op"), [(13, "ReduceMean"), (13, "ReduceMax")])
def test_axes_of_older_opsets_are_attributes(opset: int, op: str, tmp_path: Path) -> None:
    reference = saved(one_node(op, [image()], {"axes": [2, 3]}, opset=opset), tmp_path)
    inputs = {"x0": drawn(image(), 2, 0)}
    np.testing.assert_allclose(outputs(reference, inputs)[1][0], by_definition(reference, inputs)[0], rtol=1e-5)


def test_what_shapes_decide_is_folded_and_holds_for_one_example(tmp_path: Path) -> None:
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "first"], ["n"]),
             helper.make_node("Concat", ["n", "rest"], ["t"], axis=0), helper.make_node("Reshape", ["x", "t"], ["y"])]
    made = model(nodes, {"x": TOKENS}, {"first": numbers(0), "rest": numbers(-1)})
    network, got = outputs(saved(made, tmp_path), {"x": drawn(TOKENS, 3, 0)})
    np.testing.assert_array_equal(got[0], drawn(TOKENS, 3, 0).reshape(3, -1))
    with pytest.raises(ValueError, match="made for a batch of one, got 3"):
        network.module(torch.zeros(3, 5, 6))


def test_sizes_without_the_batch_hold_for_any(tmp_path: Path) -> None:
    nodes = [helper.make_node("Shape", ["x"], ["s"], start=1), helper.make_node("ReduceProd", ["s"], ["n"]),
             helper.make_node("Concat", ["any", "n"], ["t"], axis=0), helper.make_node("Reshape", ["x", "t"], ["y"])]
    network, _ = outputs(saved(model(nodes, {"x": TOKENS}, {"any": numbers(-1)}), tmp_path),
                         {"x": drawn(TOKENS, 2, 0)})
    assert network.module(torch.zeros(3, 5, 6)).shape == (3, 30)


@pytest.mark.parametrize("form", ["divided, halved at last", "multiplied, halved before"])
def test_the_parts_of_a_gelu_are_one_operator(form: str, tmp_path: Path) -> None:
    late = form.endswith("last")
    nodes = [helper.make_node("Div" if late else "Mul", ["x", "by"], ["a"]), helper.make_node("Erf", ["a"], ["b"]),
             helper.make_node("Add", ["one", "b"], ["c"])]
    nodes += [helper.make_node("Mul", ["x", "c"], ["d"]), helper.make_node("Mul", ["d", "half"], ["y"])] if late else [
        helper.make_node("Mul", ["half", "x"], ["d"]), helper.make_node("Mul", ["d", "c"], ["y"])]
    numbers_ = {"by": np.float32(2 ** 0.5 if late else 0.5 ** 0.5), "one": np.float32(1), "half": np.float32(0.5)}
    made = model(nodes, {"x": TOKENS}, {name: np.asarray(value) for name, value in numbers_.items()})
    network, got = outputs(saved(made, tmp_path), {"x": drawn(TOKENS, 2, 0)})
    assert len(network.module.steps) == 1  # type: ignore[arg-type] # a tuple of steps
    x = torch.from_numpy(drawn(TOKENS, 2, 0))
    np.testing.assert_allclose(got[0], torch.nn.functional.gelu(x).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changed", ["by", "one", "half"])
def test_what_is_no_gelu_stays_in_parts(changed: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Div", ["x", "by"], ["a"]), helper.make_node("Erf", ["a"], ["b"]),
             helper.make_node("Add", ["b", "one"], ["c"]), helper.make_node("Mul", ["x", "c"], ["d"]),
             helper.make_node("Mul", ["d", "half"], ["y"])]
    values = {"by": 2 ** 0.5, "one": 1.0, "half": 0.5}
    values[changed] *= 1.1
    made = model(nodes, {"x": TOKENS}, {name: np.array(value, np.float32) for name, value in values.items()})
    reference, inputs = saved(made, tmp_path), {"x": drawn(TOKENS, 2, 0)}
    network, got = outputs(reference, inputs)
    assert len(network.module.steps) == 5  # type: ignore[arg-type] # a tuple of steps
    np.testing.assert_allclose(got[0], by_definition(reference, inputs)[0], rtol=1e-5, atol=1e-6)


def test_a_product_and_its_sum_are_one_layer_unless_something_else_reads_between(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="/head/MatMul"),
             helper.make_node("Add", ["b", "p"], ["s"], name="/head/Add"), helper.make_node("Relu", ["s"], ["y"])]
    values = {"w": constant(6, 4), "b": constant(4)}
    alone = saved(model(nodes, {"x": TOKENS}, values), tmp_path)
    read = saved(model(nodes, {"x": TOKENS}, values, outputs=["p", "y"]), tmp_path, "read.onnx")
    inputs = {"x": drawn(TOKENS, 2, 0)}
    (one, got), (two, both) = outputs(alone, inputs), outputs(read, inputs)
    assert len(one.module.steps) == 2  # type: ignore[arg-type] # a tuple of steps
    assert len(two.module.steps) == 3  # type: ignore[arg-type] # a tuple of steps
    assert isinstance(one.module.get_submodule("head"), torch.nn.Linear)
    np.testing.assert_allclose(got[0], by_definition(alone, inputs)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both[0], by_definition(read, inputs)[0], rtol=1e-5, atol=1e-6)
