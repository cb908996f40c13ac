"""Layer configurations, layers, spaces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from search.space import BITS, FLOAT32, Granularity, Layer, LayerConfig, Scheme, SearchSpace
from tests.search.spaces import ALL, DYNAMIC, FP16, INT4, INT8, WEIGHT_ONLY, calibrated_space, mixed_space, small_space


def every_config() -> Iterator[LayerConfig]:
    """Everything that can be constructed."""
    for weight, activation, scheme, grain in itertools.product(BITS, BITS, Scheme, Granularity):
        try:
            yield LayerConfig(weight, activation, scheme, grain)
        except ValueError:
            continue


def test_labels_come_back_as_the_configuration_and_are_all_different() -> None:
    configs = list(every_config())
    assert len(configs) > 100
    assert all(LayerConfig.from_label(config.label) == config for config in configs)
    assert len({config.label for config in configs}) == len(configs)


def test_labels_are_the_documented_ones() -> None:
    assert [config.label for config in ALL] == [
        "float32", "fp16", "weight_only_w8", "dynamic_w8", "static_w8a8", "static_w4a8"]
    assert LayerConfig(8, 8, Scheme.STATIC, Granularity.TENSOR).label == "static_w8a8_tensor"


@pytest.mark.parametrize("label", ["", "int8", "static_w8", "static_w9a8", "dynamic_w8a8", "static_w8a8_channel",
                                   "float_w8", "static_wa8", "STATIC_w8a8", "static_w8a8 "])
def test_a_label_that_nothing_prints_is_refused_by_name(label: str) -> None:
    with pytest.raises(ValueError, match="no layer configuration is called") as caught:
        LayerConfig.from_label(label)
    assert repr(label) in str(caught.value)


@pytest.mark.parametrize(("arguments", "message"), [
    ((5, 8, Scheme.STATIC), "weight_bits: expected one of .* got 5"),
    ((8, 7, Scheme.STATIC), "activation_bits: expected one of .* got 7"),
    ((8, 8, Scheme.DYNAMIC), "dynamic layer keeps float32 activations, got 8"),
    ((8, 8, Scheme.WEIGHT_ONLY), "weight_only layer keeps float32 activations, got 8"),
    ((8, 32, Scheme.STATIC), "static layer needs integer activations"),
    ((8, 32, Scheme.FLOAT), "float layer has 16 or 32 weight bits, got 8"),
    ((32, 32, Scheme.FLOAT, Granularity.TENSOR), "float layer has no scales"),
])
def test_contradictions_are_refused(arguments: tuple[int, int, Scheme], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerConfig(*arguments)


def test_sorting_puts_the_widest_first() -> None:
    for shuffled in itertools.permutations(ALL):
        assert tuple(sorted(shuffled, key=lambda c: c.sort_key)) == ALL


def test_a_layer_needs_choices_widest_first() -> None:
    with pytest.raises(ValueError, match="layer a .CONV_2D. has no legal configuration"):
        Layer("a", "CONV_2D", ())
    with pytest.raises(ValueError, match="layer a: choices must be sorted, widest first"):
        Layer("a", "CONV_2D", (INT8, FLOAT32))


@pytest.mark.parametrize(("choices", "asked", "expected"), [
    (ALL, INT4, INT4),
    ((FLOAT32, FP16, INT8), INT4, INT8),
    ((FLOAT32, FP16), INT8, FLOAT32),
    ((FLOAT32, INT4), INT8, FLOAT32),
    ((FLOAT32, INT8), DYNAMIC, FLOAT32),
    ((FLOAT32,), WEIGHT_ONLY, FLOAT32),
    ((FLOAT32, LayerConfig(8, 16, Scheme.STATIC), INT8), INT4, INT8),
])
def test_widening_keeps_the_scheme_and_never_narrows(
        choices: tuple[LayerConfig, ...], asked: LayerConfig, expected: LayerConfig) -> None:
    assert Layer("a", "CONV_2D", choices).widen(asked) == expected


def test_widening_is_legal_and_idempotent_for_every_choice_list() -> None:
    for size in range(1, len(ALL) + 1):
        for choices in itertools.combinations(ALL, size):
            layer = Layer("a", "CONV_2D", choices)
            for asked in ALL:
                got = layer.widen(asked)
                assert got in choices
                assert layer.widen(got) == got
                assert got == choices[0] or (got.scheme is asked.scheme and got.weight_bits >= asked.weight_bits)


def test_a_name_stands_for_one_layer() -> None:
    with pytest.raises(ValueError, match="got twice: a"):
        SearchSpace("tflite", (Layer("a", "X", (FLOAT32,)), Layer("b", "X", (FLOAT32,)), Layer("a", "X", (FLOAT32,))))


def test_the_size_of_a_space() -> None:
    assert small_space().log10_size == pytest.approx(math.log10(18))
    assert mixed_space().log10_size == pytest.approx(math.log10(6 * 5 * 2 * 2 * 6))
    assert calibrated_space(small_space()).log10_size == pytest.approx(math.log10(18 * 3 * 2))


def test_a_space_with_fewer_choices_for_all_layers_is_a_part_of_one_with_more() -> None:
    more = calibrated_space(small_space())
    assert small_space().part_of(more)
    assert more.part_of(more)
    assert not more.part_of(small_space())
    assert not small_space().part_of(mixed_space())


def test_a_space_offers_one_calibration_at_least() -> None:
    nothings: list[dict[str, Any]] = [{"calibrations": ()}, {"clippings": ()}]
    for nothing in nothings:
        with pytest.raises(ValueError, match="at least one way of calibration and one of clipping"):
            replace(small_space(), **nothing)
