"""Scales and zero points: from float to integers, tensor by tensor and kernel by kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recipes.compilers.tvm.kernels.isa import Arithmetic
from recipes.ports import Array

LEAST = 1e-12
"""A range below this is none: its scale would not be a float."""
SHARES = np.linspace(0.3, 1.0, 71)
"""Of the scale at which the greatest weight is the greatest integer."""


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


def quantised_weights(weight: Array, bits: int, least: Array | float = 0.0) -> tuple[Array, Array]:
    """Round weights to integers, symmetric, with a scale for every kernel.

    Below 8 bits the scale is that of the least squared error: at 4 bits it loses hardly more than rounding that learns.

    Args:
        weight: (kernels, ...), float32.
        bits: of the integers.
        least: scale, (kernels,): so that a bias fits its integer.

    Returns:
        int8, of the shape of `weight`; scales float32, (kernels,).
    """
    most = 2 ** (bits - 1) - 1
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    widest = np.maximum(np.abs(flat).max(axis=1), LEAST) / most
    scales = widest
    if bits < 8:
        errors = [((_rounded(flat, share * widest, most) * (share * widest)[:, None] - flat) ** 2).sum(axis=1)
                  for share in SHARES]
        scales = SHARES[np.argmin(errors, axis=0)] * widest
    scales = np.maximum(scales, least)
    return _rounded(flat, scales, most).astype(np.int8).reshape(weight.shape), scales.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Levels:
    """Two values for a tensor: middle - half and middle + half."""

    middle: float
    half: float

    def least(self, grid: Grid, arithmetic: Arithmetic) -> int:
        """Return the least integer of a grid that stands for the greater value."""
        return int(np.clip(math.ceil(self.middle / grid.scale) + grid.zero, arithmetic.low, arithmetic.high))


def activation_levels(least: float, greatest: float) -> Levels:
    """Return the 1-bit grid of a range: the middles of its halves."""
    return Levels((least + greatest) / 2, max((greatest - least) / 4, LEAST))


def signs_of_weights(weight: Array) -> tuple[Array, Array]:
    """Return weights as signs with a scale for every kernel: its mean absolute weight (XNOR-Net, equation 6).

    Args:
        weight: (kernels, ...), float32.

    Returns:
        int8, 1 and -1, of the shape of `weight`; scales float64, (kernels,).
    """
    scales = np.abs(weight.reshape(len(weight), -1).astype(np.float64)).mean(axis=1)
    return np.where(weight > 0, 1, -1).astype(np.int8), np.asarray(scales)


def _rounded(flat: Array, scales: Array, most: int) -> Array:
    return np.asarray(np.clip(np.rint(flat / scales[:, None]), -most, most))
