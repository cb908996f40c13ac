"""Which layer configurations our kernels really compute."""

from __future__ import annotations

from search.space import FLOAT32, Calibration, Clipping, Layer, LayerConfig, Scheme

STATIC_8 = LayerConfig(8, 8, Scheme.STATIC)
STATIC_4 = LayerConfig(4, 8, Scheme.STATIC)
STATIC_2 = LayerConfig(2, 8, Scheme.STATIC)
STATIC_1 = LayerConfig(1, 1, Scheme.STATIC)
"""There is a kernel of it for what has one of 2 bits; without training it is worth nothing."""
CHOICES: dict[str, tuple[LayerConfig, ...]] = {
    "CONV_2D": (FLOAT32, STATIC_8, STATIC_4, STATIC_2), "FULLY_CONNECTED": (FLOAT32, STATIC_8, STATIC_4, STATIC_2),
    "DEPTHWISE_CONV_2D": (FLOAT32, STATIC_8), "ADD": (FLOAT32, STATIC_8)}
"""Operator -> what there is a kernel for; others are float."""


def legal_choices(kind: str) -> tuple[LayerConfig, ...]:
    """Return the legal configurations of an operator, widest first."""
    return CHOICES.get(kind, (FLOAT32,))


def trained_choices(kind: str) -> tuple[LayerConfig, ...]:
    """Return the same with one bit."""
    found = legal_choices(kind)
    return (*found, STATIC_1) if STATIC_2 in found else found


def legal_for_all(layers: list[Layer]) -> tuple[tuple[Calibration, ...], tuple[Clipping, ...]]:
    """Return the choices for the whole network: calibration of integer activations; weights are never clipped."""
    static = any(choice.scheme is Scheme.STATIC for layer in layers for choice in layer.choices)
    return (tuple(Calibration) if static else (Calibration.MIN_MAX,)), (Clipping.NONE,)
