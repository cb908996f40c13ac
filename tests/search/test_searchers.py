"""What every searcher must do, run over every name that can be asked for."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from orchestrator.config import StudyConfig
from search.adaptive.graph import Extra, Graph, Option, Site, Tables
from search.baselines.task import Task
from search.baselines.wiring import SEARCHERS, make_searcher
from search.samplers import SAMPLERS, Sampler, SamplerNotInstalled, UnknownSampler, check_installed
from tests.search.adaptive_spaces import every, random_graph
from tests.search.tasks import Bench, leveled

every_searcher = pytest.mark.parametrize("name", SEARCHERS)


def tied_graph() -> Graph:
    """Return three sites: two that are always pruned alike, and one with a single option."""
    rng = np.random.default_rng(0)
    while True:
        graph = random_graph(rng, 3, 3)
        if graph.groups and any(len(site.options) == 1 for site in graph.sites):
            return graph


@every_searcher
@pytest.mark.parametrize("graph", [leveled(2), leveled(1, levels=2), tied_graph()],
                         ids=["two sites", "one site", "tied"])
def test_proposes_every_legal_configuration_once_and_then_none(name: str, graph: Graph) -> None:
    bench = Bench.by_chance(graph)
    found = bench.drive(make_searcher(name, bench.task()), 200)
    assert len(found) == len(set(found))
    assert set(found) == {tuple(int(o) for o in config) for config in every(graph)}


@every_searcher
def test_a_space_of_one_configuration_is_proposed_once(name: str) -> None:
    graph = Graph((Site("only", "conv", (Option("float", "f", ("float", "p0")),)),))
    bench = Bench.by_chance(graph)
    assert bench.drive(make_searcher(name, bench.task()), 5) == [(0,)]


@every_searcher
def test_the_seed_decides(name: str) -> None:
    bench = Bench.by_chance(leveled(4, levels=2))
    one, same = (bench.drive(make_searcher(name, bench.task(seed=3)), 10) for _ in range(2))
    assert one == same


@every_searcher
def test_infeasible_answers_are_survived(name: str) -> None:
    bench = Bench.by_chance(leveled(4, levels=2))
    bench.runs = lambda config: config[1] % 2 == 0
    found = bench.drive(make_searcher(name, bench.task()), 14)
    assert len(set(found)) == 14


@every_searcher
def test_accuracies_that_nobody_knows_are_survived_and_never_shipped(name: str) -> None:
    bench = Bench.by_chance(leveled(3))
    bench.knows = False
    searcher = make_searcher(name, bench.task(share=2.0))
    assert len(set(bench.drive(searcher, 10))) == 10
    assert searcher.choice() is None


@every_searcher
def test_a_repeated_measurement_counts_and_is_not_proposed_again(name: str) -> None:
    bench = Bench.by_chance(leveled(3))
    task = bench.task()
    searcher = make_searcher(name, task)
    for _ in range(3):
        searcher.tell(task.int8, bench.latency_s(task.int8), 0.8, {})
    assert tuple(task.int8) not in bench.drive(searcher, 12)


@every_searcher
def test_what_is_shipped_was_measured_and_met_everything(name: str) -> None:
    bench = Bench.by_chance(leveled(4))
    task = bench.task(share=0.55)
    searcher = make_searcher(name, task)
    assert searcher.choice() is None
    bench.drive(searcher, 30)
    chosen = searcher.choice()
    assert chosen is not None
    assert task.budget_s is not None
    assert bench.latency_s(chosen) <= task.budget_s
    assert any(np.array_equal(chosen, config) for config, _ in bench.told)


@every_searcher
def test_what_breaks_another_constraint_is_not_shipped(name: str) -> None:
    bench = Bench.by_chance(leveled(3))
    task = bench.task(share=2.0)
    searcher = make_searcher(name, task)
    for config, accuracy, excess in ((task.floating, 0.9, 0.1), (task.int8, 0.8, -0.1)):
        for _ in range(3):
            searcher.tell(config, bench.latency_s(config), accuracy, {"size": excess})
    chosen = searcher.choice()
    assert chosen is not None
    assert np.array_equal(chosen, task.int8)


@every_searcher
def test_without_a_budget_the_fastest_is_shipped(name: str) -> None:
    bench = Bench.by_chance(leveled(3))
    searcher = make_searcher(name, bench.task(share=None, fastest=True))
    bench.drive(searcher, 12)
    chosen = searcher.choice()
    assert chosen is not None
    assert bench.latency_s(chosen) <= 1.01 * min(latency for _, latency in bench.told)


@every_searcher
def test_limits_that_need_no_board_hold(name: str) -> None:
    graph = leveled(4)
    bench = Bench.by_chance(graph)
    size = np.array([[[4.0, 1.0, 0.5]] * graph.depth] * graph.length)
    tables = Tables(graph, size, np.zeros_like(bench.seconds.edges))
    task = bench.task()
    limited = Task(task.prior, task.divergence, task.accuracy, task.budget_s, task.floating, task.int8, task.ladder, 0,
                   task.metrics, limits=lambda: (Extra(tables, 8.0),))
    found = bench.drive(make_searcher(name, limited), 12)
    assert len(found) == 12
    sizes = tables.total(np.array(found))
    assert sizes.max() <= 8.0 * 1.02 if name != "adaptive" else np.mean(sizes <= 8.0) >= 0.9


# Names


def test_every_name_has_a_factory_and_may_stand_in_a_study() -> None:
    assert list(SAMPLERS) == list(SEARCHERS)
    assert set(SAMPLERS) == set(get_args(StudyConfig.model_fields["sampler"].annotation))


@every_searcher
def test_only_those_that_say_so_stay_on_the_reduced_scale(name: str) -> None:
    bench = Bench.by_chance(leveled(2))
    task = bench.task()
    narrow = Task(task.prior, task.divergence, task.accuracy, task.budget_s, task.floating, task.int8,
                  ((0, 1), (0, 1)), 0, task.metrics)
    found = bench.drive(make_searcher(name, narrow), 20)
    assert len(found) == (4 if SAMPLERS[name].reduced else 9)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownSampler, match=r"no sampler is called 'grid'; known: adaptive, tpe, .*mixdq"):
        make_searcher("grid", Bench.by_chance(leveled(2)).task())


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "gp", Sampler("a line", True, "no_such_module", "hil-orchestrator[tflite]"))
    with pytest.raises(SamplerNotInstalled) as caught:
        check_installed("gp")
    assert str(caught.value) == ("the sampler 'gp' needs no_such_module, which is not installed; run \"pip install "
                                 "'hil-orchestrator[tflite]'\", or choose another sampler")


def test_a_ladder_must_have_an_option_for_every_site() -> None:
    task = Bench.by_chance(leveled(2)).task()
    with pytest.raises(ValueError, match="ladder: expected at least one option for each of the 2 sites"):
        Task(task.prior, task.divergence, task.accuracy, 1.0, task.floating, task.int8, ((0,), ()), 0, task.metrics)
