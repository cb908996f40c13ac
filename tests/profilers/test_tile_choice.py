"""The tile to take: faster in every session, compared with the first one of its own library."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profilers.measurement import KernelTime
from profilers.tile_choice import Turns, choose, turns
from recipes.compilers.tvm.kernels.convolution import Tile
from tests.profilers.test_layer_times import timed

ONE, TWO, THREE = Tile(1, 1), Tile(2, 1), Tile(2, 2)


def test_the_fastest_in_every_session_is_taken() -> None:
    found = choose([Turns((ONE, TWO, THREE), (100, 200, 300), ((1000, 900, 800), (1000, 910, 2000)))])
    assert (found.tile, found.code_bytes, found.tiles) == (TWO, 200, 3)
    assert (found.default_ns, found.best_ns) == (1000, 905)


def test_a_gain_within_the_noise_changes_nothing() -> None:
    found = choose([Turns((ONE, TWO), (100, 200), ((1000, 985), (1000, 900)))])
    assert (found.tile, found.best_ns, found.code_bytes) == (ONE, 1000, 100)


def test_libraries_compare_by_their_own_first_tile() -> None:
    slow, fast = Turns((ONE, TWO), (1, 2), ((2000, 1800),)), Turns((ONE, THREE), (1, 3), ((1000, 950),))
    found = choose([slow, fast])
    assert (found.tile, found.default_ns, found.best_ns, found.tiles) == (TWO, 1500, 1350, 3)


def test_what_sums_up_is_not_timed() -> None:
    measured = timed(("", 5), ("", 7), ("", 9))
    kernels = tuple(KernelTime(name, "", call.ns) for name, call in zip(
        ("conv_0", "tally_1", "conv_2"), measured.kernels, strict=True))
    assert turns(replace(measured, kernels=kernels), 2) == (5, 9)
    with pytest.raises(ValueError, match="3 tiles are in the library, the agent timed 0"):
        turns(timed(), 3)

