"""Candidate -> Relax module of kernel calls: what our kernels compute, and TVM's own operators for the rest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from recipes.compilers.layers import LayerMap
from recipes.compilers.tvm.constants import constant, constants, finite, floats, ints
from recipes.compilers.tvm.floats import own_kernel
from recipes.compilers.tvm.integers import (
    Grid,
    activation_grid,
    activation_levels,
    quantised_weights,
    signs_of_weights,
)
from recipes.compilers.tvm.kernels import elementwise
from recipes.compilers.tvm.kernels.convolution import Tile
from recipes.compilers.tvm.kernels.isa import Isa
from recipes.compilers.tvm.kernels.parts import Shape
from recipes.compilers.tvm.legal import FLOAT16
from recipes.compilers.tvm.module import bindings_of
from recipes.compilers.tvm.network import FloatNetwork, Piece, Weighted
from recipes.compilers.tvm.repeat import repeated, unmoved
from recipes.compilers.tvm.schedules import Schedules
from recipes.compilers.tvm.templates import FLOAT, HALF, Template, arithmetic_of, template_of
from recipes.ports import Array
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import LayerConfig, Scheme

FOLLOWING = frozenset({"RESHAPE", "TRANSPOSE", "MAX_POOL_2D", "STRIDED_SLICE", "BROADCAST_TO"})
"""Operators that do with integers what they do with floats."""
MOST = 33_000
"""Products of 8 bits, and of fewer bits moved up, that fit half of a 32-bit sum: 2^30 / (255 x 127)."""
BIAS = 2 ** 30
"""The greatest bias as an integer: half of what a sum of products may come to."""
Rounded = dict[tuple[int, int], tuple[Array, Array]]
"""Operator and bits -> integer weights and their scales."""
Ranges = Mapping[str, tuple[float, float]]
"""Tensor -> least and greatest value."""


@dataclass(frozen=True, slots=True)
class Integers:
    """A tensor as integers."""

    value: Any
    grid: Grid


@dataclass(frozen=True, slots=True)
class Lowered:
    """A candidate as calls of kernels."""

    module: Any
    """The IRModule: its functions `main` and `ports`."""
    kernels: Mapping[str, Callable[[], Any]]
    """Name of a kernel that `main` calls -> what writes its PrimFunc; in the order of the first calls."""


def lower(network: FloatNetwork, layers: LayerMap, ranges: Ranges, candidate: Candidate, isa: Isa,
          watched: Sequence[int] = (), rounded: Rounded | None = None,
          schedules: Schedules = MappingProxyType({})) -> Lowered:
    """Return a candidate as calls of kernels, one for every shape and scheme.

    Args:
        network: at the candidate's widths.
        layers: of that network.
        ranges: of its tensors.
        candidate: what each layer computes with.
        isa: of the board.
        watched: tensors that are outputs too, after the network's own.
        rounded: integer weights that earlier candidates of the same network and ranges had; more are added.
        schedules: tiles that were measured on boards of this kind.
    """
    known = {} if rounded is None else rounded
    return _Lowering(network, layers, ranges, isa, known, schedules).run(candidate, watched)


class _Lowering:
    """Goes through the operators once, and keeps every tensor in the forms that it is read in."""

    def __init__(self, network: FloatNetwork, layers: LayerMap, ranges: Ranges, isa: Isa,
                 rounded: Rounded, schedules: Schedules) -> None:
        from tvm import relax

        self._network, self._layers, self._ranges, self._isa = network, layers, ranges, isa
        self._rounded, self._schedules = rounded, schedules
        self._block = relax.BlockBuilder()
        self._floats: dict[int, Any] = {}
        self._halves: dict[int, Any] = {}
        self._integers: dict[int, Integers] = {}
        self._kernels: dict[str, Callable[[], Any]] = {}
        self._path = ""
        self._paths: list[str] = []

    def run(self, candidate: Candidate, watched: Sequence[int]) -> Lowered:
        """Return the module and its kernels."""
        from tvm import relax

        main, configs = self._network.module["main"], self._layers.operator_configs(candidate)
        parameters = [relax.Var(str(p.name), p.ty) for p in main.params]
        for port, parameter in zip(self._network.graph.inputs, parameters, strict=True):
            self._floats[port.tensor] = parameter
        with self._block.function("main", parameters):
            with self._block.dataflow():
                for piece in self._network.pieces:
                    self._emit(piece, configs[piece.operator.index])
                made = [self._float(tensor) for tensor in (*self._network.results, *watched)]
                output = self._block.emit_output(relax.Tuple(made))
            self._block.emit_func_output(output)
        with self._block.function("ports", []):
            self._block.emit_func_output(relax.StringImm(self._ports()))
        return Lowered(self._block.finalize(), self._kernels)

    def _ports(self) -> str:
        """Describe inputs, outputs and the layers of the kernels' calls: what the library returns when it is asked."""
        graph = self._network.graph

        def entry(name: str, tensor: int) -> dict[str, object]:
            return {"name": name, "shape": graph.tensors[tensor].shape, "dtype": graph.tensors[tensor].dtype.lower()}

        return json.dumps({"inputs": [entry(port.name, port.tensor) for port in graph.inputs],
                           "outputs": [entry(port.name, port.tensor) for port in graph.outputs],
                           "layers": self._paths})

    def _emit(self, piece: Piece, config: LayerConfig) -> None:
        self._path, kind, output = piece.path, piece.operator.kind, piece.operator.outputs[0]
        static = config.scheme is Scheme.STATIC
        if piece.weighted is not None:
            emit = self._weighted_floats if not static else (
                self._weighted_signs if config.weight_bits == 1 else self._weighted_integers)
            emit(piece, piece.weighted, config)
        elif kind == "ADD" and static and self._is_sum(piece):
            self._sum(piece)
        elif kind == "ADD" and config == FLOAT16 and self._is_sum(piece):
            self._sum_of_halves(piece)
        elif (same := unmoved(self._network, piece)) is not None:
            self._alias(output, same)
        elif kind in FOLLOWING and static and piece.inputs[0] in self._integers:
            given = self._integers[piece.inputs[0]]
            self._integers[output] = Integers(self._repeated(piece, lambda tensor: self._integers[tensor].value),
                                              given.grid)
        elif kind in FOLLOWING and piece.inputs[0] in self._halves and piece.inputs[0] not in self._floats:
            self._halves[output] = self._repeated(piece, self._half)
        else:
            self._floats[output] = self._plain(piece)

    def _plain(self, piece: Piece) -> Any:
        """Emit a float operator without weights: by a kernel of our own, or as TVM lowers it."""
        value, made = bindings_of(self._network.module)[piece.bindings[0]].value, self._shape(piece.operator.outputs[0])
        inputs = tuple(self._shape(tensor) for tensor in piece.inputs)
        found = own_kernel(value, inputs, made, self._isa.floating) if len(piece.bindings) == 1 else None
        if found is None:
            return self._repeated(piece, self._float)
        return self._call(found.what, found.key, found.make, [self._float(tensor) for tensor in piece.inputs], made,
                          FLOAT)

    # Tensors

    def _float(self, tensor: int) -> Any:
        """Return a tensor as floats, converted at its first use."""
        if tensor in self._halves and tensor not in self._floats:
            self._floats[tensor] = self._cast(self._halves[tensor], tensor, HALF, FLOAT)
        if tensor not in self._floats:
            known, shape = self._integers[tensor], self._shape(tensor)
            grid = known.grid
            self._floats[tensor] = self._call(
                "dequantise", (shape,), lambda name: elementwise.dequantise(name, shape, self._isa.integer),
                (known.value, constants(floats(grid.scale), ints(grid.zero))), shape, FLOAT)
        return self._floats[tensor]

    def _half(self, tensor: int) -> Any:
        """Return a tensor as float16, converted at its first use."""
        if tensor not in self._halves:
            self._halves[tensor] = self._cast(self._float(tensor), tensor, FLOAT, HALF)
        return self._halves[tensor]

    def _cast(self, value: Any, tensor: int, given: str, made: str) -> Any:
        shape, lanes = self._shape(tensor), self._isa.floating.lanes
        return self._call(f"cast_{made}", (shape, given, lanes),
                          lambda name: elementwise.cast(name, shape, given, made, lanes), (value,), shape, made)

    def _integer(self, tensor: int) -> Integers:
        """Return a tensor as integers, converted at its first use."""
        if tensor not in self._integers:
            shape, grid = self._shape(tensor), self._grid(tensor)
            low, high = self._limits(grid)
            value = self._call(
                "quantise", (shape,), lambda name: elementwise.quantise(name, shape, self._isa.integer),
                (self._float(tensor), constants(floats(1 / grid.scale, low, high), ints(grid.zero))), shape,
                self._isa.integer.activation)
            self._integers[tensor] = Integers(value, grid)
        return self._integers[tensor]

    def _grid(self, tensor: int) -> Grid:
        return activation_grid(*self._ranges[self._network.graph.tensors[tensor].name], self._isa.integer)

    def _limits(self, grid: Grid, limits: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float]:
        """Return the least and greatest result of rounding, less the zero point."""
        arithmetic = self._isa.integer
        ends = arithmetic.low - grid.zero, arithmetic.high - grid.zero
        least, greatest = (float(np.clip(round(limit / grid.scale) if math.isfinite(limit) else limit, *ends))
                           for limit in limits)
        return least, greatest

    def _shape(self, tensor: int) -> Shape:
        return self._network.graph.tensors[tensor].shape

    # Operators

    def _weighted_floats(self, piece: Piece, own: Weighted, config: LayerConfig) -> None:
        """Emit float32 or float16: then weights, sums and results are float16."""
        template = template_of(self._network, piece, own, config, self._isa)
        tile, kind = self._tile(template), template.arithmetic.total
        bias = np.zeros(template.padded(tile), kind)
        bias[:own.window.kernels] = 0 if own.bias is None else own.bias
        read, forms = (self._half, self._halves) if kind == HALF else (self._float, self._floats)
        forms[piece.operator.outputs[0]] = self._weighted(
            template, tile, read(piece.inputs[0]), bias, template.packed(own.weight.astype(kind), tile),
            finite(piece.limits, kind))

    def _weighted_integers(self, piece: Piece, own: Weighted, config: LayerConfig) -> None:
        window, output = own.window, piece.operator.outputs[0]
        read, grid = self._integer(piece.inputs[0]), self._grid(output)
        if (count := own.weight[0].size) > MOST:
            where = piece.path or "the network itself"
            raise InfeasibleCandidate(f"{piece.operator.kind} of {where}: each output sums "
                                      f"{count:,} products; 32 bits hold {MOST:,} of them: keep it float32")
        real = np.zeros(window.kernels) if own.bias is None else own.bias.astype(np.float64)
        known = piece.operator.index, config.weight_bits
        if known not in self._rounded:
            self._rounded[known] = quantised_weights(own.weight, config.weight_bits,
                                                     np.abs(real) / (read.grid.scale * BIAS))
        whole, scales = self._rounded[known]
        template = template_of(self._network, piece, own, config, self._isa)
        tile = self._tile(template)
        bias, factors = np.zeros(template.padded(tile), np.int32), np.zeros(template.padded(tile), np.float32)
        sums = whole.reshape(len(whole), -1).astype(np.int64).sum(axis=1)
        bias[:window.kernels] = np.rint(real / (np.float64(read.grid.scale) * scales)) - read.grid.zero * sums
        factors[:window.kernels] = np.float64(read.grid.scale) * scales / grid.scale
        value = self._weighted(template, tile, read.value, bias, factors, template.packed(whole, tile),
                               floats(*self._limits(grid, piece.limits)), ints(read.grid.zero, grid.zero))
        self._integers[output] = Integers(value, grid)

    def _weighted_signs(self, piece: Piece, own: Weighted, config: LayerConfig) -> None:
        """Emit the products of signs: what is counted is how many are negative."""
        window, output = own.window, piece.operator.outputs[0]
        read, grid = self._integer(piece.inputs[0]), self._grid(output)
        levels = activation_levels(*self._ranges[self._network.graph.tensors[piece.inputs[0]].name])
        signs, scales = signs_of_weights(own.weight)
        template = template_of(self._network, piece, own, config, self._isa)
        tile = self._tile(template)
        bias, factors = np.zeros(template.padded(tile), np.float32), np.zeros(template.padded(tile), np.float32)
        sums, count = signs.reshape(len(signs), -1).astype(np.int64).sum(axis=1), signs[0].size
        real = np.zeros(len(signs)) if own.bias is None else own.bias.astype(np.float64)
        bias[:window.kernels] = (scales * (levels.middle * sums + levels.half * count) + real) / grid.scale
        factors[:window.kernels] = -2 * levels.half * scales / grid.scale
        points = ints(levels.least(read.grid, template.arithmetic), grid.zero, read.grid.zero)
        value = self._weighted(template, tile, read.value, bias, factors, template.packed(signs, tile),
                               floats(*self._limits(grid, piece.limits)), points)
        self._integers[output] = Integers(value, grid)

    def _tile(self, template: Template) -> Tile:
        """Return the tile that was measured to be the fastest, else the default."""
        return self._schedules.get(template.key) or template.default()

    def _weighted(self, template: Template, tile: Tile, value: Any, *arrays: Array) -> Any:
        """Emit a kernel with weights on a value and constants."""
        return self._call(f"{template.kind.lower()}_{template.scheme}", template.identity(tile),
                          lambda name: template.make(name, tile), (value, constants(*arrays)), template.made,
                          template.arithmetic.activation)

    def _is_sum(self, piece: Piece) -> bool:
        """Tell the sum of two tensors of one shape."""
        return len(piece.inputs) == 2 and len({self._shape(t) for t in (*piece.inputs, piece.operator.outputs[0])}) == 1

    def _sum(self, piece: Piece) -> None:
        output = piece.operator.outputs[0]
        one, two = (self._integer(tensor) for tensor in piece.inputs)
        shape, grid = self._shape(output), self._grid(output)
        value = self._call(
            "add_int8", (shape,), lambda name: elementwise.add(name, shape, self._isa.integer),
            (one.value, two.value, constants(floats(one.grid.scale / grid.scale, two.grid.scale / grid.scale,
                                                      *self._limits(grid, piece.limits)),
                                              ints(one.grid.zero, two.grid.zero, grid.zero))), shape,
            self._isa.integer.activation)
        self._integers[output] = Integers(value, grid)

    def _sum_of_halves(self, piece: Piece) -> None:
        arithmetic, output = arithmetic_of(FLOAT16, self._isa), piece.operator.outputs[0]
        shape = self._shape(output)
        self._halves[output] = self._call(
            "add_fp16", (shape, arithmetic), lambda name: elementwise.add_floats(name, shape, arithmetic),
            (*(self._half(tensor) for tensor in piece.inputs), constant(finite(piece.limits, HALF))), shape, HALF)

    def _alias(self, output: int, same: int) -> None:
        forms: tuple[dict[int, Any], ...] = (self._floats, self._halves, self._integers)
        for known in forms:
            if same in known:
                known[output] = known[same]

    def _repeated(self, piece: Piece, form: Callable[[int], Any]) -> Any:
        return repeated(self._block, self._network, piece, form)

    # Kernels

    def _call(self, what: str, key: tuple[object, ...], make: Callable[[str], Any], arguments: Sequence[Any],
              shape: Shape, dtype: str) -> Any:
        """Emit a call of a kernel, which is known by its key."""
        from tvm import relax

        name = kernel_name(what, key)
        self._kernels.setdefault(name, lambda: make(name))
        self._paths.append(self._path)
        return self._block.emit(relax.op.call_dps_packed(name, list(arguments), relax.TensorType(shape, dtype)))


def kernel_name(what: str, key: tuple[object, ...]) -> str:
    """Return the name of a kernel of ours, the same for the same key; the agent knows such a name by its end."""
    return f"{what}_{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
