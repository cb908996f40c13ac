"""Tiles: which are worth measuring, that all compute the same, and what candidates make of what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from profilers.agent.tvm_interpreter import Interpreter
from recipes.compilers.layers import LayerMap
from recipes.compilers.tvm.kernels.convolution import Tile
from recipes.compilers.tvm.kernels.isa import Arithmetic, isa_of
from recipes.compilers.tvm.kernels.window import Window
from recipes.compilers.tvm.legal import STATIC_2, STATIC_4, STATIC_8
from recipes.compilers.tvm.pays import KernelCost, paying
from recipes.compilers.tvm.readback import calls
from recipes.compilers.tvm.run import Runner
from recipes.compilers.tvm.schedules import read_schedules, schedules_bytes
from recipes.compilers.tvm.templates import DEPTHWISE, Template, template_of, templates_of
from recipes.compilers.tvm.tuning import TileTask, example_input, parts, prepare_tiles
from search.space import FLOAT32
from tests.recipes.tvm.test_compiler import COMPILER, HOST, Converted, converted, images

ISA = isa_of(HOST.machine, HOST.cpu_features)


def template(kind: str, scheme: str, arithmetic: Arithmetic, window: Window, bits: int = 8) -> Template:
    shape = (1, window.height, window.width, window.channels), (1, window.rows, window.columns, window.kernels)
    return Template(kind, scheme, window, arithmetic, bits, *shape)


CONVOLUTION = Window(9, 11, 20, 70, (3, 3), (1, 2), (1, 1, 1, 1))
DEEP = Window(9, 11, 40, 40, (3, 3), (1, 1), (1, 1, 1, 1))
KERNELS = [
    template("CONV_2D", "float32", ISA.floating, CONVOLUTION), template("CONV_2D", "w8a8", ISA.integer, CONVOLUTION),
    template("CONV_2D", "w4a8", ISA.integer, CONVOLUTION, 4), template("CONV_2D", "w2a8", ISA.integer, CONVOLUTION, 2),
    template("CONV_2D", "w1a1", ISA.signs, CONVOLUTION, 1), template(DEPTHWISE, "float32", ISA.floating, DEEP),
    template(DEPTHWISE, "w8a8", ISA.integer, DEEP), template(DEPTHWISE, "w4a8", ISA.integer, DEEP, 4)]


@pytest.mark.parametrize("kernel", KERNELS, ids=[f"{k.kind}-{k.scheme}" for k in KERNELS])
def test_every_tile_computes_the_same(kernel: Template, tmp_path: Path) -> None:
    tiles = kernel.tiles()
    assert tiles[0] == kernel.default()
    assert len(set(tiles)) == len(tiles) > 3
    assert all(tile.pixels * tile.vectors <= kernel.arithmetic.registers for tile in tiles)
    made = prepare_tiles(TileTask(kernel, tiles, HOST, tmp_path))
    own = [name for name in calls(made.artifact.path.read_bytes()) if name.startswith(kernel.kind.lower())]
    assert len(own) == len(set(own)) == len(tiles), "none is left out, none is there twice"
    machine = Interpreter(made.artifact.path.read_bytes(), 1)
    machine.set_tensor(0, example_input(kernel))
    machine.invoke()
    sums = {float(machine.get_tensor(place)[0]) for place in range(len(tiles))}
    assert len(sums) == 1 and sums != {0.0}
    assert len(machine.profile(0.01)) == 2 * len(tiles)
    assert all(size > 100 for size in made.code_bytes)


def test_large_weights_are_divided_and_the_default_is_in_every_part() -> None:
    window = Window(1, 1, 4096, 4096)
    kernel = Template("FULLY_CONNECTED", "w8a8", window, ISA.integer, 8, (1, 4096), (1, 4096))
    divided = parts(kernel, kernel.tiles())
    assert len(divided) > 1
    assert {part[0] for part in divided} == {kernel.default()}
    assert {tile for part in divided for tile in part} == set(kernel.tiles())
    assert all(len({tile.vectors for tile in part}) <= 2 for part in divided)


def test_a_measured_tile_is_built_in_and_computes_the_same() -> None:
    made = converted("separable")
    candidate = made.candidate(STATIC_4)
    kernels = templates_of(made.found, made.layers, ISA)
    other = {kernel.key: kernel.tiles()[-1] for kernel in kernels if len(kernel.tiles()) > 1}
    assert len(other) > 5
    plain = COMPILER.quantiser(made.model, made.statistics, made.layers, HOST).quantise(candidate)
    tuned = COMPILER.quantiser(made.model, made.statistics, made.layers, HOST,
                               schedules=schedules_bytes(other)).quantise(candidate)
    assert calls(plain) != calls(tuned)
    inputs = images().splits["validation"].inputs
    for example in range(3):
        np.testing.assert_array_equal(Runner(plain, made.ports).run(inputs, example)[0],
                                      Runner(tuned, made.ports).run(inputs, example)[0])


def test_schedules_are_read_as_they_were_written() -> None:
    tiles = {"b": Tile(3, 2), "a": Tile(1, 4, weights_stay=False)}
    assert read_schedules(schedules_bytes(tiles)) == tiles
    assert schedules_bytes(tiles) == schedules_bytes(dict(reversed(tiles.items())))
    assert read_schedules(None) == {}
    with pytest.raises(ValueError, match="with schema 9; expected 1"):
        read_schedules(b'{"schema": 9}')


def costs(made: Converted, layers: LayerMap, name: str, ns: tuple[int, int, int, int],
          code: int = 1000) -> dict[str, KernelCost]:
    """Return what the formats of a layer take: float32, 8, 4 and 2 bits."""
    piece = next(piece for piece in made.found.pieces if piece.operator.index in layers.operators[name])
    assert piece.weighted is not None
    return {template_of(made.found, piece, piece.weighted, config, ISA).key: KernelCost(time, code)
            for config, time in zip((FLOAT32, STATIC_8, STATIC_4, STATIC_2), ns, strict=True)}


def test_a_format_that_is_neither_faster_nor_smaller_is_not_offered() -> None:
    made = converted("residual")
    layers = made.layers
    # 144 weights in the first layer: with 4 bits 72 bytes less, with 2 bits 108
    measured = costs(made, layers, "stem.0", (4000, 4000, 7000, 3000))
    kept, dropped = paying(made.found, layers, ISA, measured)
    assert dropped == {}, "all are smaller, where their code is of one size"
    growing = {key: replace(cost, code_bytes=1000 * place) for place, (key, cost) in enumerate(measured.items(), 1)}
    kept, dropped = paying(made.found, layers, ISA, growing)
    assert dropped == {"stem.0": (STATIC_8, STATIC_4)}, "2 bits are faster; the others only have more code"
    assert kept.space.by_name["stem.0"].choices == (FLOAT32, STATIC_2)
    assert kept.space.by_name["head"].choices == layers.space.by_name["head"].choices
    assert layers.space.part_of(layers.space) and kept.space.part_of(layers.space)
    assert not layers.space.part_of(kept.space)


def test_a_layer_with_a_format_that_was_not_measured_keeps_all() -> None:
    made = converted("residual")
    measured = costs(made, made.layers, "stem.0", (4000, 9000, 9000, 9000), code=100_000)
    measured.pop(next(iter(measured)))
    kept, dropped = paying(made.found, made.layers, ISA, measured)
    assert (kept.space, dropped) == (made.layers.space, {})


def test_code_that_many_layers_share_counts_in_parts() -> None:
    made = converted("residual")
    layers = made.layers
    measured = costs(made, layers, "blocks.0.first.0", (4000, 4000, 4000, 4000), code=1000)
    keys = list(measured)
    measured[keys[2]] = KernelCost(4000, 1000 + 2 * 1152 - 1)  # 2,304 weights: 1,152 bytes less, twice
    assert "blocks.0.first.0" not in paying(made.found, layers, ISA, measured)[1]
    measured[keys[2]] = KernelCost(4000, 1000 + 2 * 1152)
    assert paying(made.found, layers, ISA, measured)[1]["blocks.0.first.0"] == (STATIC_4,)
