"""Float operators without weights that have kernels of our own: TVM's are many times slower."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recipes.compilers.tvm.kernels import matmul, smooth
from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.compilers.tvm.kernels.parts import Shape
from recipes.compilers.tvm.module import operator_name


@dataclass(frozen=True, slots=True)
class OwnKernel:
    """A kernel whose arguments are the operator's inputs."""

    what: str
    key: tuple[object, ...]
    make: Callable[[str], Any]


def own_kernel(value: Any, inputs: tuple[Shape, ...], made: Shape, arithmetic: Arithmetic) -> OwnKernel | None:
    """Return the kernel of an operator; None where TVM lowers it.

    Args:
        value: its call in the float module.
        inputs: shapes of what is computed before it.
        made: shape of its output.
        arithmetic: of floats.
    """
    name = operator_name(value)
    if name == "relax.matmul" and len(value.args) == len(inputs) == 2 and inputs[0][:-2] == inputs[1][:-2]:
        batch, (rows, depth), columns = math.prod(made[:-2]), inputs[0][-2:], made[-1]
        return OwnKernel("matmul_float32", (inputs, arithmetic), lambda own: matmul.matmul(
            own, batch, rows, depth, columns, arithmetic, (inputs[0], inputs[1]), made))
    if name == "relax.nn.softmax" and int(value.attrs.axis) in (-1, len(made) - 1):
        return OwnKernel("softmax_float32", (made, arithmetic), lambda own: smooth.softmax(own, made, arithmetic))
    if name == "relax.nn.gelu":
        return OwnKernel("gelu_float32", (made, arithmetic), lambda own: smooth.gelu(own, made, arithmetic))
    return None
