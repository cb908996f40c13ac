"""Models of one layer, written as flatbuffers: what a board's price of that layer is measured with.

A model holds several copies of the layer side by side, each with inputs and weights of its own, so that
nothing is shared between them and what an inference costs in any case is spread over all.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from recipes.compilers.tflite.graph import Graph, Operator, Port, Tensor
from recipes.compilers.tflite.layers import LayerMap, macs
from recipes.compilers.tflite.legal import WEIGHTED, legal_choices
from recipes.compilers.tflite.quantise import Quantiser
from recipes.ports import Array
from search.candidate import Candidate
from search.space import Layer, LayerConfig, SearchSpace

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
"""What stands where neighbours differ in format: float32 to int8, and back."""
REDUCTIONS = frozenset({"MEAN", "SUM"})
_POSITIVE = frozenset({"RSQRT", "SQRT", "DIV"})
_SCALE = 1 / 32
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerShape:
    """One operator with everything that decides its work, but its numeric format."""

    kind: str
    """As the schema writes it, e.g. `CONV_2D`."""
    inputs: tuple[Shape, ...]
    """Of what is computed at run time."""
    constant: Shape | None
    """Of its weights, or of the constant that it adds or multiplies with."""
    output: Shape

    def __post_init__(self) -> None:
        shapes = (*self.inputs, self.output, *([] if self.constant is None else [self.constant]))
        if not self.inputs or any(n < 1 for shape in shapes for n in shape):
            raise ValueError(f"{self.kind}: expected inputs, and sizes of at least 1, got {shapes}")

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for operators that have none."""
        graph = graph_of(self)
        return macs(graph, graph.operators[0])

    @property
    def work(self) -> int:
        """Multiply-accumulates, or the elements that it handles."""
        return self.macs or max(math.prod(shape) for shape in (*self.inputs, self.output))

    @property
    def kernel(self) -> int:
        """Edge of a convolution's kernel; 1 for other operators."""
        return self.constant[1] if self.constant is not None and len(self.constant) == 4 else 1

    @property
    def stride(self) -> int:
        """Of a convolution, 1 for other operators; told from the sizes, since it is stored nowhere else."""
        return self._steps[0]

    @property
    def is_unpadded(self) -> bool:
        """Tell whether a convolution adds no border (the schema's VALID); told from the sizes."""
        return self._steps[1]

    @cached_property
    def _steps(self) -> tuple[int, bool]:
        """Return the stride, and whether there is no border; of what the sizes allow, the usual comes first."""
        if self.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            return 1, False
        given, made = self.inputs[0][1], self.output[1]
        for stride, bare in ((1, False), (2, False), (1, True), (2, True), (4, False), (4, True)):
            if made == (math.ceil((given - self.kernel + 1) / stride) if bare else math.ceil(given / stride)):
                return stride, bare
        return max(1, round(given / made)), False

    @cached_property
    def key(self) -> str:
        """Digest of the shape."""
        text = json.dumps([self.kind, self.inputs, self.constant, self.output], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"kind": self.kind, "inputs": [list(shape) for shape in self.inputs],
                "constant": None if self.constant is None else list(self.constant), "output": list(self.output)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerShape:
        """Read what `to_json` wrote. Raises ValueError, KeyError."""
        constant = data["constant"]
        return cls(str(data["kind"]), tuple(tuple(int(n) for n in shape) for shape in data["inputs"]),
                   None if constant is None else tuple(int(n) for n in constant),
                   tuple(int(n) for n in data["output"]))


def shape_of(graph: Graph, op: Operator) -> LayerShape:
    """Return the shape of an operator of a float model; a reduction's without the axes that it keeps as 1."""
    given = tuple(graph.tensors[t].shape for t in graph.activations(op))
    constants = [graph.tensors[t] for t in op.inputs if t >= 0 and graph.is_constant(t)]
    constant = next((t.shape for t in constants if t.dtype == "FLOAT32"), None)
    made = graph.tensors[op.outputs[0]].shape
    if op.kind in REDUCTIONS and len(made) == len(given[0]):
        made = tuple(size for size, before in zip(made, given[0], strict=True) if size == before)
    return LayerShape(op.kind, given, constant, made)


def graph_of(shape: LayerShape, copies: int = 1) -> Graph:
    """Return copies of a layer as a float graph; operator i reads the inputs `i{i}_0`, ... and writes `o{i}`."""
    tensors: list[Tensor] = []
    operators, given, made = [], [], []

    def add(name: str, dtype: str, size: Shape, constant: bool = False) -> int:
        tensors.append(Tensor(name, dtype, size, constant, len(tensors) + 1,
                              *(((_SCALE,), (0,)) if dtype == "INT8" else ())))
        return len(tensors) - 1

    for i in range(copies):
        dtype = "INT8" if shape.kind == "DEQUANTIZE" else "FLOAT32"
        inputs = [add(f"i{i}_{n}", dtype, size) for n, size in enumerate(shape.inputs)]
        given += inputs
        inputs = [*inputs, *(add(*constant, True) for constant in _constants(shape, i))]
        output = add(f"o{i}", "INT8" if shape.kind == "QUANTIZE" else "FLOAT32", shape.output)
        made.append(output)
        operators.append(Operator(i, shape.kind, tuple(inputs), (output,)))
    return Graph(tuple(tensors), tuple(operators),
                 tuple(Port(tensors[t].name, t, n) for n, t in enumerate(given)),
                 tuple(Port(tensors[t].name, t, n) for n, t in enumerate(made)))


def _constants(shape: LayerShape, copy: int) -> list[tuple[str, str, Shape]]:
    """Return name, type and size of a layer's constants, in the operator's order."""
    found: list[tuple[str, str, Shape]] = []
    if shape.constant is not None:
        found.append((f"w{copy}", "FLOAT32", shape.constant))
    if shape.kind in WEIGHTED and shape.constant is not None:
        found.append((f"b{copy}", "FLOAT32", (shape.output[-1],)))
    if shape.kind in REDUCTIONS:
        found.append((f"a{copy}", "INT32", (len(reduced_axes(shape)),)))
    return found


def reduced_axes(shape: LayerShape) -> tuple[int, ...]:
    """Return the axes over which a reduction goes, told from the sizes; the last ones where several would do.

    Raises ValueError where none would.
    """
    given, axes = shape.inputs[0], range(len(shape.inputs[0]))
    for kept in combinations(axes, len(shape.output)):
        if tuple(given[axis] for axis in kept) == shape.output:
            return tuple(axis for axis in axes if axis not in kept)
    raise ValueError(f"{shape.kind}: {shape.output} is not what is left of {given}")


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
