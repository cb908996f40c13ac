"""A candidate's identity is its canonical form."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.candidate import Candidate, candidate_in
from search.space import FLOAT32, Calibration, Clipping, LayerConfig, SearchSpace
from tests.search.spaces import DYNAMIC, FP16, INT4, INT8, WEIGHT_ONLY, calibrated_space, mixed_space, small_space


def draw(space: SearchSpace, rng: np.random.Generator, threads: int = 1) -> Candidate:
    configs = {layer.name: layer.choices[rng.integers(len(layer.choices))] for layer in space.layers}
    return Candidate.of(space, configs, threads)


def test_a_canonical_form_is_read_back_as_the_same_candidate() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        candidate = draw(mixed_space(), rng, int(rng.integers(1, 5)))
        again = Candidate.from_json(mixed_space(), candidate.canonical)
        assert again == candidate
        assert again.id == candidate.id


def test_different_candidates_have_different_ids() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(mixed_space(), rng, int(rng.integers(1, 3))) for _ in range(600)]
    assert len({c.id for c in drawn}) == len({(c.layers, c.threads) for c in drawn}) > 300


def test_the_id_depends_neither_on_the_order_given_nor_on_the_process() -> None:
    space = small_space()
    configs = {"l0": INT8, "l1": FLOAT32, "l2": FLOAT32}
    candidate = Candidate.of(space, configs)
    assert Candidate.of(space, dict(reversed(configs.items()))).id == candidate.id
    code = ("from tests.search.spaces import *; print(Candidate.of(small_space(), "
            "{'l2': FLOAT32, 'l1': FLOAT32, 'l0': INT8}).id)")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                             cwd=Path(__file__).parents[2])
    assert printed.stdout.strip() == candidate.id


def test_the_order_of_layers_in_a_space_does_not_matter() -> None:
    space = mixed_space()
    turned = SearchSpace(space.compiler, tuple(reversed(space.layers)))
    configs = {layer.name: layer.choices[-1] for layer in space.layers}
    assert Candidate.of(space, configs).id == Candidate.of(turned, configs).id


def test_the_canonical_form_is_what_bundles_and_stores_rely_on() -> None:
    candidate = Candidate.of(small_space(), {"l0": INT8, "l1": FLOAT32, "l2": FLOAT32}, threads=2)
    expected = ('{"compiler":"tflite","layers":{"l0":"static_w8a8","l1":"float32","l2":"float32"},"threads":2}')
    assert candidate.canonical == expected
    assert candidate.id == hashlib.sha256(expected.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("configs", "message"), [
    ({"l0": INT8, "l1": INT8}, r"unknown \[\], missing \['l2'\]"),
    ({"l0": INT8, "l1": INT8, "l2": INT8, "l3": INT8}, r"unknown \['l3'\], missing \[\]"),
    ({"l0": INT8, "l1": INT4, "l2": INT8}, "layer l1: static_w4a8 is not legal; legal: float32, dynamic_w8, static"),
    ({"l0": FP16, "l1": INT8, "l2": INT8}, "layer l0: fp16 is not legal"),
])
def test_what_does_not_fit_the_space_is_refused(configs: dict[str, LayerConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Candidate.of(small_space(), configs)


def test_reading_checks_against_the_space() -> None:
    stored = json.loads(Candidate.of(small_space(), {f"l{i}": INT8 for i in range(3)}).canonical)
    for change, message in (({"layers": {**stored["layers"], "l1": "static_w4a8"}}, "l1: static_w4a8 is not legal"),
                            ({"layers": {**stored["layers"], "l1": "int5"}}, "no layer configuration"),
                            ({"compiler": "tvm"}, "compiler.*'tflite'.*'tvm'"),
                            ({"threads": 0}, "threads: expected at least 1, got 0")):
        with pytest.raises(ValueError, match=message):
            Candidate.from_json(small_space(), json.dumps({**stored, **change}))


def test_of_several_spaces_a_candidate_is_read_in_that_of_its_own_compiler() -> None:
    """The same layers in the same formats are two candidates."""
    spaces = {name: replace(small_space(), compiler=name) for name in ("tflite", "tvm")}
    made = {name: Candidate.of(space, dict.fromkeys(space.by_name, FLOAT32)) for name, space in spaces.items()}
    assert made["tflite"].id != made["tvm"].id
    for name, candidate in made.items():
        assert candidate_in(spaces, candidate.canonical) == candidate
        assert candidate_in(spaces, candidate.canonical).compiler == name
    with pytest.raises(ValueError, match="the spaces are of tvm, the candidate of 'tflite'"):
        candidate_in({"tvm": spaces["tvm"]}, made["tflite"].canonical)


def test_choices_for_all_layers_are_part_of_the_identity() -> None:
    space = calibrated_space(small_space())
    configs = {"l0": INT8, "l1": FLOAT32, "l2": FLOAT32}
    plain = Candidate.of(space, configs)
    assert plain.id == Candidate.of(small_space(), configs).id
    chosen = Candidate.of(space, configs, calibration=Calibration.MSE, clipping=Clipping.OCTAV)
    assert chosen.canonical == plain.canonical.replace(
        '"compiler"', '"calibration":"mse","clipping":"octav","compiler"')
    assert Candidate.from_json(space, chosen.canonical) == chosen
    assert chosen.for_all == {"calibration": "mse", "clipping": "octav"}
    with pytest.raises(ValueError, match="calibration: mse is not legal; legal: min_max"):
        Candidate.from_json(small_space(), chosen.canonical)
    with pytest.raises(ValueError, match="clipping: octav is not legal; legal: none"):
        Candidate.of(small_space(), configs, clipping=Clipping.OCTAV)


@pytest.mark.parametrize(("config", "kept"), [
    (FLOAT32, {}), (FP16, {}), (DYNAMIC, {"clipping": "octav"}), (WEIGHT_ONLY, {"clipping": "octav"}),
    (INT8, {"calibration": "percentile", "clipping": "octav"}),
])
def test_choices_that_change_nothing_are_as_by_default(config: LayerConfig, kept: dict[str, str]) -> None:
    space = calibrated_space(mixed_space())
    configs = {layer.name: FLOAT32 for layer in space.layers} | {"stem": config}
    found = Candidate.of(space, configs, calibration=Calibration.PERCENTILE, clipping=Clipping.OCTAV)
    assert found.for_all == kept


def test_layers_without_weights_have_nothing_to_clip() -> None:
    space = calibrated_space(mixed_space())
    configs = {layer.name: FLOAT32 for layer in space.layers} | {"soft": INT8}
    found = Candidate.of(space, configs, calibration=Calibration.PERCENTILE, clipping=Clipping.OCTAV)
    assert found.for_all == {"calibration": "percentile"}
