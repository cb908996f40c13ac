"""Spaces and an additive model of a board, for tests of everything that only sees spaces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from search.candidate import Candidate
from search.goal import Evidence
from search.space import FLOAT32, Calibration, Clipping, Layer, LayerConfig, Scheme, SearchSpace

FP16 = LayerConfig(weight_bits=16)
WEIGHT_ONLY = LayerConfig(8, 32, Scheme.WEIGHT_ONLY)
DYNAMIC = LayerConfig(8, 32, Scheme.DYNAMIC)
INT8 = LayerConfig(8, 8, Scheme.STATIC)
INT4 = LayerConfig(4, 8, Scheme.STATIC)
ALL = (FLOAT32, FP16, WEIGHT_ONLY, DYNAMIC, INT8, INT4)
"""Widest first."""
SHARE = {FLOAT32: 1.0, FP16: 1.0, WEIGHT_ONLY: 0.9, DYNAMIC: 0.8, INT8: 0.5, INT4: 0.45}
"""Of float32's latency."""
BETTER = {Calibration.MIN_MAX: 0.0, Calibration.PERCENTILE: -0.004, Calibration.MSE: 0.001,
          Clipping.NONE: 0.0, Clipping.OCTAV: 0.0005}
"""What choices for all layers bring."""


def small_space() -> SearchSpace:
    """Three layers of one kind, and 18 candidates."""
    choices = ((FLOAT32, DYNAMIC, INT8), (FLOAT32, DYNAMIC, INT8), (FLOAT32, INT8))
    return SearchSpace("tflite", tuple(Layer(f"l{i}", "CONV_2D", legal, 100) for i, legal in enumerate(choices)))


def tiny_space() -> SearchSpace:
    """Two layers of one kind, and 6 candidates."""
    return replace(small_space(), layers=small_space().layers[1:])


def calibrated_space(space: SearchSpace) -> SearchSpace:
    """Return a space with everything that may be chosen for all layers together."""
    return replace(space, calibrations=tuple(Calibration), clippings=tuple(Clipping))


def every_candidate(space: SearchSpace) -> set[Candidate]:
    """Return all candidates without groups, by trying everything."""
    return {Candidate.of(space, dict(zip(space.by_name, configs, strict=True)), calibration=calibration,
                         clipping=clipping)
            for configs in product(*(layer.choices for layer in space.layers))
            for calibration in space.calibrations for clipping in space.clippings}


def mixed_space() -> SearchSpace:
    """Kinds with and without weights, and layers with few choices."""
    return SearchSpace("tflite", (
        Layer("stem", "CONV_2D", ALL, 432, 10_000),
        Layer("dw", "DEPTHWISE_CONV_2D", tuple(c for c in ALL if c != INT4), 144, 5_000),
        Layer("norm", "MEAN+RSQRT", (FLOAT32, INT8)),
        Layer("soft", "SOFTMAX", (FLOAT32, INT8)),
        Layer("head", "FULLY_CONNECTED", ALL, 640, 640)))


def wide_space(layers: int = 10) -> SearchSpace:
    return SearchSpace("tflite", tuple(
        Layer(f"b{i}", "CONV_2D", (FLOAT32, DYNAMIC, INT8, INT4), 1000) for i in range(layers)))


@dataclass(frozen=True)
class AdditiveBoard:
    """Latency, loss and size are sums over layers; layers differ in how much they gain and how much they hurt."""

    space: SearchSpace

    def evidence(self, candidate: Candidate) -> Evidence:
        latency, accuracy, size = 0.0, 0.9, 0
        for position, (_, config) in enumerate(candidate.layers):
            latency += 1e-4 * (1 + position % 3) * SHARE[config]
            lossy = {INT8: 0.002, INT4: 0.01, DYNAMIC: 0.001}.get(config, 0.0)
            accuracy -= lossy * (1 + (position * 7) % 5)
            size += 1000 * config.weight_bits // 8
        accuracy += BETTER[candidate.calibration] + BETTER[candidate.clipping]
        return Evidence(latency, size, {"top1": accuracy})
