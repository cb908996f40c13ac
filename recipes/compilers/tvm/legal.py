"""Which layer configurations our kernels really compute."""

from __future__ import annotations

from search.space import FLOAT32, Calibration, Clipping, Layer, LayerConfig, Scheme

FLOAT16 = LayerConfig(weight_bits=16)
"""Weights, sums and results are float16."""
STATIC_8 = LayerConfig(8, 8, Scheme.STATIC)
STATIC_4 = LayerConfig(4, 8, Scheme.STATIC)
STATIC_2 = LayerConfig(2, 8, Scheme.STATIC)
STATIC_1 = LayerConfig(1, 1, Scheme.STATIC)
"""Convolutions and linear layers have a kernel of it; without training it is worth nothing."""
_WEIGHTED = (FLOAT32, FLOAT16, STATIC_8, STATIC_4, STATIC_2)
CHOICES: dict[str, tuple[LayerConfig, ...]] = {
    "CONV_2D": _WEIGHTED, "FULLY_CONNECTED": _WEIGHTED, "DEPTHWISE_CONV_2D": _WEIGHTED,
    "ADD": (FLOAT32, FLOAT16, STATIC_8)}
"""Operator -> what there is a kernel for; others are float."""
_SIGNED = frozenset({"CONV_2D", "FULLY_CONNECTED"})


def legal_choices(kind: str, half: bool = False) -> tuple[LayerConfig, ...]:
    """Return the legal configurations of an operator, widest first; float16 where the processor computes it."""
    return tuple(choice for choice in CHOICES.get(kind, (FLOAT32,)) if half or choice != FLOAT16)


def trained_choices(kind: str, half: bool = False) -> tuple[LayerConfig, ...]:
    """Return the same with one bit."""
    found = legal_choices(kind, half)
    return (*found, STATIC_1) if kind in _SIGNED else found


def legal_for_all(layers: list[Layer]) -> tuple[tuple[Calibration, ...], tuple[Clipping, ...]]:
    """Return the choices for the whole network: calibration of integer activations; weights are never clipped."""
    static = any(choice.scheme is Scheme.STATIC for layer in layers for choice in layer.choices)
    return (tuple(Calibration) if static else (Calibration.MIN_MAX,)), (Clipping.NONE,)
