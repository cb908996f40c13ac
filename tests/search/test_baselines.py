"""The idea of every baseline: each test fails when the idea is taken out."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.baselines.ase import RADIUS, Ase
from search.baselines.baseline import Baseline
from search.baselines.fedspine import FedSpine
from search.baselines.ledger import Ledger
from search.baselines.ohq import uniform_configs
from search.baselines.ordinal import Scale
from search.baselines.task import Metrics, Task
from search.baselines.wiring import make_searcher
from search.goal import Goal
from tests.search.adaptive_spaces import every, losses, proposer, totals
from tests.search.spaces import AdditiveBoard, wide_space
from tests.search.tasks import Bench, leveled


def merits(name: str, seed: int, count: int = 40) -> list[float]:
    """Return accuracies less twice what exceeds the budget, of a search on ten sites."""
    bench = Bench.by_chance(leveled(10))
    task = bench.task(share=0.45, seed=seed)
    bench.drive(make_searcher(name, task), count)
    budget = task.budget_s or 1.0
    return [float(bench.accuracy(c[None])[0]) - 2 * max(t / budget - 1, 0) for c, t in bench.told]


# The scale


def test_the_scale_has_a_scheme_and_a_level_for_every_site_and_comes_back() -> None:
    graph = leveled(3, levels=2)
    scale = Scale(graph, [range(len(site.options)) for site in graph.sites], 0)
    assert [(v.name, v.count) for v in scale.variables] == [
        ("s0", 3), ("s1", 3), ("s2", 3), ("s0/level", 2), ("s1/level", 2), ("s2/level", 2)]
    for config in every(graph):
        values = scale.encode(config)
        assert values is not None
        assert np.array_equal(scale.decode(values), config)


def test_what_is_not_on_the_scale_is_said_so_and_stays_where_it_is_not_changed() -> None:
    graph = leveled(3)
    scale = Scale(graph, ((0, 1), (0, 1), (0, 1)), 0)
    outside = np.array([2, 2, 2])
    assert scale.encode(outside) is None
    changed = [scale.mutate(outside, 1) for _ in range(20)]
    assert all((config != outside).sum() == 1 for config in changed)
    assert {int(o) for config in changed for o in config} == {0, 1, 2}


# Chance and Optuna


def test_chance_takes_every_value_equally_often() -> None:
    graph = leveled(6, levels=2)
    bench = Bench.by_chance(graph)
    found = np.array(bench.drive(make_searcher("random", bench.task()), 400))
    shares = [np.mean(found == option) for option in range(graph.width)]
    assert min(shares) > 0.8 / graph.width
    assert max(shares) < 1.2 / graph.width


def test_every_other_proposal_of_tpe_is_a_step_from_the_best() -> None:
    graph = leveled(10, levels=2)
    bench = Bench.by_chance(graph)
    task = bench.task()
    searcher = make_searcher("tpe", task)
    searcher.tell(task.floating, bench.latency_s(task.floating), 0.9, {})
    searcher.tell(task.int8, bench.latency_s(task.int8), float(bench.accuracy(task.int8[None])[0]), {})
    steps: list[int] = []
    others: list[int] = []
    for turn in range(12):
        best = searcher.choice()
        config = searcher.propose()
        assert config is not None
        if best is not None:
            (steps if turn % 2 else others).append(int((config != best).sum()))
        bench.answer(searcher, config)
    assert len(steps) >= 4
    assert max(steps) == 1
    assert statistics.mean(others) > 3


@pytest.mark.parametrize(("name", "seeds"), [("nsga2", 2), ("gp", 1), ("quantune", 2)])
def test_proposals_get_better_than_chance(name: str, seeds: int) -> None:
    """Of nsga2 the selection, of gp and quantune the prediction."""
    learned, chance = ([statistics.mean(merits(which, seed, 20 if name == "gp" else 40)[-8:]) for seed in range(seeds)]
                       for which in (name, "random"))
    assert min(learned) > max(chance) + 0.05, (learned, chance)


def test_nsga2_keeps_what_is_fast_and_what_is_accurate() -> None:
    """One objective alone would drive everything to one end of the front."""
    bench = Bench.by_chance(leveled(10))
    bench.drive(make_searcher("nsga2", bench.task(share=None)), 90)
    latency = np.array([seconds for _, seconds in bench.told])
    accuracy = bench.accuracy(np.array([config for config, _ in bench.told]))
    assert np.quantile(latency[50:], 0.1) <= np.quantile(latency[:16], 0.2)
    assert np.quantile(accuracy[50:], 0.9) >= np.quantile(accuracy[:16], 0.8)


# Integer programs


def hawq_of(bench: Bench, prior: Tables) -> tuple[Task, Ints]:
    task = bench.task(share=0.5, prior=prior)
    searcher = make_searcher("hawq", task)
    searcher.tell(task.int8, bench.latency_s(task.int8), 0.8, {})
    config = searcher.propose()
    assert config is not None
    return task, config


def scaled(tables: Tables, factor: float) -> Tables:
    return Tables(tables.graph, tables.sites * factor, tables.edges * factor)


@pytest.mark.parametrize("factor", [1.0, 0.2, 7.0])
def test_hawq_solves_the_program_with_the_prior_rescaled(factor: float) -> None:
    bench = Bench.by_chance(leveled(5))
    task, config = hawq_of(bench, scaled(bench.seconds, factor))
    assert task.budget_s is not None
    assert bench.latency_s(config) <= task.budget_s
    near = bench.optimum(task.budget_s * 0.95)
    assert losses(bench.loss, config[None])[0] <= near + 1e-9


def test_hawq_walks_on_until_something_meets_the_budget() -> None:
    """The prior thinks int4 four times as fast as it is."""
    bench = Bench.by_chance(leveled(6))
    wrong = bench.seconds.sites.copy()
    wrong[:, :, 2] /= 4
    task = bench.task(share=0.5, prior=Tables(bench.graph, wrong, bench.seconds.edges))
    searcher = make_searcher("hawq", task)
    bench.answer(searcher, task.int8)
    bench.drive(searcher, 12)
    chosen = searcher.choice()
    assert chosen is not None
    assert task.budget_s is not None
    assert bench.latency_s(bench.told[1][0]) > task.budget_s, "else there is nothing to walk on from"
    best = min(float(losses(bench.loss, c[None])[0]) for c, t in bench.told if t <= task.budget_s)
    assert losses(bench.loss, chosen[None])[0] == pytest.approx(best)


def test_ohq_measures_every_scheme_and_level_first() -> None:
    graph = leveled(4, levels=2)
    bench = Bench.by_chance(graph)
    task = bench.task()
    schemes, levels = uniform_configs(graph, task.int8)
    assert (list(schemes), list(levels)) == (["float", "int8", "int4"], [1])
    found = bench.drive(make_searcher("ohq", task), 5)
    assert found[:4] == [tuple(int(o) for o in c) for c in [*schemes.values(), *levels.values()]]
    assert found[4] not in found[:4]


def test_ohq_learns_from_profiles_which_site_the_prior_is_wrong_about() -> None:
    """On this chip int8 is slow at half of the sites; the prior, and the time of the whole, know nothing of it."""
    bench = Bench.by_chance(leveled(6))
    prior = Tables(bench.graph, bench.seconds.sites, np.zeros_like(bench.seconds.edges))
    true = prior.sites.copy()
    true[::2, :, 1] *= 2.5
    bench.seconds = Tables(bench.graph, true, prior.edges)
    bench.loss[:, 2] += 0.5  # int4 is no way out
    task = bench.task(share=0.8, prior=prior)

    def first_solution(profiled: bool) -> Ints:
        searcher = make_searcher("ohq", task)
        assert isinstance(searcher, Baseline)
        assert searcher.sites is not None
        while True:
            config = searcher.propose()
            assert config is not None
            if not searcher.sites.wants_profile(config):
                return config
            if profiled:
                searcher.sites.tell_profile(config, bench.seconds.parts(config[None])[0][0])
            bench.answer(searcher, config)

    told = first_solution(profiled=True)
    assert (told[::2] == 0).all(), "int8 saves nothing there"
    assert task.budget_s is not None
    assert bench.latency_s(told) <= task.budget_s < bench.latency_s(first_solution(profiled=False))


def test_mixdq_spares_the_layer_that_ruins_a_metric_of_its_own() -> None:
    graph = leveled(5)
    bench = Bench.by_chance(graph)
    bench.loss[0] *= 0.01  # harmless to the objective
    second: Floats = np.zeros_like(bench.loss)
    second[0, 1:] = 0.3
    metrics = Metrics(lambda configs: {"top1": bench.accuracy(configs), "recall": 0.9 - losses(second, configs)},
                      {"top1": None, "recall": 0.8})
    first = {}
    for name in ("hawq", "mixdq"):
        task = bench.task(share=0.6, metrics=metrics)
        searcher = make_searcher(name, task)
        bench.answer(searcher, task.int8)
        config = searcher.propose()
        assert config is not None
        first[name] = config
    assert first["hawq"][0] > 0
    assert first["mixdq"][0] == 0
    assert totals(bench.seconds, first["mixdq"][None])[0] < totals(bench.seconds, np.zeros((1, 5), np.int64))[0]


# Subspaces and bandits


def test_ase_searches_near_the_candidate_that_proved_good() -> None:
    bench = Bench.by_chance(leveled(8))
    task = bench.task(share=0.5)
    ledger, scale = Ledger(task, task.ladder), Scale(task.graph, task.ladder, 0)
    asked = Baseline(ledger, Ase(ledger, scale), scale)
    found = [np.array(c) for c in bench.drive(asked, 40)]
    uniform, others = found[:3], found[3:]
    assert sorted({int(c[0]) for c in uniform if len(set(c.tolist())) == 1}) == [0, 1, 2], "well-designed ones first"
    for place, config in enumerate(others, 3):
        assert min(int((config != before).sum()) for before in found[:place]) <= RADIUS
    best = max(uniform, key=lambda c: ledger.merit(next(
        r for r in ledger.results.values() if r.config == tuple(int(o) for o in c))))
    away = [min((int((c != u).sum()), not np.array_equal(u, best)) for u in uniform)[1] for c in others[:12]]
    assert statistics.mean(away) < 0.4, "most of the next ones are near the best of the three"


def test_ase_makes_what_it_found_a_candidate_of_its_own() -> None:
    merit = [max(merits("ase", seed)) for seed in range(3)]
    chance = [max(merits("random", seed)) for seed in range(3)]
    assert min(merit) > max(chance)
    bench = Bench.by_chance(leveled(10))
    task = bench.task(share=0.45)
    found = np.array(bench.drive(make_searcher("ase", task), 60))
    distance = [min(int((c != u).sum()) for u in found[:3]) for c in found]
    assert max(distance) > RADIUS, "it must leave the surroundings of the uniform ones"


def test_fedspine_quantises_the_layers_first_that_lose_least_for_what_they_save() -> None:
    bench = Bench.by_chance(leveled(6))
    bench.loss[3] = 0.0
    bench.loss[4] *= 100
    task = bench.task()
    spine = FedSpine(Ledger(task, task.ladder), 0)
    way = [spine.compressed(share, 0.0) for share in np.linspace(0, 1, 7)]
    assert (way[0] == 0).all()
    assert way[1][3] > 0
    assert way[4][4] == 0
    costs = totals(bench.seconds, np.array(way))
    assert (np.diff(costs) <= 0).all()
    assert costs[-1] < 0.6 * costs[0]


def test_fedspine_prunes_apart_from_quantising() -> None:
    bench = Bench.by_chance(leveled(4, levels=2))
    task = bench.task()
    spine = FedSpine(Ledger(task, task.ladder), 0)
    levels = [[bench.graph.sites[s].options[int(o)].level for s, o in enumerate(spine.compressed(0.5, share))]
              for share in (0.0, 1.0)]
    assert levels[0] == [0, 0, 0, 0]
    assert sum(levels[1]) >= 3


def test_fedspine_comes_back_to_the_ratios_that_paid() -> None:
    misses = []
    for seed in range(6):
        bench = Bench.by_chance(leveled(20))
        task = bench.task(share=0.5, seed=seed)
        bench.drive(make_searcher("fedspine", task), 16)
        misses.extend([abs(latency / (task.budget_s or 1.0) - 1) for _, latency in bench.told[-6:]])
    assert statistics.mean(misses) < 0.25, "0.36 without halving, 0.45 without rewards"


# The ledger's rule


def test_ties_go_to_the_faster_and_readings_to_their_median() -> None:
    bench = Bench.by_chance(leveled(2))
    task = bench.task()
    task = Task(task.prior, task.divergence, task.accuracy, 1.0, task.floating, task.int8, task.ladder, 0, task.metrics,
                tie=0.01)
    ledger = Ledger(task, task.ladder)
    ledger.tell(np.array([0, 0]), 0.9, 0.905, {})
    ledger.tell(np.array([0, 1]), 0.5, 0.900, {})
    ledger.tell(np.array([1, 1]), 0.4, 0.800, {})
    assert np.array_equal(ledger.choice(), [0, 1])  # type: ignore[arg-type]
    for latency in (1.2, 1.3):
        ledger.tell(np.array([0, 1]), latency, 0.900, {})
    assert np.array_equal(ledger.choice(), [0, 0])  # type: ignore[arg-type]


# The product


@pytest.mark.parametrize("name", ["hawq", "ohq", "mixdq", "adaptive"])
def test_programs_find_what_meets_size_and_quality_in_the_product(name: str) -> None:
    space = wide_space(6)
    board = AdditiveBoard(space)
    goal = Goal("top1", latency_budget_s=0.0009, size_budget_bytes=12_000, minimum={"top1": 0.8})
    asked, met = proposer(space, goal, name), []
    for _ in range(14):
        candidate = asked.propose()
        assert candidate is not None
        evidence = board.evidence(candidate)
        met.append(goal.feasible(evidence))
        asked.tell(candidate, evidence)
    assert sum(met) >= 3


def test_sites_of_one_option_stay_out_of_the_scale() -> None:
    lone = Site("lone", "conv", (Option("float", "f", ("float", "p0")),))
    graph = Graph((lone, *(Site(f"t{i}", "fc", leveled(1).sites[0].options, i) for i in range(2))))
    scale = Scale(graph, [range(len(site.options)) for site in graph.sites], 0)
    assert [v.name for v in scale.variables] == ["t0", "t1"]
