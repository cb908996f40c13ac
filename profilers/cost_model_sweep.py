"""Which layers a sweep measures, and how one of them is prepared on the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profilers.accuracy import run_on_host
from profilers.golden import Array, tolerance
from profilers.measurement import MeasureSettings
from profilers.runner import RuntimePlace
from recipes.artifact import Artifact
from recipes.blobs import BlobStore
from recipes.compilers.graph import Graph
from recipes.compilers.kinds import ARITHMETIC, WEIGHTED
from recipes.compilers.shapes import CONVERSIONS, LayerShape, Shape, shape_of
from recipes.compilers.tflite.legal import STATIC_8, legal_choices
from recipes.compilers.tflite.single_layer import build_layer, example_inputs
from search.space import FLOAT32, LayerConfig

COPIES = 4
"""Of the layer in an artifact, side by side."""
FLOOR = LayerShape("ADD", ((1, 1), (1, 1)), None, (1, 1))
"""The least that a runtime can be asked to do."""
FLOOR_COPIES = (1, 9)
"""From two artifacts of it, what an inference costs in any case and what the operator costs are told apart."""
SPATIAL = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112)
"""Edges of images as networks have them."""
MAX_MACS, MIN_MACS = 32_000_000, 500
MAX_WEIGHTS = 600_000
MAX_ELEMENTS = 260_000
BUILT = (frozenset(WEIGHTED) | ARITHMETIC) - {"TRANSPOSE_CONV"}
"""Operators that can be measured alone."""
_BINARY = ("ADD", "MUL", "SUB", "SQUARED_DIFFERENCE", "DIV", "MAXIMUM")
_UNARY = ("SOFTMAX", "GELU", "LOGISTIC", "TANH", "HARD_SWISH", "RELU", "RSQRT", "SQRT")


def settings(threads: int) -> MeasureSettings:
    """Return how a layer is timed: shorter than a candidate, since there are thousands."""
    return MeasureSettings(threads=threads, min_runs=9, max_runs=300, max_sampling_s=0.03, max_warmup_s=0.02)


def sweep(seed: int, runtime: str) -> Iterator[tuple[LayerShape, LayerConfig]]:
    """Yield layers to measure without end, every shape in all formats that a runtime executes.

    The same seed gives the same layers, so a sweep can be continued.
    """
    dice = _Dice(seed)
    seen: set[str] = set()
    while True:
        shape = _draw(dice)
        if shape is None or shape.key in seen:
            continue
        seen.add(shape.key)
        yield from _formats(shape, runtime)


def layers_of(graph: Graph, runtime: str) -> Iterator[tuple[LayerShape, LayerConfig]]:
    """Yield the layers of a float model that can be built alone, in all formats, and conversions of what they read."""
    shapes: dict[LayerShape, None] = {}
    for op in graph.operators:
        if op.kind in BUILT and graph.tensors[op.outputs[0]].dtype == "FLOAT32":
            shape = shape_of(graph, op)
            shapes |= {shape: None, **{LayerShape(kind, (size,), None, size): None
                                       for kind in CONVERSIONS for size in shape.inputs}}
    for shape in shapes:
        yield from _formats(shape, runtime)


def _formats(shape: LayerShape, runtime: str) -> Iterator[tuple[LayerShape, LayerConfig]]:
    choices = (FLOAT32,) if shape.kind in CONVERSIONS else legal_choices(shape.kind, runtime)
    yield from ((shape, config) for config in choices)


class _Dice:
    """Draws sizes, log-uniformly."""

    def __init__(self, seed: int) -> None:
        self._dice = np.random.default_rng(seed)

    def form(self) -> Callable[[_Dice], LayerShape]:
        """Draw what kind of layer comes next."""
        shares = np.array([share for share, _ in _FORMS])
        return _FORMS[int(self._dice.choice(len(_FORMS), p=shares / shares.sum()))][1]

    def one_of(self, *choices: str) -> str:
        return choices[int(self._dice.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self._dice.random() < probability)

    def edge(self) -> int:
        return SPATIAL[int(self._dice.integers(len(SPATIAL)))]

    def between(self, low: int, high: int) -> int:
        return round(2 ** self._dice.uniform(math.log2(low), math.log2(high)))

    def channels(self) -> int:
        """From 8 to 512; a multiple of 8, as most networks have, three times in four."""
        count = self.between(8, 512)
        return max(8, round(count / 8) * 8) if self.chance(0.75) else count


def _convolution(dice: _Dice) -> LayerShape:
    edge, kernel = dice.edge(), int(dice.one_of("1", "1", "3", "3", "5"))
    stride = 2 if dice.chance(0.25) else 1
    given = dice.between(1, 4) if dice.chance(0.06) else dice.channels()
    made, out = dice.channels(), math.ceil(edge / stride)
    return LayerShape("CONV_2D", ((1, edge, edge, given),), (made, kernel, kernel, given), (1, out, out, made))


def _depthwise(dice: _Dice) -> LayerShape:
    edge, kernel = dice.edge(), 5 if dice.chance(0.25) else 3
    stride = 2 if dice.chance(0.3) else 1
    made, out = dice.channels(), math.ceil(edge / stride)
    given = 1 if dice.chance(0.15) else made  # a convolution of one channel becomes depthwise
    return LayerShape("DEPTHWISE_CONV_2D", ((1, edge, edge, given),), (1, kernel, kernel, made), (1, out, out, made))


def _linear(dice: _Dice) -> LayerShape:
    rows = 1 if dice.chance(0.35) else dice.between(2, 256)
    given = dice.between(8, 2048)
    made = dice.between(2, 1024) if dice.chance(0.3) else dice.channels()
    return LayerShape("FULLY_CONNECTED", ((rows, given),), (made, given), (rows, made))


def _matmul(dice: _Dice) -> LayerShape:
    heads, rows, inner, columns = (dice.between(*limits) for limits in ((1, 16), (4, 256), (8, 256), (8, 256)))
    return LayerShape("BATCH_MATMUL", ((heads, rows, inner), (heads, inner, columns)), None, (heads, rows, columns))


def _place(dice: _Dice) -> Shape:
    """Return the shape of an activation: an image, tokens, or one value each token."""
    if dice.chance(0.5):
        edge = dice.edge()
        return (1, edge, edge, dice.channels())
    return (1, dice.between(2, 512), dice.channels()) if dice.chance(0.8) else (dice.between(8, 512),)


def _binary(dice: _Dice) -> LayerShape:
    kind, shape = dice.one_of("ADD", "ADD", "MUL", *_BINARY), _place(dice)
    if dice.chance(0.25):
        return LayerShape(kind, (shape,), (shape[-1],), shape)
    second = (*shape[:-1], 1) if dice.chance(0.4) else shape
    return LayerShape(kind, (shape, second), None, shape)


def _unary(dice: _Dice) -> LayerShape:
    kind = dice.one_of("SOFTMAX", "GELU", *_UNARY)
    if kind == "SOFTMAX":
        rows, wide = dice.between(1, 1024), dice.between(4, 512)
        return LayerShape(kind, ((1, rows, wide),), None, (1, rows, wide))
    shape = _place(dice)
    return LayerShape(kind, (shape,), None, shape)


def _reduction(dice: _Dice) -> LayerShape:
    kind, tokens, wide = "SUM" if dice.chance(0.2) else "MEAN", dice.between(2, 512), dice.channels()
    if dice.chance(0.4):
        edge = dice.edge()
        return LayerShape(kind, ((1, edge, edge, wide),), None, (1, wide))
    return LayerShape(kind, ((1, tokens, wide),), None, (1, wide) if dice.chance(0.3) else (1, tokens))


def _conversion(dice: _Dice) -> LayerShape:
    shape = _place(dice)
    return LayerShape(dice.one_of(*CONVERSIONS), (shape,), None, shape)


_FORMS: tuple[tuple[float, Callable[[_Dice], LayerShape]], ...] = (
    (0.24, _convolution), (0.14, _depthwise), (0.16, _linear), (0.06, _matmul), (0.14, _binary), (0.12, _unary),
    (0.06, _reduction), (0.08, _conversion))
"""How often a form is drawn: one with weights has up to eight formats, the others have two."""


def _draw(dice: _Dice) -> LayerShape | None:
    """Return a shape; None when it is too large to be measured in a moment, or too small to matter."""
    shape = dice.form()(dice)
    sizes = [math.prod(size) for size in (*shape.inputs, shape.output)]
    weights = 0 if shape.constant is None else math.prod(shape.constant)
    fits = max(sizes) <= MAX_ELEMENTS and weights <= MAX_WEIGHTS and shape.macs <= MAX_MACS
    return shape if fits and (shape.macs == 0 or shape.macs >= MIN_MACS) else None


@dataclass(frozen=True, slots=True)
class LayerTask:
    """A layer to prepare, in a worker."""

    shape: LayerShape
    config: LayerConfig
    copies: int
    folder: Path
    """Of blobs, temporary."""
    runtime: RuntimePlace
    """The board's runtime, installed on the host."""
    agent: Path


@dataclass(frozen=True, slots=True, eq=False)
class PreparedLayer:
    """An artifact with what its outputs must be."""

    artifact: Artifact
    golden_inputs: Path
    golden_outputs: tuple[Array, ...]
    tolerance: float


def prepare_layer(task: LayerTask) -> PreparedLayer:
    """Build a layer's artifact and run it once on the host. Raises InfeasibleCandidate."""
    blobs = BlobStore(task.folder)
    artifact = blobs.put_bytes(build_layer(task.shape, task.config, task.copies, task.runtime.name))
    inputs = task.folder / f"{artifact.sha256}.npz"
    tensors: dict[str, Array] = dict(example_inputs(task.shape, task.config, task.copies))
    np.savez(inputs, **tensors)  # type: ignore[arg-type]
    outputs = run_on_host(task.runtime, task.agent, artifact, inputs)
    steps = task.config if task.shape.kind not in CONVERSIONS else STATIC_8
    return PreparedLayer(artifact, inputs, outputs, tolerance([steps]))
