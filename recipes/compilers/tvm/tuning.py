"""A library that runs one kernel with several tiles in turn, so that a board can say which is fastest."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipes.artifact import Artifact
from recipes.blobs import BlobStore
from recipes.compilers.tvm.constants import constants, finite, floats, ints
from recipes.compilers.tvm.kernels.convolution import Tile
from recipes.compilers.tvm.kernels.tally import tally
from recipes.compilers.tvm.link import code_size, kernel_object, library
from recipes.compilers.tvm.lower import Lowered, kernel_name
from recipes.compilers.tvm.templates import FLOAT, Template, example_weights
from recipes.ports import Array
from recipes.target import Target

TALLY = "tally"
"""Beginning of the name of the kernel that sums up what a tile computed; it is not timed."""
MOST_BYTES = 16_000_000
"""Of weights in one library: it is pushed to a board. Weights are shared by tiles that read them in one order."""


def parts(template: Template, tiles: Sequence[Tile]) -> tuple[tuple[Tile, ...], ...]:
    """Divide tiles into libraries that are not too large; the first tile is in each, to compare with."""
    first, room = tiles[0], MOST_BYTES
    size = math.prod(template.window.kernel) * template.window.channels * template.window.kernels * template.bits // 8
    size *= np.dtype(template.arithmetic.weight).itemsize if template.arithmetic.is_float else 1
    found: list[list[Tile]] = []
    orders: set[int] = set()
    for tile in tiles[1:]:
        if not found or (tile.vectors not in orders and (len(orders) + 1) * size > room):
            found.append([first])
            orders = {first.vectors}
        found[-1].append(tile)
        orders.add(tile.vectors)
    return tuple(tuple(part) for part in found) or ((first,),)


def tile_library(template: Template, tiles: Sequence[Tile], target: Target, blobs: BlobStore | None = None) -> bytes:
    """Compile a kernel with every tile; its `main` calls them in this order, and returns the sum of each result.

    All sums are the same where all tiles compute the same.

    Args:
        template: the kernel.
        tiles: legal ones.
        target: the board.
        blobs: where objects of kernels are kept.

    Raises:
        InfeasibleCandidate: TVM does not compile it.
    """
    from tvm import relax

    arithmetic, weights = template.arithmetic, example_weights(template)
    block = relax.BlockBuilder()
    given = relax.Var("x", relax.TensorType(template.given, arithmetic.activation))
    kernels: dict[str, Callable[[], Any]] = {}
    orders: dict[int, Any] = {}
    summed = kernel_name(TALLY, (template.made, arithmetic.activation))
    kernels[summed] = lambda: tally(summed, template.made, arithmetic.activation)
    sums = []
    with block.function("main", [given]):
        for tile in tiles:
            name = kernel_name(f"{template.kind.lower()}_{template.scheme}", template.identity(tile))
            kernels[name] = _maker(template, tile, name)
            if tile.vectors not in orders:
                orders[tile.vectors] = constants(*_constants(template, tile, template.packed(weights, tile)))
            made = block.emit(relax.op.call_dps_packed(
                name, [given, orders[tile.vectors]], relax.TensorType(template.made, arithmetic.activation)))
            sums.append(block.emit(relax.op.call_dps_packed(
                summed, [made], relax.TensorType((1,), _total(template)))))
        block.emit_func_output(relax.Tuple(sums))
    with block.function("ports", []):
        block.emit_func_output(relax.StringImm(json.dumps(_description(template, len(tiles)))))
    return library(Lowered(block.finalize(), kernels), target, blobs)


def example_input(template: Template) -> Array:
    """Draw activations of the kernel's own type."""
    dice = np.random.default_rng(1)
    if template.arithmetic.is_float:
        return dice.standard_normal(template.given, np.float32).astype(template.arithmetic.activation)
    low = template.arithmetic.low
    return dice.integers(low, low + 256, template.given).astype(template.arithmetic.activation)


def _maker(template: Template, tile: Tile, name: str) -> Callable[[], Any]:
    return lambda: template.make(name, tile)


def _constants(template: Template, tile: Tile, weights: Array) -> list[Array]:
    """Return bias, factors, weights, limits and zero points: any will do."""
    arithmetic, size = template.arithmetic, template.padded(tile)
    bias = np.zeros(size, np.dtype(arithmetic.bias))
    if arithmetic.is_float:
        return [bias, weights, finite((-math.inf, math.inf), arithmetic.total)]
    points = [arithmetic.low + 128] * (3 if arithmetic.is_signs else 2)
    return [bias, np.full(size, 1e-3, np.float32), weights, floats(-100, 100), ints(*points)]


def _total(template: Template) -> str:
    return FLOAT if template.arithmetic.is_float else "int32"


def _description(template: Template, count: int) -> dict[str, object]:
    dtype = template.arithmetic.activation
    return {"inputs": [{"name": "x", "shape": template.given, "dtype": dtype}],
            "outputs": [{"name": f"sum_{i}", "shape": (1,), "dtype": _total(template)} for i in range(count)]}


@dataclass(frozen=True, slots=True)
class TileTask:
    """One library to make."""

    template: Template
    tiles: tuple[Tile, ...]
    target: Target
    folder: Path
    """Takes the library and its inputs."""


@dataclass(frozen=True, slots=True)
class TileLibrary:
    """A library that a board can run, with its inputs."""

    template: Template
    tiles: tuple[Tile, ...]
    artifact: Artifact
    inputs: Path
    """.npz file with `i0`."""
    code_bytes: tuple[int, ...]
    """Of the kernel with each tile."""


def prepare_tiles(task: TileTask) -> TileLibrary:
    """Compile a library and draw its inputs; in a worker. Raises InfeasibleCandidate."""
    blobs, template = BlobStore(task.folder), task.template
    artifact = blobs.put_bytes(tile_library(template, task.tiles, task.target, blobs))
    inputs = task.folder / f"{artifact.sha256}.npz"
    np.savez(inputs, i0=example_input(template))
    sizes = []
    for tile in task.tiles:
        name = kernel_name(f"{template.kind.lower()}_{template.scheme}", template.identity(tile))
        sizes.append(code_size(kernel_object(name, _maker(template, tile, name), task.target, blobs)))
    return TileLibrary(template, task.tiles, artifact, inputs, tuple(sizes))
