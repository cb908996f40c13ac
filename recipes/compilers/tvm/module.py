"""PyTorch network -> float Relax module, channels last, by torch.export and TVM's own importer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from recipes.compilers.channels_last import WRAPPED, exporting, wrapped
from recipes.compress.fold import fold
from recipes.errors import ModelError
from recipes.models.network import Network
from recipes.ports import Array, Ports, PortSpec

if TYPE_CHECKING:
    import torch

SCHEMA = 1
LAYOUTS = {"relax.nn.conv2d": ["NHWC", "OHWI"]}
_SOURCES: Mapping[str, str] = {
    "convolution": "relax.nn.conv2d", "conv2d": "relax.nn.conv2d", "addmm": "relax.matmul", "mm": "relax.matmul",
    "bmm": "relax.matmul", "matmul": "relax.matmul", "linear": "relax.matmul", "add": "relax.add",
    "sub": "relax.subtract", "mul": "relax.multiply", "div": "relax.divide", "mean": "relax.mean",
    "sum": "relax.sum", "_softmax": "relax.nn.softmax", "softmax": "relax.nn.softmax", "gelu": "relax.nn.gelu",
    "sigmoid": "relax.sigmoid", "tanh": "relax.tanh", "hardswish": "relax.nn.hardswish",
    "native_layer_norm": "relax.nn.layer_norm", "layer_norm": "relax.nn.layer_norm"}
"""Operator of an exported graph -> what the importer makes of it, in the same order."""


@dataclass(frozen=True)
class FloatModule:
    """A float model as it was read."""

    module: Any
    """The IRModule; its only function is `main`."""
    paths: tuple[str, ...]
    """PyTorch module path of every binding of `main`; `` where it is not known."""


def convert(network: Network, example: Mapping[str, Array], positional: bool) -> tuple[bytes, Ports]:
    """Convert a network to a float Relax module with a batch of one; see Compiler.convert.

    Batch normalisations are folded before, and two-dimensional convolutions and poolings are channels last after.
    """
    import torch

    own = wrapped(network, example, positional, lambda *given: fold(*given).network)
    with exporting():
        program = torch.export.export(own.module, own.sample).run_decompositions()
        imported = _imported(program)
    return _document(imported, program), _ports(imported, own.names, own.last_in, own.last_out)


@lru_cache(maxsize=8)
def read_module(model: bytes) -> FloatModule:
    """Read a float model. Raises ValueError when it is none, or of another version."""
    import tvm

    try:
        document = json.loads(model)
        schema = document["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("not a float model of the compiler tvm") from error
    if schema != SCHEMA:
        raise ValueError(f"a float model of the compiler tvm with schema {schema}; expected {SCHEMA}")
    return FloatModule(tvm.ir.load_json(document["module"]), tuple(document["paths"]))


def bindings_of(module: Any) -> list[Any]:
    """Return the bindings of `main`, in execution order."""
    return [binding for block in module["main"].body.blocks for binding in block.bindings]


def operator_name(value: Any) -> str:
    """Return `relax.nn.conv2d` and the like; `` for what is no call of an operator."""
    name = getattr(getattr(value, "op", None), "name", "")
    return str(name)


def is_constant(value: Any) -> bool:
    """Tell whether an argument is known before the first run."""
    from tvm import relax

    return isinstance(value, relax.Constant)


def _imported(program: torch.export.ExportedProgram) -> Any:
    """Import an exported program, and make it channels last. Raises ModelError naming an unknown operator."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend.torch import from_exported_program

    try:
        module = from_exported_program(program, run_ep_decomposition=False)
    except AssertionError as error:
        if "Unsupported function types" in str(error):
            raise ModelError(f"TVM cannot import {_unsupported(str(error), program)}") from error
        raise
    passes = [relax.transform.DecomposeOpsForInference(), relax.transform.CanonicalizeBindings(),
              relax.transform.FoldConstant(), relax.transform.ConvertLayout(LAYOUTS), relax.transform.FoldConstant(),
              relax.transform.CanonicalizeBindings(), relax.transform.DeadCodeElimination()]
    return tvm.transform.Sequential(passes)(_convertible(module))


