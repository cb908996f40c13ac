"""Real conversions: they compute what PyTorch does, keep the layers' names, and leave no needless TRANSPOSE."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recipes.compilers.compare import Worst, differing_metrics, worst_output
from recipes.errors import ConversionMismatch
from tests.recipes.conversion_cases import NETWORKS, Converted, converted, corrupted, mixes

EXACT = 1e-5
"""As a share of an output's range."""
NAMES = {
    "flat": ["first", "second", "hidden", "head"],
    "normalised": ["body.0", "body.2", "body.3", "body.5", "mean", "head"],
    "segmenting": ["down", "deep", "up", "add", "out"],
    "pair": ["look", "mean", "weigh", "kind", "value"],
    "signal": ["first", "second", "mean", "head"],
    "shared": ["twice", "head"],
    "channels_last": [*(str(2 * i) for i in range(8)), "mean"],
    "underscores": ["0.layer_1", "1.layer_1"],
    "one_layer": ["fully_connected"],
}


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """One process for all conversions: the converter warns, prints, and takes seconds to import."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def kinds(case: Converted) -> Counter[str]:
    return Counter(op.kind for op in case.layers.graph.operators)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "convolutions"])
def test_it_computes_what_pytorch_computes_under_the_same_names(name: str, pool: ProcessPoolExecutor) -> None:
    case = pool.submit(converted, name).result()
    assert case.deviation < EXACT
    assert case.difference is None
    if name in NAMES:
        assert [layer.name for layer in case.layers.space.layers] == NAMES[name]
    if name not in ("text", "pair"):
        assert kinds(case)["TRANSPOSE"] == 0


@pytest.mark.parametrize("name", ["flat", "normalised", "shared", "pair", "channels_last"])
def test_a_pt2_gives_the_same_model_as_the_network_in_it(name: str, pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    archive, network = pool.submit(converted, name, tmp_path).result(), pool.submit(converted, name).result()
    assert archive.deviation < EXACT
    assert archive.difference is None
    assert archive.layers.space == network.layers.space
    assert kinds(archive) == kinds(network)
    assert archive.ports == network.ports


@pytest.mark.parametrize("name", ["flat", "segmenting", "shared", "pair", "signal", "underscores", "bytes"])
def test_an_onnx_file_gives_the_same_model_as_the_network_in_it(name: str, pool: ProcessPoolExecutor,
                                                                tmp_path: Path) -> None:
    file = pool.submit(converted, name, tmp_path, "onnx").result()
    network = pool.submit(converted, name).result()
    assert file.deviation < EXACT
    assert file.difference is None
    assert file.layers.space == network.layers.space
    assert kinds(file) == kinds(network)
    assert file.ports == network.ports


def test_images_are_channels_last_and_vectors_stay(pool: ProcessPoolExecutor) -> None:
    ports = pool.submit(converted, "pair").result().ports
    assert [(p.source, p.shape, p.channels_last) for p in ports.inputs] == [
        ("image", (1, 8, 8, 3), True), ("facts", (1, 5), False)]
    assert [(p.source, p.shape) for p in ports.outputs] == [("0", (1, 4)), ("1", (1, 1)), ("2", (1, 16))]
    segmenting = pool.submit(converted, "segmenting").result().ports
    assert segmenting.outputs[0].shape == (1, 16, 16, 4)
    assert segmenting.outputs[0].channels_last


def test_token_ids_become_32_bit(pool: ProcessPoolExecutor) -> None:
    port = pool.submit(converted, "text").result().ports.inputs[0]
    assert (port.dtype, port.shape, port.channels_last) == ("int32", (1, 12), False)


def test_a_hundred_layers_are_a_hundred_variables_with_weights(pool: ProcessPoolExecutor) -> None:
    layers = pool.submit(converted, "deep").result().layers
    assert [layer.name for layer in layers.space.layers if layer.weights] == [str(2 * i) for i in range(100)]


def test_other_memory_formats_give_the_same_model(pool: ProcessPoolExecutor) -> None:
    plain, other = (pool.submit(converted, name).result() for name in ("convolutions", "channels_last"))
    assert plain.model == other.model


def test_a_layer_that_is_used_twice_is_one_variable(pool: ProcessPoolExecutor) -> None:
    layers = pool.submit(converted, "shared").result().layers
    assert len(layers.operators["twice"]) == 2
    assert layers.space.by_name["twice"].weights == 64


@pytest.mark.parametrize("name", ["text", "shared", "pair", "bytes"])
def test_random_mixes_can_be_built_and_run(name: str, pool: ProcessPoolExecutor) -> None:
    assert pool.submit(mixes, name, 20).result() == 20


@pytest.mark.parametrize("name", ["flat", "normalised", "segmenting", "text"])
def test_the_layer_that_differs_is_named(name: str, pool: ProcessPoolExecutor) -> None:
    found = pool.submit(corrupted, name).result()
    assert len(found) > 2
    assert {layer: difference.layer if difference else None for layer, difference in found.items()} == {
        layer: layer for layer in found}


def test_the_worst_output_is_found() -> None:
    wanted = [np.array([[0.0, 1.0], [0.5, 0.25]], np.float32), np.array([[0.0], [10.0]], np.float32)]
    got = [wanted[0], np.array([[0.0], [10.5]], np.float32)]
    assert worst_output(wanted, got) == Worst(1, 1, 0.05)


def test_other_shapes_are_a_mismatch() -> None:
    with pytest.raises(ConversionMismatch, match=r"\(2, 3\).*\(2, 2\)"):
        worst_output([np.zeros((2, 2))], [np.zeros((2, 3))])


@pytest.mark.parametrize(("wanted", "got", "far"), [
    (0.9, 0.9049, False), (0.9, 0.8949, True), (0.0, 0.006, True), (-200.0, -200.9, False), (-200.0, -201.1, True)])
def test_metrics_differ_from_half_a_point_on(wanted: float, got: float, far: bool) -> None:
    message = differing_metrics({"m": wanted}, {"m": got})
    assert (message is not None) == far
    assert message is None or f"{got:.4f}" in message
