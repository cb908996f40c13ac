"""The constants of a kernel's call."""

from __future__ import annotations

from typing import Any

import numpy as np

from recipes.compilers.tvm.kernels.parts import joined
from recipes.ports import Array


def constants(*arrays: Array) -> Any:
    """Return them as one argument: each of its own would take 70 bytes more."""
    from tvm import relax

    return relax.const(joined(*arrays))


def constant(array: Array) -> Any:
    """Return one as an argument of its own type."""
    from tvm import relax

    return relax.const(array)


def floats(*values: float) -> Array:
    """Return float32 (n,)."""
    return np.array(values, np.float32)


def ints(*values: int) -> Array:
    """Return int32 (n,)."""
    return np.array(values, np.int32)


def finite(limits: tuple[float, float], dtype: str) -> Array:
    """Return the least and greatest result of floats of a type, (2,)."""
    ends = np.finfo(dtype)
    return np.asarray(np.clip(np.array(limits), ends.min, ends.max).astype(dtype))
