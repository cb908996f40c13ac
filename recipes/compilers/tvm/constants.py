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


def floats(*values: float) -> Array:
    """Return float32 (n,)."""
    return np.array(values, np.float32)


def ints(*values: int) -> Array:
    """Return int32 (n,)."""
    return np.array(values, np.int32)
