"""Single-layer models against the runtime: what is written is what runs, in every format that is offered."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from recipes.compilers.kinds import ARITHMETIC, WEIGHTED
from recipes.compilers.shapes import CONVERSIONS, LayerShape, reduced_axes, shape_of
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.legal import STATIC_8, legal_choices
from recipes.compilers.tflite.single_layer import build_layer, example_inputs, float_model, layer_map, statistics
from recipes.ports import Array
from search.errors import InfeasibleCandidate
from search.space import FLOAT32, LayerConfig

TOKENS, IMAGE = (1, 6, 16), (1, 8, 8, 16)
SHAPES = (
    LayerShape("CONV_2D", (IMAGE,), (24, 1, 1, 16), (1, 8, 8, 24)),
    LayerShape("CONV_2D", (IMAGE,), (8, 3, 3, 16), (1, 4, 4, 8)),
    LayerShape("DEPTHWISE_CONV_2D", (IMAGE,), (1, 3, 3, 16), IMAGE),
    LayerShape("DEPTHWISE_CONV_2D", ((1, 8, 8, 1),), (1, 3, 3, 16), (1, 4, 4, 16)),
    LayerShape("FULLY_CONNECTED", ((6, 16),), (32, 16), (6, 32)),
    LayerShape("FULLY_CONNECTED", (TOKENS,), (32, 16), (1, 6, 32)),
    LayerShape("BATCH_MATMUL", ((4, 6, 16), (4, 16, 8)), None, (4, 6, 8)),
    LayerShape("SOFTMAX", (TOKENS,), None, TOKENS),
    LayerShape("MEAN", (IMAGE,), None, (1, 16)),
    LayerShape("MEAN", (TOKENS,), None, (1, 6)),
    LayerShape("SUM", (TOKENS,), None, (1, 16)),
    *(LayerShape(kind, (TOKENS, (1, 6, 1)), None, TOKENS)
      for kind in ("ADD", "SUB", "MUL", "DIV", "SQUARED_DIFFERENCE", "MAXIMUM")),
    LayerShape("ADD", (TOKENS,), (16,), TOKENS),
    *(LayerShape(kind, (TOKENS,), None, TOKENS)
      for kind in ("GELU", "LOGISTIC", "TANH", "HARD_SWISH", "RELU", "RSQRT", "SQRT")),
    *(LayerShape(kind, (TOKENS,), None, TOKENS) for kind in CONVERSIONS),
)
FORMATS = [(shape, config) for shape in SHAPES
           for config in ((FLOAT32,) if shape.kind in CONVERSIONS else legal_choices(shape.kind, "litert"))]


def named(value: object) -> str:
    if isinstance(value, LayerShape):
        return f"{value.kind}-{'x'.join(map(str, value.inputs[0]))}"
    return value.label if isinstance(value, LayerConfig) else str(value)


def run(artifact: bytes, inputs: Mapping[str, Array]) -> list[Array]:
    interpreter = Interpreter(model_content=artifact, num_threads=1)
    interpreter.allocate_tensors()
    for position, detail in enumerate(interpreter.get_input_details()):
        interpreter.set_tensor(detail["index"], inputs[f"i{position}"])
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def test_all_operators_that_a_space_may_hold_are_covered() -> None:
    covered = {shape.kind for shape in SHAPES}
    assert (set(WEIGHTED) | ARITHMETIC) - covered == {"TRANSPOSE_CONV"}


@pytest.mark.parametrize(("shape", "config"), FORMATS, ids=named)
def test_every_format_runs_and_its_copies_differ(shape: LayerShape, config: LayerConfig) -> None:
    artifact = build_layer(shape, config, 2, "litert")
    inputs = dict(example_inputs(shape, config, 2))
    first, second = run(artifact, inputs)
    assert first.shape == second.shape == shape.output
    assert not np.array_equal(first, second), "the copies share something"
    assert len(np.unique(first)) > 3, "nothing to compare"
    graph = read_graph(artifact)
    assert len([op for op in graph.operators if op.kind == shape.kind]) == 2
    if config is STATIC_8 or config.activation_bits == 8:
        assert {graph.tensors[port.tensor].dtype for port in (*graph.inputs, *graph.outputs)} == {"INT8"}
        assert len(graph.operators) == 2, "a conversion that would be counted as the layer's"


@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_a_shape_is_read_back_from_its_model(shape: LayerShape) -> None:
    model = float_model(shape, 3)
    graph = read_graph(model)
    assert [shape_of(graph, op) for op in graph.operators] == [shape] * 3
    assert LayerShape.from_json(shape.to_json()) == shape
    assert float_model(shape, 3) == model, "the bytes differ from one time to the next"
    assert {port.name for port in (*graph.inputs, *graph.outputs)} == set(statistics(shape, 3))


def test_sizes_of_known_layers() -> None:
    one, three, wide, deep = SHAPES[:4]
    assert (one.macs, one.kernel, one.stride) == (8 * 8 * 16 * 24, 1, 1)
    assert (three.macs, three.kernel, three.stride) == (4 * 4 * 16 * 8 * 9, 3, 2)
    assert (wide.macs, deep.stride) == (8 * 8 * 16 * 9, 2)
    assert SHAPES[6].macs == 4 * 6 * 16 * 8
    assert (SHAPES[7].macs, SHAPES[7].work) == (0, 96)
    assert [reduced_axes(shape) for shape in SHAPES[8:11]] == [(1, 2), (2,), (1,)]
    assert len({shape.key for shape in SHAPES}) == len(SHAPES)


@pytest.mark.parametrize(("made", "unpadded"), [(8, False), (6, True), (4, False), (3, True)])
def test_a_border_is_told_from_the_sizes(made: int, unpadded: bool) -> None:
    shape = LayerShape("CONV_2D", (IMAGE,), (8, 3, 3, 16), (1, made, made, 8))
    assert shape.is_unpadded is unpadded
    (found,) = run(float_model(shape, 1), dict(example_inputs(shape, FLOAT32, 1)))
    assert found.shape == shape.output


def test_a_linear_layer_computes_what_numpy_computes() -> None:
    shape = LayerShape("FULLY_CONNECTED", ((3, 8),), (4, 8), (3, 4))
    model = float_model(shape, 1)
    given = dict(example_inputs(shape, FLOAT32, 1))
    (found,) = run(model, given)
    basis = [run(model, {"i0": np.roll(np.eye(3, 8, dtype=np.float32), k, axis=1)})[0][0] for k in range(8)]
    bias = run(model, {"i0": np.zeros((3, 8), np.float32)})[0][0]
    weights = np.array(basis) - bias
    np.testing.assert_allclose(found, given["i0"] @ weights + bias, rtol=1e-4, atol=1e-5)


def test_an_older_runtime_is_offered_less() -> None:
    shape = SHAPES[0]
    offered = {config.label for config in layer_map(shape, 1, "tflite-runtime").space.layers[0].choices}
    assert offered == {"float32", "fp16", "weight_only_w8", "static_w8a8"}


def test_what_the_quantiser_refuses_is_infeasible() -> None:
    with pytest.raises(InfeasibleCandidate, match="the quantiser refuses"):
        build_layer(LayerShape("MAXIMUM", (TOKENS,), (16,), TOKENS), STATIC_8, 1, "litert")


def test_an_impossible_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="sizes of at least 1"):
        LayerShape("SOFTMAX", ((1, 0),), None, (1, 0))
