"""The uniform recipes and the per-operator-kind seeds."""

from __future__ import annotations

import pytest

from search.recipes import UNIFORM, Named, seeds, uniform, weightless_seed
from search.space import FLOAT32, Layer, SearchSpace
from tests.search.spaces import DYNAMIC, FP16, INT4, INT8, mixed_space, small_space


def made(space: SearchSpace, name: str) -> Named:
    named = uniform(space, name, 3)
    assert isinstance(named, Named)
    return named


def test_float32_is_float32_everywhere() -> None:
    named = made(mixed_space(), "float32")
    assert {config for _, config in named.candidate.layers} == {FLOAT32}
    assert (named.name, named.widened, named.candidate.threads) == ("float32", (), 3)


def test_a_uniform_recipe_widens_where_it_is_not_legal_and_says_so() -> None:
    named = made(mixed_space(), "int4")
    assert named.candidate.config_of["stem"] == INT4
    assert named.candidate.config_of["dw"] == INT8
    assert named.widened == ("dw",)


def test_layers_without_weights_are_not_called_widened() -> None:
    named = made(mixed_space(), "fp16")
    assert named.candidate.config_of["soft"] == FLOAT32
    assert named.candidate.config_of["head"] == FP16
    assert named.widened == ()


def test_a_recipe_that_no_layer_can_take_is_absent_with_the_reason() -> None:
    assert uniform(small_space(), "int4", 1) == ("no layer of this network can take static_w4a8 on this compiler "
                                                 "and runtime")
    only = SearchSpace("tflite", (Layer("a", "CONV_2D", (FLOAT32, DYNAMIC), 10),
                                  Layer("s", "SOFTMAX", (FLOAT32, INT8))))
    assert isinstance(uniform(only, "int8", 1), str)


@pytest.mark.parametrize("name", UNIFORM)
def test_every_recipe_is_made_or_refused(name: str) -> None:
    for space in (small_space(), mixed_space()):
        found = uniform(space, name, 1)
        assert isinstance(found, str) or found.name == name


def test_seeds_have_names_and_formats_by_kind() -> None:
    found = {named.name: named.candidate.config_of for named in seeds(mixed_space(), 1)}
    assert list(found) == ["int8:weighted", "dynamic_int8:weighted", "int4:weighted", "int8:CONV_2D",
                           "int8:DEPTHWISE_CONV_2D", "int8:FULLY_CONNECTED", "int8:weighted+NORM",
                           "int8:weighted+SOFTMAX"]
    assert found["int8:weighted"] == {"stem": INT8, "dw": INT8, "norm": FLOAT32, "soft": FLOAT32, "head": INT8}
    assert found["int8:CONV_2D"] == {**found["int8:weighted"], "dw": FLOAT32, "head": FLOAT32}
    assert found["int8:weighted+SOFTMAX"] == {**found["int8:weighted"], "soft": INT8}
    assert found["int4:weighted"]["dw"] == INT8
    assert weightless_seed("MEAN+RSQRT") == "int8:weighted+NORM"


def test_seeds_that_would_repeat_a_recipe_are_left_out() -> None:
    names = [named.name for named in seeds(small_space(), 1)]
    assert names == ["int8:weighted", "dynamic_int8:weighted"]


def test_a_widened_seed_names_its_layers() -> None:
    (int4,) = (named for named in seeds(mixed_space(), 1) if named.name == "int4:weighted")
    assert int4.widened == ("dw",)
