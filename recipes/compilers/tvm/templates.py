"""Kernels with weights before their tiles are chosen: one for every shape and scheme."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.compilers.layers import LayerMap
from recipes.compilers.tvm.kernels import convolution, depthwise
from recipes.compilers.tvm.kernels.convolution import Tile
from recipes.compilers.tvm.kernels.isa import Arithmetic, Isa
from recipes.compilers.tvm.kernels.parts import Shape
from recipes.compilers.tvm.kernels.window import Window
from recipes.compilers.tvm.legal import FLOAT16
from recipes.compilers.tvm.network import FloatNetwork, Piece, Weighted
from recipes.ports import Array
from search.errors import InfeasibleCandidate
from search.space import LayerConfig, Scheme

FLOAT, HALF = "float32", "float16"
DEPTHWISE = "DEPTHWISE_CONV_2D"
_VECTORS = (1, 2, 3, 4, 6, 8, 12, 16)
_WASTE = 1.25
"""Pixels that a tile may compute, of those that there are."""
_FULL = 0.5
"""Share of the registers that a tile fills at least, where the layer is large enough."""


def scheme_name(config: LayerConfig) -> str:
    """Return `w8a8` for static 8-bit integers, `float32` or `fp16` for floats: part of the name of a kernel."""
    return f"w{config.weight_bits}a{config.activation_bits}" if config.scheme is Scheme.STATIC else config.label


@dataclass(frozen=True, slots=True)
class Template:
    """A kernel whose tile is open."""

    kind: str
    """The operator in the schema's words."""
    scheme: str
    window: Window
    arithmetic: Arithmetic
    bits: int
    """Of a weight; 8 for floats, whose kernels do not ask."""
    given: Shape
    """Of the activations."""
    made: Shape
    """Of the result."""

    @property
    def key(self) -> str:
        """Tells kernels apart that may want different tiles; 16 hexadecimal digits."""
        known = (self.kind == DEPTHWISE, self.window, self.arithmetic, self.bits, self.given, self.made)
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """Short, for people: `conv 3x3 64 -> 64 at 28x28 w4a8`."""
        window, kind = self.window, {"CONV_2D": "conv", DEPTHWISE: "depthwise"}.get(self.kind, "linear")
        size = "x".join(map(str, window.kernel)) + " " if kind != "linear" else ""
        place = f"{window.rows}x{window.columns}" if kind != "linear" else f"{window.columns}"
        return f"{kind} {size}{window.channels} -> {window.kernels} at {place} {self.scheme}"

    def default(self) -> Tile:
        """Return the tile that is used where none was measured."""
        if self.kind == DEPTHWISE:
            return Tile(min(self.window.columns, 7), 1)
        return convolution.default_tile(self.window, self.arithmetic)

    def tiles(self) -> tuple[Tile, ...]:
        """Return the tiles worth measuring, the default first.

        They fit the registers, fill half of them where the layer is large enough, and compute few pixels that nobody
        wants.
        """
        columns, registers = self.window.columns, self.arithmetic.registers
        most = 1 if self.kind == DEPTHWISE else math.ceil(self.window.kernels / self.arithmetic.lanes)
        found: dict[Tile, None] = {self.default(): None}
        for vectors in (n for n in _VECTORS if n <= min(most, registers)):
            for pixels in range(1, min(registers // vectors, columns) + 1):
                full = vectors * pixels >= _FULL * registers or (vectors == most and pixels == columns)
                wasted = math.ceil(columns / pixels) * pixels > _WASTE * columns
                wasted |= math.ceil(most / vectors) * vectors > _WASTE * most
                if self.kind != DEPTHWISE and (not full or wasted):
                    continue
                found[Tile(pixels, vectors)] = None
                if self.kind != DEPTHWISE and vectors < most and self.window.rows * columns > pixels:
                    found[Tile(pixels, vectors, weights_stay=False)] = None
        return tuple(found)

    def packed(self, weights: Array, tile: Tile) -> Array:
        """Put weights in the order in which the kernel reads them: see the kernels' own `packed`."""
        if self.kind == DEPTHWISE:
            return depthwise.packed(weights, self.arithmetic, self.bits)
        return convolution.packed(weights, self.arithmetic, tile, self.bits)

    def padded(self, tile: Tile) -> int:
        """Return the output channels in whole tiles."""
        if self.kind == DEPTHWISE:
            return depthwise.padded_channels(self.window, self.arithmetic)
        return convolution.padded_kernels(self.window, self.arithmetic, tile)

    def identity(self, tile: Tile) -> tuple[object, ...]:
        """Return what the kernel's name is a digest of."""
        if self.kind == DEPTHWISE:
            return self.window, self.arithmetic, tile.pixels, self.bits, self.given, self.made
        return self.window, self.arithmetic, tile, self.bits, self.given, self.made

    def make(self, name: str, tile: Tile) -> Any:
        """Return the kernel, a PrimFunc."""
        if self.kind == DEPTHWISE:
            return depthwise.depthwise(name, self.window, self.arithmetic, tile.pixels, self.given, self.made,
                                       self.bits)
        return convolution.convolution(name, self.window, self.arithmetic, tile, self.given, self.made, self.bits)


def arithmetic_of(config: LayerConfig, isa: Isa) -> Arithmetic:
    """Return what a layer computes with. Raises ValueError for float16 where the processor has none."""
    if config == FLOAT16:
        if isa.half is None:
            raise ValueError("this processor has no arithmetic of float16")
        return isa.half
    if config.scheme is not Scheme.STATIC:
        return isa.floating
    return isa.signs if config.weight_bits == 1 else isa.integer


def template_of(network: FloatNetwork, piece: Piece, own: Weighted, config: LayerConfig, isa: Isa) -> Template:
    """Return the kernel of a layer with weights. Raises InfeasibleCandidate where the processor cannot compute it."""
    tensors = network.graph.tensors
    try:
        arithmetic = arithmetic_of(config, isa)
    except ValueError as error:
        raise InfeasibleCandidate(f"{piece.operator.kind} of {piece.path or 'the network itself'}: {error}") from error
    return Template(piece.operator.kind, scheme_name(config), own.window, arithmetic,
                    config.weight_bits if config.scheme is Scheme.STATIC else 8, tensors[piece.inputs[0]].shape,
                    tensors[piece.operator.outputs[0]].shape)


def templates_of(network: FloatNetwork, layers: LayerMap, isa: Isa) -> tuple[Template, ...]:
    """Return every kernel with weights that some candidate of a network calls, the cheapest to measure first.

    Args:
        network: at any widths.
        layers: of that network.
        isa: of the board.
    """
    found: dict[str, Template] = {}
    for piece in network.pieces:
        if piece.weighted is not None:
            for config in layers.space.by_name[layers.layer_of[piece.operator.index]].choices:
                template = template_of(network, piece, piece.weighted, config, isa)
                found.setdefault(template.key, template)
    return tuple(sorted(found.values(), key=lambda template: products(template.window, template.kind)))


def products(window: Window, kind: str) -> int:
    """Return the multiply-accumulates of one call."""
    kernels = 1 if kind == DEPTHWISE else window.kernels
    return int(window.rows * window.columns * math.prod(window.kernel) * window.channels * kernels)


def example_weights(template: Template, seed: int = 0) -> Array:
    """Draw weights for a kernel that is only timed: (kernels, height, width, channels), depthwise (channels, h, w)."""
    window, dice = template.window, np.random.default_rng(seed)
    shape = ((window.channels, *window.kernel) if template.kind == DEPTHWISE
             else (window.kernels, *window.kernel, window.channels))
    if template.arithmetic.is_float:
        return dice.standard_normal(shape, np.float32).astype(template.arithmetic.weight)
    if template.arithmetic.is_signs:
        return (dice.integers(0, 2, shape, np.int8) * 2 - 1).astype(np.int8)
    most = 2 ** (template.bits - 1) - 1
    return dice.integers(-max(most, 1), max(most, 1) + 1, shape, np.int8)
