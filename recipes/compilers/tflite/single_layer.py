"""Models of one layer, written as flatbuffers: what a board's price of that layer is measured with.

A model holds several copies of the layer side by side, each with inputs and weights of its own, so that
nothing is shared between them and what an inference costs in any case is spread over all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recipes.compilers.graph import Tensor
from recipes.compilers.kinds import WEIGHTED
from recipes.compilers.layers import LayerMap
from recipes.compilers.shapes import CONVERSIONS, LayerShape, Shape, graph_of, reduced_axes
from recipes.compilers.tflite.legal import legal_choices
from recipes.compilers.tflite.quantise import Quantiser
from recipes.ports import Array
from search.candidate import Candidate
from search.space import Layer, LayerConfig, SearchSpace

_POSITIVE = frozenset({"RSQRT", "SQRT", "DIV"})


def layer_map(shape: LayerShape, copies: int, runtime: str) -> LayerMap:
    """Return copies of a layer as a search space with one variable, and what a runtime executes of it."""
    graph = graph_of(shape, copies)
    weights = math.prod(shape.constant) if shape.constant is not None and shape.kind in WEIGHTED else 0
    layer = Layer("layer", shape.kind, legal_choices(shape.kind, runtime), weights, shape.macs)
    return LayerMap(graph, SearchSpace("tflite", (layer,)), {"layer": tuple(range(copies))})


def float_model(shape: LayerShape, copies: int) -> bytes:
    """Write copies of a layer as a .tflite file; the weights are drawn, always the same for the same shape."""
    from ai_edge_litert.tools import flatbuffer_utils as flat

    schema, graph = flat.schema_fb, graph_of(shape, copies)
    dice = np.random.default_rng(int(shape.key[:16], 16))
    empty = schema.BufferT()
    buffers, tensors = [empty], []
    for tensor in graph.tensors:
        buffer = schema.BufferT()
        if tensor.constant:
            buffer.data = np.frombuffer(_values(shape, tensor, dice).tobytes(), np.uint8)
        buffers.append(buffer)
        made = schema.TensorT()
        made.name, made.shape, made.buffer = tensor.name, list(tensor.shape), tensor.buffer
        made.type, made.hasRank = getattr(schema.TensorType, tensor.dtype), True
        if tensor.scales:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = list(tensor.scales), list(tensor.zero_points)
        tensors.append(made)
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, shape.kind)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    sub, model = schema.SubGraphT(), schema.ModelT()
    sub.tensors, sub.name = tensors, "main"
    sub.inputs, sub.outputs = [p.tensor for p in graph.inputs], [p.tensor for p in graph.outputs]
    sub.operators = []
    for op in graph.operators:
        made_op = schema.OperatorT()
        made_op.opcodeIndex, made_op.inputs, made_op.outputs = 0, list(op.inputs), list(op.outputs)
        name, values = _options(shape)
        if name:
            made_op.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            made_op.builtinOptions = getattr(schema, f"{name}T")(**values)
        sub.operators.append(made_op)
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [sub], buffers
    return bytes(flat.convert_object_to_bytearray(model))


def _values(shape: LayerShape, tensor: Tensor, dice: np.random.Generator) -> Array:
    """Return a constant's values: weights that keep the variance, a positive divisor, the axes."""
    if tensor.dtype == "INT32":
        return np.array(reduced_axes(shape), np.int32)
    if shape.kind in _POSITIVE:
        return dice.uniform(0.5, 2.0, tensor.shape).astype(np.float32)
    if shape.kind == "DEPTHWISE_CONV_2D":
        fan_in = math.prod(tensor.shape[:-1])
    else:
        fan_in = math.prod(tensor.shape[1:]) if shape.macs else 1
    return np.asarray(dice.standard_normal(tensor.shape) / math.sqrt(fan_in), np.float32)