def _convertible(module: Any) -> Any:
    """Write what `ConvertLayout` cannot do in other words.

    What clips becomes a maximum and a minimum: these are made channels last, `clip` is not. The axes of `squeeze` count
    from the first one: from the last it dies.
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Words(PyExprMutator):  # type: ignore[misc] # TVM has no types
        def visit_call_(self, call: Any) -> Any:
            found = super().visit_call_(call)
            if operator_name(found) == "relax.squeeze" and found.attrs.axis is not None:
                rank = len(found.args[0].ty.shape)
                return relax.op.squeeze(found.args[0], [int(axis) % rank for axis in found.attrs.axis])
            if operator_name(found) != "relax.clip":
                return found
            given, low, high = found.args
            above = self.builder_.emit(relax.op.maximum(given, relax.const(float(low.value), "float32")))
            return relax.op.minimum(above, relax.const(float(high.value), "float32"))

    words = Words(module)
    words.builder_.update_func(module.get_global_var("main"), words.visit_expr(module["main"]))
    return words.builder_.get()


def _unsupported(message: str, program: torch.export.ExportedProgram) -> str:
    """Name operators and layers of an importer's complaint."""
    named = [f"{_operator(node)} (layer {_path(node) or 'of the network itself'})" for node in _calls(program)
             if str(node.target) in message or _operator(node) in message]
    return ", ".join(dict.fromkeys(named)) or message


def _document(module: Any, program: torch.export.ExportedProgram) -> bytes:
    import tvm

    return json.dumps({"schema": SCHEMA, "module": tvm.ir.save_json(module),
                       "paths": _paths(module, program)}).encode()


def _paths(module: Any, program: torch.export.ExportedProgram) -> list[str]:
    """Name the binding of every operator by the module that called it.

    The importer keeps the order of the exported graph; operators of a kind of which it made more or fewer than there
    were have no name.
    """
    parameters = {spec.arg.name for spec in program.graph_signature.input_specs if spec.target is not None}
    given: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for node in _calls(program):
        if (name := _SOURCES.get(_operator(node))) is not None:
            given[name, _reads_parameter(node, parameters)].append(_path(node))
    bindings = bindings_of(module)
    made: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for index, binding in enumerate(bindings):
        name = operator_name(binding.value)
        if name in _SOURCES.values():
            made[name, any(map(is_constant, binding.value.args))].append(index)
    paths = [""] * len(bindings)
    for key, indices in made.items():
        if len(given[key]) == len(indices):
            for index, path in zip(indices, given[key], strict=True):
                paths[index] = path
    return paths


def _calls(program: torch.export.ExportedProgram) -> Iterable[Any]:
    return (node for node in program.graph.nodes if node.op == "call_function")


def _operator(node: Any) -> str:
    """Return `convolution` of `aten.convolution.default`."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _path(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix(f"{WRAPPED}.") if path != WRAPPED else ""


def _reads_parameter(node: Any, parameters: Iterable[str]) -> bool:
    """Tell whether an operand is a parameter, through operators that only move it."""
    for argument in node.all_input_nodes:
        while argument.op == "call_function" and len(argument.all_input_nodes) == 1:
            argument = argument.all_input_nodes[0]
        if argument.name in parameters:
            return True
    return False


def _ports(module: Any, names: tuple[str, ...], last_in: tuple[bool, ...],
           last_out: tuple[bool, ...]) -> Ports:
    main = module["main"]
    made = main.ret_ty.fields
    return Ports(
        tuple(_port(name, i, name, param.ty, last)
              for i, (name, param, last) in enumerate(zip(names, main.params, last_in, strict=True))),
        tuple(_port(f"output_{i}", i, str(i), ty, last) for i, (ty, last) in enumerate(zip(made, last_out,
                                                                                          strict=True))))


def _port(name: str, position: int, source: str, ty: Any, last: bool) -> PortSpec:
    return PortSpec(name, position, source, tuple(int(n) for n in ty.shape), str(ty.dtype), last)
