"""The analytic prior against the same roofline on the artifacts that a search really built."""

from __future__ import annotations

import pytest

from orchestrator.store.store import Store
from profilers.prior import roofline_prior
from profilers.simulation import CORTEX_A72
from profilers.sites import sites_of
from recipes.compilers.layers import LayerMap
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.target import Target
from search.candidate import Candidate
from tests.orchestrator.searches import demo_search


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, LayerMap]:
    folder, _ = demo_search(tmp_path_factory)
    store = Store.open(folder / "store")
    graph = read_graph(store.folder / "recipes" / "demo" / "float.tflite")
    return store, map_layers(graph, Target("x86_64", "litert", "2.3.0"))


def test_sites_are_the_layers_in_the_order_of_the_data(searched: tuple[Store, LayerMap]) -> None:
    _, layers = searched
    sites = sites_of(layers)
    own = sites.graph.sites[:-2]
    assert sorted(site.name for site in own) == sorted(layers.space.by_name)
    for index, site in enumerate(own):
        assert len(site.options) == len(layers.space.by_name[site.name].choices)
        assert all(other < index for other in (site.source, *site.skips))
    assert sum(site.source < 0 for site in own) == 1, "one network input"
    assert [(site.name, len(site.options), site.free) for site in sites.graph.sites[-2:]] == [
        (":calibration", 3, True), (":clipping", 2, True)], "what is chosen for all layers comes last"


def test_formats_that_the_runtime_unpacks_compute_like_float32(searched: tuple[Store, LayerMap]) -> None:
    (_, layers), found = searched, dict[str, set[str]]()
    for site in sites_of(layers).graph.sites:
        for option in () if site.free else site.options:
            found.setdefault(option.arithmetic, set()).add(option.scheme)
    assert {"float32", "fp16", "weight_only_w8"} <= found["float"]
    assert found["static"] == {"static_w8a8", "static_w4a8"}
    assert len(found) == 3


def test_the_prior_is_what_the_roofline_says_of_the_artifact(searched: tuple[Store, LayerMap]) -> None:
    store, layers = searched
    sites = sites_of(layers)
    prior = roofline_prior(layers, sites, CORTEX_A72, threads=1)
    ratios = []
    for history in store.histories(store.study("demo").id):
        if history.trial.artifact_sha256 is None:
            continue
        candidate = Candidate.from_json(layers.space, history.trial.candidate)
        picks = sites.picks(candidate)[None]
        artifact = read_graph(store.blobs.path(history.trial.artifact_sha256))
        ratios.append(float(prior.total(picks)[0]) / CORTEX_A72.seconds(artifact))
    assert len(ratios) >= 8
    assert max(ratios) / min(ratios) < 1.08, "out of proportion"
    assert 0.9 < min(ratios) <= max(ratios) < 1.1
