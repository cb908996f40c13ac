"""ONNX files for tests: made node by node, or exported from PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from recipes.models.network import Network, load_network, run
from recipes.models.source import Reference

Array = NDArray[Any]
KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32,
         "uint8": TensorProto.UINT8, "bool": TensorProto.BOOL, "float16": TensorProto.FLOAT16,
         "float64": TensorProto.DOUBLE}


@dataclass(frozen=True)
class Live:
    """An input of the network: the shape of one example, and its type."""

    shape: tuple[int, ...]
    dtype: str = "float32"


def image() -> Live:
    return Live((3, 8, 8))


def constant(*shape: int) -> Array:
    """Return numbers between -1 and 1, others for every shape."""
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def one_node(op: str, operands: Sequence[Live | Array | None], attributes: Mapping[str, Any], results: int = 1,
             opset: int = 20) -> onnx.ModelProto:
    """Return a model of one node; None leaves an operand out."""
    names = ["" if operand is None else f"x{i}" for i, operand in enumerate(operands)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(results)], name="it", **attributes)
    return model([node], {name: o for name, o in zip(names, operands, strict=True) if isinstance(o, Live)},
                 {name: o for name, o in zip(names, operands, strict=True) if isinstance(o, np.ndarray)}, opset)


def model(nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Live], constants: Mapping[str, Array] | None = None,
          opset: int = 20, batch: str | int = "n", outputs: Sequence[str] | None = None) -> onnx.ModelProto:
    """Return a model; its outputs are those of the last node."""
    taken = [helper.make_tensor_value_info(name, KINDS[live.dtype], [batch, *live.shape])
             for name, live in inputs.items()]
    given = [helper.make_empty_tensor_value_info(name) for name in outputs or nodes[-1].output]
    graph = helper.make_graph(list(nodes), "g", taken, given,
                              [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()])
    inferred = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))
    for output in inferred.graph.output:
        if not output.type.WhichOneof("value"):
            output.type.tensor_type.elem_type = TensorProto.FLOAT
    return inferred


def saved(made: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Reference:
    onnx.save(made, folder / name)
    return Reference(name, "onnx", str(folder / name), folder=str(folder))


def exported(network: torch.nn.Module, inputs: Mapping[str, Array], folder: Path, *, opset: int = 17,
             free: bool = True) -> Reference:
    """Export a network from its first example, by the exporter that needs no further package."""
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that another exporter is newer, and that shapes are constants
        torch.onnx.export(network.eval(), tuple(torch.from_numpy(array[:1]) for array in inputs.values()), path,
                          dynamo=False, opset_version=opset, input_names=list(inputs),
                          dynamic_axes={name: {0: "n"} for name in inputs} if free else None)
    return Reference(path.name, "onnx", str(path), folder=str(folder))


def drawn(live: Live, count: int, seed: int) -> Array:
    """Return inputs; numbers from 0.1 to 0.9, so that every operator is defined there."""
    numbers = np.random.default_rng(seed).uniform(0.1, 0.9, (count, *live.shape))
    return (numbers * 10 if np.dtype(live.dtype).kind in "iu" else numbers > 0.5 if live.dtype == "bool"
            else numbers).astype(live.dtype)


def outputs(reference: Reference, inputs: Mapping[str, Array]) -> tuple[Network, tuple[Array, ...]]:
    """Load a file and run it in PyTorch."""
    network = load_network(reference)
    return network, run(network, inputs, True, "the inputs")


def by_definition(reference: Reference, inputs: Mapping[str, Array]) -> list[Array]:
    """Run a file by ONNX's reference evaluator, one example at a time."""
    evaluator = ReferenceEvaluator(onnx.load(reference.target))
    rows: Any = [evaluator.run(None, {name: array[i:i + 1] for name, array in inputs.items()})
                 for i in range(len(next(iter(inputs.values()))))]
    return [np.concatenate([np.asarray(row[k]) for row in rows]) for k in range(len(rows[0]))]
