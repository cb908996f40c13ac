"""An ONNX file, read and found to be one that can be rebuilt: float32, one example, a known opset, no control flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.boundary import foreign
from recipes.errors import ModelError
from recipes.models.onnx.node import REMEDY, Node

if TYPE_CHECKING:
    from recipes.models.source import Reference
    from recipes.ports import Array

OLDEST, NEWEST = 13, 28
"""Opsets whose operators are known: before, axes and limits are attributes and Softmax means something else."""
EXTRA = "pip install 'hil-orchestrator[onnx]'"
INTEGERS = ("int64", "int32", "uint8", "int8", "bool")
"""Element types of inputs besides float32."""
NARROW = ("float16", "bfloat16", "float64")
"""Floats that are not float32, whatever begins with float8 or float4 besides."""
DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the network."""

    name: str
    shape: tuple[int, ...]
    """Of one example."""
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A checked file."""

    name: str
    """As the user wrote it."""
    model: Any
    """The ModelProto, with its weights, local functions inlined."""
    nodes: tuple[Node, ...]
    """In execution order."""
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    """Initialisers."""
    free_batch: bool
    """The first axis may have any size; otherwise it is 1."""


def read_onnx(reference: Reference) -> OnnxFile:
    """Read a file and check all that can be said without running it. Raises ModelError."""
    try:
        import onnx  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ModelError(f"{reference.text}: reading ONNX needs the package onnx, which is not installed: "
                         f"{EXTRA}") from error
    name, path = reference.text, Path(reference.target)
    model = _parsed(name, path)
    _check_opset(name, model)
    model = _whole(name, path, model)
    nodes = tuple(_node(name, proto) for proto in model.graph.node)
    _check_nodes(nodes)
    constants = _constants(name, model)
    inputs, free = _inputs(name, [value for value in model.graph.input if value.name not in constants])
    return OnnxFile(name, model, nodes, inputs, tuple(value.name for value in model.graph.output), constants, free)


def _parsed(name: str, path: Path) -> Any:
    """Return the file's model, without the weights that are kept beside it."""
    import onnx
    from google.protobuf.message import DecodeError

    broken, remedy = f"{name}: not an ONNX file, or cut short", "export it again, or copy it whole"
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise ModelError(f"{broken} ({error}); {remedy}") from error
    if not model.ir_version or not model.graph.node:
        raise ModelError(f"{broken} (it has no operators); {remedy}")
    return model


def _whole(name: str, path: Path, model: Any) -> Any:
    """Return a model with its weights and without local functions, found to be valid."""
    import onnx
    from onnx.checker import ValidationError
    from onnx.external_data_helper import load_external_data_for_model
    from onnx.inliner import inline_local_functions

    for location in sorted(_locations(model.graph.initializer)):
        if not (path.parent / location).is_file():
            raise ModelError(f"{name}: its weights are in {location!r}, and there is no such file in {path.parent}; "
                             "copy it there, or export with all weights in one file")
    try:
        onnx.checker.check_model(str(path))
    except ValidationError as error:
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        raise ModelError(f"{name}: not a valid ONNX model: {line}; export it again") from error
    with foreign(f"{name}: reading its weights", ModelError):
        load_external_data_for_model(model, str(path.parent))
        return inline_local_functions(model) if model.functions else model


def _locations(initialisers: Iterable[Any]) -> Iterator[str]:
    """Yield the files beside the model that hold weights."""
    for tensor in initialisers:
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def _check_opset(name: str, model: Any) -> None:
    opset = next((entry.version for entry in model.opset_import if entry.domain in DOMAINS), None)
    if opset is None or not OLDEST <= opset <= NEWEST:
        raise ModelError(f"{name}: opset {opset}; expected {OLDEST} to {NEWEST}: export it with opset_version=17, or "
                         "convert it: onnx.save(onnx.version_converter.convert_version(onnx.load(OLD), 17), NEW)")


def _node(name: str, proto: Any) -> Node:
    import onnx

    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in proto.attribute}
    scopes = next((entry.value for entry in proto.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "")
    domain = "" if proto.domain in DOMAINS else f"{proto.domain}."
    return Node(name, f"{domain}{proto.op_type}", proto.name, tuple(proto.input), tuple(proto.output), attributes,
                scopes, proto)


def _check_nodes(nodes: Iterable[Node]) -> None:
    """Refuse what no PyTorch network of ours can be."""
    import onnx

    for node in nodes:
        bare = node.op.rpartition(".")[2]
        if bare.startswith(("QLinear", "Quantize", "Dequantize", "DynamicQuantize")) \
                or bare.endswith(("Integer", "NBits")) or bare in ("QAttention", "QGemm"):
            raise ModelError(f"{node.label} quantises: the file is quantised already; give the float32 model that it "
                             "was made from, bit-widths are what is searched for")
        if any(isinstance(value, onnx.GraphProto) for value in node.attributes.values()):
            raise ModelError(f"{node.label} is control flow, and a compiled model has one path for all inputs; export "
                             f"the network without it (fixed shapes, no branches on values), or {REMEDY}")


def _constants(name: str, model: Any) -> dict[str, Array]:
    """Read the initialisers; floats must be float32."""
    import onnx

    if model.graph.sparse_initializer:
        raise ModelError(f"{name}: has sparse weights; expected dense ones: export it again without sparsity, or "
                         f"{REMEDY}")
    found: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        dtype = _dtype(tensor.data_type)
        _refuse_type(name, f"the weights {tensor.name!r} are", dtype)
        with foreign(f"{name}: reading the weights {tensor.name!r}", ModelError):
            found[tensor.name] = onnx.numpy_helper.to_array(tensor)
    return found


def _dtype(kind: int) -> str:
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except KeyError:
        return "of no known type"


def _refuse_type(name: str, what: str, dtype: str) -> None:
    if dtype in NARROW or dtype.startswith(("float8", "float4", "int4", "uint4", "int2", "uint2")):
        raise ModelError(f"{name}: {what} {dtype}; expected float32: export the network in float32 (call .float() on "
                         "it first), bit-widths are what is searched for")


def _inputs(name: str, values: list[Any]) -> tuple[tuple[Input, ...], bool]:
    """Return the inputs, and whether their first axis is free."""
    if not values:
        raise ModelError(f"{name}: has no inputs; export a network that takes some")
    found, batches = [], []
    for value in values:
        dtype = _dtype(value.type.tensor_type.elem_type)
        _refuse_type(name, f"the input {value.name!r} is", dtype)
        if dtype not in ("float32", *INTEGERS):
            raise ModelError(f"{name}: the input {value.name!r} is {dtype}; expected float32, {', '.join(INTEGERS)}")
        sizes = [axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim]
        if not sizes:
            raise ModelError(f"{name}: the input {value.name!r} has no batch axis; expected (1, ...) or (N, ...): "
                             "export it with its shape")
        if sizes[0] not in (None, 1):
            raise ModelError(f"{name}: the input {value.name!r} has a batch of {sizes[0]}; export it with one example, "
                             "or with a free first axis (dynamic_axes or dynamic_shapes of torch.onnx.export)")
        free = [axis for axis, size in enumerate(sizes) if axis and not size]
        if free:
            raise ModelError(f"{name}: axis {free[0]} of the input {value.name!r} has no fixed size; only the first, "
                             "the batch, may be free: export it with the size that the network will run on")
        found.append(Input(value.name, tuple(size for size in sizes[1:] if size), np.dtype(dtype)))
        batches.append(sizes[0])
    return tuple(found), all(batch is None for batch in batches)