def _options(shape: LayerShape) -> tuple[str, dict[str, Any]]:
    """Return the schema's name of an operator's options, and their values."""
    stride = {"strideW": shape.stride, "strideH": shape.stride, "padding": int(shape.is_unpadded)}
    match shape.kind:
        case "CONV_2D":
            return "Conv2DOptions", stride
        case "DEPTHWISE_CONV_2D":
            return "DepthwiseConv2DOptions", {**stride, "depthMultiplier": shape.output[-1] // shape.inputs[0][-1]}
        case "FULLY_CONNECTED":
            return "FullyConnectedOptions", {"keepNumDims": len(shape.inputs[0]) > 2}
        case "BATCH_MATMUL":
            return "BatchMatMulOptions", {}
        case "SOFTMAX":
            return "SoftmaxOptions", {"beta": 1.0}
        case "MEAN" | "SUM":
            return "ReducerOptions", {"keepDims": False}
        case "ADD" | "SUB" | "MUL" | "DIV":
            return f"{shape.kind.capitalize()}Options", {}
        case "SQUARED_DIFFERENCE":
            return "SquaredDifferenceOptions", {}
        case "MAXIMUM":
            return "MaximumMinimumOptions", {}
        case "GELU":
            return "GeluOptions", {"approximate": False}
        case "HARD_SWISH":
            return "HardSwishOptions", {}
        case "QUANTIZE" | "DEQUANTIZE":
            return f"{shape.kind.capitalize()}Options", {}
    return "", {}


def statistics(shape: LayerShape, copies: int) -> dict[str, dict[str, Array]]:
    """Return the ranges that static quantisation needs: of what `example_inputs` draws, and of what comes out.

    A range that is too narrow would clip; one that is too wide costs bits, which no clock sees.
    """
    graph = graph_of(shape, copies)
    low, high = (0.5, 2.0) if shape.kind in _POSITIVE else (-4.0, 4.0)
    found: dict[str, dict[str, Array]] = {}
    for port in graph.inputs:
        found[port.name] = _range(shape.inputs[0], low, high)
    for port in graph.outputs:
        found[port.name] = _range(shape.output, *_output_range(shape))
    return found


def _range(shape: Shape, low: float, high: float) -> dict[str, Array]:
    ones = (1,) * len(shape)
    return {"min": np.full(ones, low, np.float32), "max": np.full(ones, high, np.float32)}


def _output_range(shape: LayerShape) -> tuple[float, float]:
    match shape.kind:
        case "SOFTMAX" | "LOGISTIC":
            return 0.0, 1.0
        case "TANH":
            return -1.0, 1.0
        case "RELU" | "GELU" | "HARD_SWISH":
            return -0.5, 4.0
        case "SQUARED_DIFFERENCE":
            return 0.0, 64.0
        case "MAXIMUM":  # its inputs' range, or the quantiser puts conversions before it
            return -4.0, 4.0
        case "MUL":
            return -16.0, 16.0
        case "DIV":
            return 0.25, 4.0
        case "RSQRT" | "SQRT":
            return 0.5, 2.0
        case "BATCH_MATMUL":
            wide = 6 * math.sqrt(shape.inputs[0][-1])
            return -wide, wide
        case "SUM":
            wide = 6 * math.sqrt(math.prod(shape.inputs[0]) / math.prod(shape.output))
            return -wide, wide
    return -8.0, 8.0


def build_layer(shape: LayerShape, config: LayerConfig, copies: int, runtime: str) -> bytes:
    """Return the artifact of a layer in a numeric format; a static one has int8 inputs and outputs.

    So an artifact holds no conversion but those that are the layer itself.

    Raises:
        InfeasibleCandidate: the quantiser refuses, or made something else.
    """
    model = float_model(shape, copies)
    if shape.kind in CONVERSIONS:
        return model
    layers = layer_map(shape, copies, runtime)
    candidate = Candidate.of(layers.space, {"layer": config})
    io = "int8" if config.activation_bits == 8 else "float"
    return Quantiser(model, statistics(shape, copies), layers).quantise(candidate, io)


def example_inputs(shape: LayerShape, config: LayerConfig, copies: int) -> Mapping[str, Array]:
    """Draw what one run of an artifact of `build_layer` takes: tensors `i0`, `i1`, ..."""
    dice = np.random.default_rng(int(shape.key[16:32], 16))
    static = shape.kind == "DEQUANTIZE" or (config.activation_bits == 8 and shape.kind != "QUANTIZE")

    def draw(size: Sequence[int]) -> Array:
        if static:
            return dice.integers(-100, 100, size).astype(np.int8)
        values = dice.uniform(0.5, 2.0, size) if shape.kind in _POSITIVE else np.clip(
            dice.standard_normal(size), -4, 4)
        return values.astype(np.float32)

    sizes = [size for _ in range(copies) for size in shape.inputs]
    return {f"i{position}": draw(size) for position, size in enumerate(sizes)}
