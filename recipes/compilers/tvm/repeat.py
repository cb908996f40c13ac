"""Operators that TVM lowers itself: the float module's own calls, emitted again on other tensors; or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recipes.compilers.tvm.module import bindings_of
from recipes.compilers.tvm.network import FloatNetwork, Piece


def repeated(block: Any, network: FloatNetwork, piece: Piece, form: Callable[[int], Any]) -> Any:
    """Emit an operator's own bindings; return the last one's variable.

    Args:
        block: the BlockBuilder.
        network: whose operator it is.
        piece: the operator.
        form: a tensor of the network -> what stands for it.
    """
    bindings = bindings_of(network.module)
    inner: dict[Any, Any] = {}
    value: Any = None
    for index in piece.bindings:
        value = block.emit(_replaced(bindings[index].value, inner, lambda v: form(network.tensor_of[v])))
        inner[bindings[index].var] = value
    return value


def _replaced(value: Any, inner: Mapping[Any, Any], form: Callable[[Any], Any]) -> Any:
    """Return an expression with other variables: those of `inner`, or as `form` says."""
    from tvm import relax
    from tvm.relax import Call, Tuple

    if isinstance(value, relax.Var):
        return inner[value] if value in inner else form(value)
    if isinstance(value, Call):
        return Call(value.op, [_replaced(a, inner, form) for a in value.args], value.attrs)
    if isinstance(value, Tuple):
        return Tuple([_replaced(a, inner, form) for a in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(_replaced(value.tuple_value, inner, form), value.index)
    return value


def unmoved(network: FloatNetwork, piece: Piece) -> int | None:
    """Return the tensor that a transposition only gives back, as it was before an earlier one."""
    before = next((p for p in network.pieces if p.operator.outputs[0] in piece.inputs), None)
    if piece.operator.kind != "TRANSPOSE" or before is None or before.operator.kind != "TRANSPOSE":
        return None
    first, second = _axes(network, before), _axes(network, piece)
    return before.inputs[0] if [first[axis] for axis in second] == sorted(first) else None


def _axes(network: FloatNetwork, piece: Piece) -> list[int]:
    return [int(axis) for axis in bindings_of(network.module)[piece.bindings[0]].value.attrs.axes]
