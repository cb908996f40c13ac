"""Which layer configurations a runtime really executes. Source: measured, docs/tflite-support.md."""

from __future__ import annotations

from collections.abc import Iterable

from recipes.compilers.kinds import ARITHMETIC
from search.space import FLOAT32, Calibration, Clipping, Layer, LayerConfig, Scheme

FP16 = LayerConfig(weight_bits=16)
WEIGHT_ONLY_8 = LayerConfig(8, 32, Scheme.WEIGHT_ONLY)
WEIGHT_ONLY_4 = LayerConfig(4, 32, Scheme.WEIGHT_ONLY)
DYNAMIC_8 = LayerConfig(8, 32, Scheme.DYNAMIC)
DYNAMIC_4 = LayerConfig(4, 32, Scheme.DYNAMIC)
STATIC_8 = LayerConfig(8, 8, Scheme.STATIC)
STATIC_4 = LayerConfig(4, 8, Scheme.STATIC)

_WIDE = (FLOAT32, FP16, WEIGHT_ONLY_8, DYNAMIC_8, STATIC_8)
_ALL = (*_WIDE, WEIGHT_ONLY_4, DYNAMIC_4, STATIC_4)

CHOICES: dict[str, tuple[LayerConfig, ...]] = {
    "CONV_2D": _ALL,
    "FULLY_CONNECTED": _ALL,
    "DEPTHWISE_CONV_2D": _WIDE,
    "TRANSPOSE_CONV": (FLOAT32, WEIGHT_ONLY_8, DYNAMIC_8, STATIC_8),
}
"""Operators with weights, on LiteRT.

Left out although the quantiser accepts them: 2-bit convolutions (NaN or a segmentation fault) and
16-bit activations (reference kernels: slower than float32 by a factor of 30, so never a speed-up).
"""

TFLITE_RUNTIME_SAFE = frozenset({FLOAT32, FP16, WEIGHT_ONLY_8, STATIC_8})
"""What tflite-runtime 2.14 computes right; its other paths give NaN, errors or wrong results."""


def legal_for_all(layers: Iterable[Layer]) -> tuple[tuple[Calibration, ...], tuple[Clipping, ...]]:
    """Return the choices for the whole network: calibration of integer activations, clipping of integer weights.

    There is one of each where no layer can have these; the first is what changes nothing.
    """
    every = [(layer, choice) for layer in layers for choice in layer.choices]
    activations = any(choice.scheme is Scheme.STATIC for _, choice in every)
    weights = any(layer.weights and choice.scheme is not Scheme.FLOAT for layer, choice in every)
    return (tuple(Calibration) if activations else (Calibration.MIN_MAX,),
            tuple(Clipping) if weights else (Clipping.NONE,))


def legal_choices(kind: str, runtime: str) -> tuple[LayerConfig, ...]:
    """Return the legal configurations of an operator, widest first; float32 alone when none is known."""
    choices = CHOICES.get(kind) or ((FLOAT32, STATIC_8) if kind in ARITHMETIC else (FLOAT32,))
    if runtime == "tflite-runtime":
        choices = tuple(c for c in choices if c in TFLITE_RUNTIME_SAFE)
    return tuple(sorted(choices, key=lambda c: c.sort_key))
