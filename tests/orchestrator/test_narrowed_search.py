"""The adaptive engine on formats and widths together: a budget that no format reaches, on the simulated board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_farm.inventory import Inventory
from orchestrator.config import StudyConfig
from orchestrator.host_oracle import PoolOracle
from orchestrator.pick import Picked
from orchestrator.progress import Silent
from orchestrator.store.store import Store
from orchestrator.stored_recipe import export_picked
from orchestrator.study_run import StudyRun
from orchestrator.study_view import view_of
from orchestrator.workbench import open_workbench
from profilers.accuracy import narrowing_divergence
from profilers.prior import roofline_prior, tables_of
from profilers.simulation import CORTEX_A72
from profilers.sites import sites_of
from recipes.bundle.document import load_recipe
from recipes.bundle.verify import verify_bundle
from recipes.compilers.build import BuildInputs, build
from recipes.compilers.graph import Graph, Operator
from recipes.compilers.layers import LayerMap
from recipes.compilers.shapes import shape_of
from recipes.compilers.tflite.graph import read_graph
from recipes.steps import FOLDER
from search.candidate import Candidate, Recovery
from search.recipes import uniform
from search.space import FLOAT32, LayerConfig

Searched = tuple[Store, dict[str, Any], LayerMap, BuildInputs]
KEYS: dict[str, Any] = {
    "study": "narrow", "device": "sim", "model": "demo:residual", "budget": "0.7x:int8", "prune": True,
    "sampler": "adaptive", "measurements": 8, "baselines": "needed"}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("narrowed")
    store, config = Store.open(folder / "store"), StudyConfig.model_validate(KEYS)
    document = StudyRun(store, Inventory(), config, Path.cwd(), Silent()).run()[1]
    with open_workbench(store, Inventory(), config, Path.cwd(), Silent()) as bench:
        return store, dict(document), bench.first.layers, bench.first.builder


def candidates(searched: Searched) -> list[tuple[Candidate, str]]:
    """Return every candidate that was built, with its artifact."""
    store, _, layers, _ = searched
    return [(Candidate.from_json(layers.space, h.trial.candidate), h.trial.artifact_sha256)
            for h in store.histories(store.study("narrow").id) if h.trial.artifact_sha256 is not None]


def test_a_budget_that_no_format_reaches_is_met_by_narrowing(searched: Searched) -> None:
    _, document, _, _ = searched
    int8 = next(entry for entry in document["baselines"] if entry["name"] == "int8")
    winner = document["winner"]
    assert document["goal_met"]
    assert winner["latency_s"]["median"] <= 0.7 * int8["latency_s"]["median"] * 1.001
    assert winner["accuracy"]["validation"] >= int8["accuracy"]["validation"] - 0.02
    narrowed = [c for c, _ in candidates(searched) if c.widths]
    assert len(narrowed) >= 4
    assert {c.recovery for c in narrowed} == {Recovery.RECONSTRUCT}


def test_candidates_and_configurations_become_each_other(searched: Searched) -> None:
    _, _, layers, _ = searched
    sites = sites_of(layers)
    for candidate, _ in candidates(searched):
        picks = sites.picks(candidate)
        assert sites.candidate(picks, candidate.threads) == candidate
        assert np.array_equal(sites.graph.settle(picks[None])[0], picks), "groups agree on their level"


def test_sites_that_share_channels_share_a_group(searched: Searched) -> None:
    _, _, layers, _ = searched
    graph = sites_of(layers).graph
    names = {site.name: site.group for site in graph.sites}
    for group in layers.space.groups:
        assert {names[layer] for layer in group.produced_by} == {group.name}
    for site in graph.sites:
        if site.kind == "ADD":
            assert {names[graph.sites[other].name] for other in (site.source, *site.skips)} == {site.group}


def test_the_prior_of_narrowed_layers_is_what_the_roofline_says_of_the_artifact(searched: Searched) -> None:
    store, _, layers, _ = searched
    sites = sites_of(layers)
    prior = roofline_prior(layers, sites, CORTEX_A72, threads=1)
    ratios = {c.id: float(prior.total(sites.picks(c)[None])[0]) / CORTEX_A72.seconds(read_graph(store.blobs.path(sha)))
              for c, sha in candidates(searched)}
    assert 0.9 < min(ratios.values()) <= max(ratios.values()) < 1.1


def test_a_tensor_that_two_layers_read_is_converted_once(searched: Searched) -> None:
    _, _, layers, builder = searched
    int8, first = uniform(layers.space, "int8", 1), layers.space.layers[0]
    assert not isinstance(int8, str)
    floating = {name: FLOAT32 for name in (first.name, layers.space.layers[-1].name)}
    candidate = Candidate.of(layers.space, {**int8.candidate.config_of, **floating})
    artifact, sites = read_graph(build(builder, candidate).artifact.path), sites_of(layers)
    assert len([edge for edge in sites.graph.edges if sites.graph.sites[edge[0]].name == first.name]) == 2
    converted = sum(CORTEX_A72.operator_s(artifact, op) for op in artifact.operators
                    if op.kind in ("QUANTIZE", "DEQUANTIZE") and artifact.activations(op))
    edges = roofline_prior(layers, sites, CORTEX_A72, threads=1).parts(sites.picks(candidate)[None])[1]
    assert edges.sum() == pytest.approx(converted)


def test_a_prior_asks_only_for_layers_that_exist(searched: Searched) -> None:
    _, _, layers, _ = searched
    asked = set()

    def cost(graph: Graph, op: Operator, _: LayerConfig) -> float:
        shape = shape_of(graph, op)
        asked.add(shape.kind)
        return float(shape.macs) + 1.0  # raises where no such layer can be built

    tables_of(layers, sites_of(layers), cost, lambda tensor, kind: 1.0)
    assert {"MEAN", "ADD", "CONV_2D"} <= asked


def test_the_narrower_a_group_the_more_its_estimate_diverges(searched: Searched) -> None:
    _, _, layers, builder = searched
    for group in (layers.space.groups[0], layers.space.groups[-1]):
        widths = [group.widths[1], group.widths[-1]] if len(group.widths) > 2 else [group.widths[-1]]
        found = [narrowing_divergence(builder, ((group.name, width),)) for width in widths]
        assert found == sorted(found)
        assert found[0] > 0
        assert narrowing_divergence(builder, ((group.name, widths[0]),)) == found[0], "the same twice"


def test_an_estimate_is_near_the_artifact_and_converts_nothing(searched: Searched) -> None:
    store, _, layers, builder = searched
    config = StudyConfig.model_validate(KEYS)
    float32, int8 = (uniform(layers.space, name, 1) for name in ("float32", "int8"))
    assert not isinstance(float32, str)
    assert not isinstance(int8, str)
    first, last = layers.space.groups[0], layers.space.groups[-1]
    formats = [named.candidate.config_of for named in (float32, int8)]
    narrowed = [Candidate.of(layers.space, config_of, 1, widths) for config_of in formats
                for widths in ({first.name: 8, last.name: 40}, {last.name: 16})]

    def converted() -> int:
        texts = [file.read_text("utf-8") for file in (store.blobs.root / FOLDER).rglob("*.json")]
        return sum('"ports"' in text for text in texts)

    with open_workbench(store, Inventory(), config, Path.cwd(), Silent()) as bench:
        oracle = PoolOracle(bench.pool, builder, bench.first.evaluator, float32.candidate)
        before = converted()
        estimates = oracle.estimates([*narrowed, int8.candidate])
        assert converted() == before
        builds = oracle.builds([*narrowed, int8.candidate])
        assert converted() == before + 2, "two combinations of widths"
    off = []
    for estimate, built in zip(estimates, builds, strict=True):
        assert estimate is not None
        assert built is not None
        off.append(abs(estimate.metrics["top1"] - built.metrics["top1"]))
        assert built.size_bytes
    assert [e is not None and e.size_bytes is None for e in estimates] == [True] * 4 + [False]
    assert max(off[:2]) <= 0.001, "float32: the recovered network is what is converted"
    assert max(off[2:4]) <= 0.02
    assert off[4] == 0, "nothing is narrowed: nothing is estimated"


def test_every_measured_candidate_has_a_recipe_however_it_is_cut(searched: Searched, tmp_path: Path) -> None:
    store, document, _, _ = searched
    view = view_of(store, "narrow")
    assert view.goal is not None
    others = [point for point in view.points if point.trial.candidate_id != document["winner"]["candidate_id"]]
    assert len({tuple(sorted(point.widths.items())) for point in others}) > 2
    for point in others:
        folder = tmp_path / point.trial.candidate_id
        export_picked(store, view, Picked(point, view.goal, view.config, False, None, "not asked"), folder)
        assert [check for check in verify_bundle(folder) if not check.ok] == []
        recipe = load_recipe(folder)
        assert recipe.to_candidate().id == point.trial.candidate_id
        assert recipe.to_candidate().for_all == point.for_all
