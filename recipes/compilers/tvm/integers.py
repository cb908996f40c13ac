"""Scales and zero points: from float to integers, tensor by tensor and kernel by kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.ports import Array

LEAST = 1e-12
"""A range below this is none: its scale would not be a float."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Integers for the values of one tensor: real = (integer - zero) * scale."""

    scale: float
    zero: int


def activation_grid(least: float, greatest: float, arithmetic: Arithmetic) -> Grid:
    """Return the 8-bit grid of a range; zero is a value of it (Jacob et al. 2018, arXiv 1712.05877, equation 1)."""
    low, high = min(least, 0.0), max(greatest, 0.0)
    scale = float(np.float32(max(high - low, LEAST) / 255))
    return Grid(scale, int(np.clip(round(arithmetic.low - low / scale), arithmetic.low, arithmetic.high)))


def quantised_weights(weight: Array, bits: int) -> tuple[Array, Array]:
    """Round weights to integers, symmetric, with a scale for every kernel.

    Args:
        weight: (kernels, ...), float32.
        bits: of the integers.

    Returns:
        int8, of the shape of `weight`; scales float32, (kernels,).
    """
    most = 2 ** (bits - 1) - 1
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    scales = np.maximum(np.abs(flat).max(axis=1), LEAST) / most
    whole = np.clip(np.rint(flat / scales[:, None]), -most, most).astype(np.int8)
    return whole.reshape(weight.shape), scales.astype(np.float32)
