"""Float16: where it is offered, and that layers in float16 compute what they should, alone and between others."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest

from recipes.compilers.tvm.kernels import convolution
from recipes.compilers.tvm.kernels.isa import isa_of
from recipes.compilers.tvm.kernels.window import Window
from recipes.compilers.tvm.legal import FLOAT16, STATIC_4, STATIC_8
from recipes.compilers.tvm.readback import calls
from recipes.compilers.tvm.run import Runner
from recipes.compilers.tvm.target import kernel_options
from recipes.ports import Array
from recipes.target import Target
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.space import FLOAT32
from tests.recipes.tvm.test_compiler import COMPILER, HOST, Converted, converted, images

A72 = Target("aarch64", "tvm", "0.26.0", ("asimd", "fp"))
A76 = replace(A72, cpu_features=("asimd", "asimddp", "asimdhp", "fp", "fphp"))
XEON = Target("x86_64", "tvm", "0.26.0", ("avx2", "avx512bw", "avx512_fp16", "avx512_vnni", "avx512f", "fma"))
HERE = COMPILER.host_target(A76)


def run(given: Converted, candidate: Candidate) -> tuple[Array, list[str]]:
    """Return what this machine computes in place of a Cortex-A76, and the kernels of its library."""
    layers = COMPILER.layers(given.model, HERE)
    artifact = COMPILER.quantiser(given.model, given.statistics, layers, HERE).quantise(candidate)
    inputs = images().splits["calibration"].inputs
    return np.stack([Runner(artifact, given.ports).run(inputs, i)[0] for i in range(4)]), calls(artifact)


@pytest.mark.parametrize(("target", "offered"), [(A72, False), (A76, True), (XEON, True), (HERE, True)])
def test_it_is_offered_where_the_processor_computes_it(target: Target, offered: bool) -> None:
    space = COMPILER.layers(converted("separable").model, target).space
    assert {FLOAT16 in layer.choices for layer in space.layers if layer.weights} == {offered}


@pytest.mark.parametrize("name", ["residual", "separable"])
def test_a_network_in_float16_is_close_to_float32(name: str) -> None:
    given = converted(name)
    space = COMPILER.layers(given.model, HERE).space
    made = [run(given, Candidate.of(space, {layer.name: layer.widen(config) for layer in space.layers}))
            for config in (FLOAT32, FLOAT16)]
    weighted = [piece.operator.kind.lower() for piece in given.found.pieces if piece.weighted is not None]
    assert [called.rpartition("_")[0] for called in made[1][1] if called.startswith(tuple(weighted))] == [
        f"{kind}_fp16" for kind in weighted]
    off = np.abs(made[1][0] - made[0][0]).max() / np.ptp(made[0][0])
    assert 0 < off < 3e-3


def test_layers_of_every_format_follow_each_other() -> None:
    given = converted("residual")
    space = COMPILER.layers(given.model, HERE).space
    plain, _ = run(given, Candidate.of(space, {layer.name: FLOAT32 for layer in space.layers}))
    formats = cycle((FLOAT16, STATIC_8, FLOAT32, FLOAT16, FLOAT16, STATIC_4, STATIC_8))
    found, called = run(given, Candidate.of(space, {layer.name: layer.widen(config) for layer, config
                                                    in zip(space.layers, formats, strict=False)}))
    assert {"quantise", "dequantise", "cast_float16", "cast_float32"} <= {
        name.rpartition("_")[0] for name in called}
    assert 0 < np.abs(found - plain).max() / np.ptp(plain) < 0.15


def test_a_processor_without_it_refuses_it() -> None:
    given = converted("separable")
    space = COMPILER.layers(given.model, HERE).space
    candidate = Candidate.of(space, {layer.name: layer.widen(FLOAT16) for layer in space.layers})
    quantiser = COMPILER.quantiser(given.model, given.statistics, COMPILER.layers(given.model, HOST), A72)
    with pytest.raises(InfeasibleCandidate, match=r"CONV_2D of .*: this processor has no arithmetic of float16"):
        quantiser.quantise(candidate)


@pytest.mark.parametrize(("target", "instruction"), [(A76, r"fmla\tv\d+\.8h"), (XEON, "vfmadd231ph\t")])
def test_sums_are_of_float16_there(target: Target, instruction: str) -> None:
    import tvm

    arithmetic = isa_of(target.machine, target.cpu_features).half
    assert arithmetic is not None and not arithmetic.as_float32
    window = Window(4, 4, 8, 32)
    tile = convolution.default_tile(window, arithmetic)
    function = convolution.convolution("k", window, arithmetic, tile, (1, 4, 4, 8), (1, 4, 4, 32))
    built = tvm.compile(tvm.IRModule({"k": function}), target=tvm.target.Target(kernel_options(target)))
    assert re.search(instruction, built.mod.inspect_source("asm"))
