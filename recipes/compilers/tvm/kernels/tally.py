"""The sum of all values of a tensor: what tells results of different tiles apart."""

from __future__ import annotations

import math
from typing import Any

from recipes.compilers.tvm.kernels.parts import Shape, argument, kernel, local, viewed


def tally(name: str, shape: Shape, dtype: str) -> Any:
    """Return the kernel tensor -> its sum, (1,): int32 of integers, float32 of floats, added one by one."""
    from tvm.tirx.script import builder as tir

    total = "float32" if dtype.startswith("float") else "int32"

    def body() -> None:
        x, y = argument("x", shape, dtype), argument("y", (1,), total)
        flat, sums = viewed(x, (math.prod(shape),), dtype), local(1, total)
        tir.buffer_store(sums, tir.float32(0) if total == "float32" else tir.int32(0), [0])
        with tir.serial(0, math.prod(shape)) as i:
            tir.buffer_store(sums, sums[0] + tir.cast(flat[i], total), [0])
        tir.buffer_store(y, sums[0], [0])

    return kernel(name, body)
