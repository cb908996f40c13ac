"""What a cost model sees of one layer: its sizes, its numeric format, where it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from profilers.cost_model_rows import Conditions, Observation
from profilers.prior import typed
from profilers.simulation import Roofline
from recipes.compilers.shapes import CONVERSIONS, LayerShape, graph_of
from search.space import LayerConfig, Scheme

FEATURES_VERSION = 1
"""Of the meaning and order of the columns: a model that was trained with another one is of no use."""
ROOFLINE = "log_roofline"
"""The last column: only the prior `both` sees it."""
SIZES = (
    "log_macs", "log_channels_in", "log_channels_out", "kernel", "stride", "log_positions", "log_elements_in",
    "log_elements_out", "log_second_operand", "channels_out_mod_8", "channels_in_mod_8")
FORMATS = ("log_weight_bytes", "log_activation_bytes", "log_intensity", "weight_bits", "activation_bits", "threads")
T = TypeVar("T")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that were seen in training: each is a column of its own."""

    operators: tuple[str, ...]
    board_kinds: tuple[str, ...]
    software: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[Observation]) -> Vocabulary:
        """Collect the words of the training rows."""
        return cls(tuple(sorted({row.shape.kind for row in rows})),
                   tuple(sorted({row.where.board_kind for row in rows})),
                   tuple(sorted({row.where.software for row in rows})))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return (*SIZES, *FORMATS, *(f"scheme={s}" for s in Scheme), *(f"operator={k}" for k in self.operators),
                *(f"board={k}" for k in self.board_kinds), *(f"runtime={s}" for s in self.software), ROOFLINE)


def features(shape: LayerShape, config: LayerConfig, where: Conditions, vocabulary: Vocabulary,
             roofline: Roofline) -> list[float]:
    """Return one row of `vocabulary.columns`; logarithms are binary, seconds and bytes plain.

    A word that is not in the vocabulary leaves all its columns 0.
    """
    elements_in, elements_out = math.prod(shape.inputs[0]), math.prod(shape.output)
    second = shape.constant if shape.constant is not None else shape.inputs[1] if len(shape.inputs) > 1 else ()
    constants = 0 if shape.constant is None else math.prod(shape.constant)
    activations = sum(math.prod(given) for given in shape.inputs) + elements_out
    weight_bytes = constants * config.weight_bits / 8
    activation_bytes = activations * config.activation_bits / 8
    channels_in, channels_out = (shape[-1] if shape else 1 for shape in (shape.inputs[0], shape.output))
    sizes = (_log(shape.macs), _log(channels_in), _log(channels_out), shape.kernel, shape.stride,
             _log(elements_out // channels_out), _log(elements_in), _log(elements_out),
             _log(math.prod(second) if second else 0), channels_out % 8, channels_in % 8)
    formats = (_log(weight_bytes), _log(activation_bytes), math.log2(shape.work / (weight_bytes + activation_bytes)),
               config.weight_bits, config.activation_bits, where.threads)
    words = [*_one_hot(config.scheme, tuple(Scheme)), *_one_hot(shape.kind, vocabulary.operators),
             *_one_hot(where.board_kind, vocabulary.board_kinds), *_one_hot(where.software, vocabulary.software)]
    return [*(float(value) for value in (*sizes, *formats)), *words,
            math.log2(roofline_s(shape, config, roofline, where.threads))]


def roofline_s(shape: LayerShape, config: LayerConfig, roofline: Roofline, threads: int) -> float:
    """Return what the analytic model says of a layer, seconds."""
    if shape.kind in CONVERSIONS:
        return roofline.conversion_s(math.prod(shape.inputs[0]), threads)
    graph = graph_of(shape)
    return roofline.operator_s(typed(graph, graph.operators, config), graph.operators[0], threads)


def _log(value: float) -> float:
    return math.log2(1 + value)


def _one_hot(word: T, words: Sequence[T]) -> list[float]:
    return [float(word == known) for known in words]
