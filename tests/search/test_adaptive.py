"""The adaptive engine: the solver against brute force, the latency model, and the proposer's contract."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.adaptive.judge import LEAST_PROBABILITY, Aim, Judge
from search.adaptive.latency import LatencyModel, Profile, Reading
from search.adaptive.memory import key_of
from search.adaptive.polish import Problem
from search.adaptive.quality import measure_sensitivity
from search.adaptive.solver import solve
from search.candidate import Candidate
from search.goal import Goal
from search.proposers.graph import GraphProposer
from search.space import SearchSpace
from tests.search.adaptive_spaces import (
    chain,
    every,
    flat_prior,
    losses,
    proposer,
    random_graph,
    random_tables,
    totals,
)
from tests.search.proposer_contract import BUDGET
from tests.search.spaces import INT8, AdditiveBoard, calibrated_space, mixed_space, wide_space
from tests.search.tasks import Bench, leveled

OPTION = Option("float", "f", ("float",))


# The solver


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1.0))
def test_the_solver_comes_near_brute_force_and_stays_within_the_budget(seed: int, tightness: float) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, int(rng.integers(2, 6)), 4)
    costs, table = random_tables(rng, graph), rng.uniform(0, 1, (graph.length, graph.width))
    configs = every(graph)
    known, lost = totals(costs, configs), losses(table, configs)
    assert costs.total(configs) == pytest.approx(known)
    limit = float(known.min() + tightness * (known.max() - known.min())) * (1 + 1e-9)
    found = solve(Problem(graph, table, (costs,), (limit,)))
    assert any(np.array_equal(found, config) for config in configs), "it must be a configuration that exists"
    assert totals(costs, found[None])[0] <= limit
    best = lost[known <= limit].min()
    assert losses(table, found[None])[0] <= best + 0.2 * (lost.max() - lost.min()) + 1e-9


def test_the_solver_is_exact_in_nine_cases_of_ten() -> None:
    exact = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, 5, 4)
        costs, table = random_tables(rng, graph), rng.uniform(0, 1, (graph.length, graph.width))
        configs = every(graph)
        known, lost = totals(costs, configs), losses(table, configs)
        limit = float(np.quantile(known, 0.3))
        found = solve(Problem(graph, table, (costs,), (limit,)))
        exact += bool(losses(table, found[None])[0] <= lost[known <= limit].min() + 1e-9)
    assert exact >= 90


def test_what_nothing_can_meet_is_answered_with_the_nearest() -> None:
    rng = np.random.default_rng(4)
    graph = random_graph(rng, 5, 4)
    costs, table = random_tables(rng, graph), rng.uniform(0, 1, (graph.length, graph.width))
    least = totals(costs, every(graph)).min()
    found = solve(Problem(graph, table, (costs,), (float(least) / 2,)))
    assert totals(costs, found[None])[0] <= 1.05 * least


def test_two_resources_hold_together() -> None:
    rng = np.random.default_rng(7)
    graph = random_graph(rng, 5, 4)
    one, two, table = random_tables(rng, graph), random_tables(rng, graph), rng.uniform(0, 1, (5, graph.width))
    configs = every(graph)
    limits = (float(np.quantile(totals(one, configs), 0.4)), float(np.quantile(totals(two, configs), 0.4)))
    inside = (totals(one, configs) <= limits[0]) & (totals(two, configs) <= limits[1])
    assert inside.any()
    found = solve(Problem(graph, table, (one, two), limits))
    assert (totals(one, found[None])[0], totals(two, found[None])[0]) <= limits
    assert losses(table, found[None])[0] <= losses(table, configs[inside]).min() + 0.3


# The graph


@pytest.mark.parametrize(("sites", "message"), [
    ((), "the search space is empty"),
    ((Site("a", "conv", (OPTION,)), Site("a", "conv", (OPTION,), 0)), "unique, got twice: a"),
    ((Site("a", "conv", (OPTION,), 1), Site("b", "conv", (OPTION,))), "'a' reads a site that comes after it"),
    ((Site("a", "conv", (OPTION,), group="g"), Site("b", "conv", (Option("float", "f", ("float",), 1),), 0, group="g")),
     "sites of one group must offer the same levels: a, b")])
def test_what_is_no_network_is_refused(sites: tuple[Site, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph(sites)


def test_a_site_without_options_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' has no option"):
        Site("a", "conv", ())


# The latency model


def test_the_model_learns_what_the_prior_misses_and_knows_how_sure_it_is() -> None:
    """Means over seeds; of 0, 10 and 60 readings."""
    learned = [learn(seed) for seed in range(6)]
    covered, errors, noises = (np.array(values) for values in zip(*learned, strict=True))
    assert (covered.mean(0) >= 0.8).all(), "within two standard deviations"
    assert errors.mean(0)[0] > 1.3 * errors.mean(0)[1] > 3 * errors.mean(0)[2]
    assert errors.mean(0)[2] < 0.015
    assert (noises >= 0.01).all()
    assert (noises <= 0.04).all(), "two spikes must not make the board look loud"


def learn(seed: int) -> tuple[list[float], list[float], float]:
    """Return shares of truths within two deviations and median errors after 0, 10 and 60 readings, and the noise."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, 8, 4)
    prior = random_tables(rng, graph)
    model = LatencyModel(prior)
    factor = {"float": 1.5, "int8": 0.8, "int4": 1.1}

    def true(config: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> float:
        own, switching = prior.parts(config[None])
        schemes = [site.options[o].scheme for site, o in zip(graph.sites, config, strict=True)]
        return float(sum(c * factor[s] for c, s in zip(own[0], schemes, strict=True)) + switching.sum())

    def some(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        rows = np.array([[rng.integers(len(site.options)) for site in graph.sites] for _ in range(count)])
        return graph.settle(rows)

    tests = some(200)
    truth = np.array([true(c) for c in tests])
    covered, errors = [], []
    for count in (0, 10, 60):
        while len(model.readings) < count:
            config = some(1)[0]
            noisy = true(config) * float(np.exp(0.02 * rng.normal()))
            spike = 1.3 if len(model.readings) in (7, 31) else 1.0
            model.readings.append(Reading(tuple(int(o) for o in config), noisy * spike))
        mean, deviation = model.posterior().predict(tests)
        errors.append(float(np.median(abs(mean / truth - 1))))
        covered.append(float(np.mean(abs(truth - mean) <= 2 * deviation)))
    return covered, errors, model.posterior().noise


def test_a_prior_counts_in_proportion_only() -> None:
    rng = np.random.default_rng(4)
    graph = random_graph(rng, 8, 4)
    prior = random_tables(rng, graph)
    slow = LatencyModel(Tables(graph, 20 * prior.sites, 20 * prior.edges))
    right = LatencyModel(prior)
    rows = graph.settle(np.array([[rng.integers(len(site.options)) for site in graph.sites] for _ in range(40)]))
    for config, chance in zip(rows[:4], rng.normal(size=4), strict=True):
        latency_s = float(prior.total(config[None])[0] * np.exp(0.2 * chance))
        for model in (slow, right):
            model.readings.append(Reading(tuple(int(o) for o in config), latency_s))
    for one, other in zip(slow.posterior().predict(rows), right.posterior().predict(rows), strict=True):
        assert np.allclose(one, other, rtol=1e-6)
    mean, deviation = slow.posterior().predict(rows)
    assert np.median(abs(mean / prior.total(rows) - 1)) < 0.2, "after four readings, on a board 20 times faster"
    assert np.median(deviation / mean) < 0.5


def test_what_every_layer_costs_beside_its_work_is_learned() -> None:
    wrong, sure, tables = [], [], []
    for seed in range(4):
        rng, graph = np.random.default_rng(seed), leveled(6, levels=2)
        made = Bench.by_chance(graph, seed).seconds
        narrower = np.where(graph.levels == 1, 0.1, 1.0)[:, None, :]
        model = LatencyModel(Tables(graph, made.sites * narrower, 0.1 * made.edges))
        overhead_s = 0.05 * float(model.given.total(np.zeros((1, 6), np.int64))[0])
        rows = rng.integers(0, graph.width, (400, 6))
        rows = rows[np.argsort(model.given.total(rows))]
        for config in (*rng.permutation(rows[200:])[:2], *rows[14:20]):
            latency_s = float(model.given.total(config[None])[0]) + overhead_s
            model.readings.append(Reading(tuple(int(o) for o in config), latency_s))
        truth = model.given.total(rows[:10]) + overhead_s  # half of it is overhead
        posterior = model.posterior()
        mean, deviation = posterior.predict(rows[:10])
        wrong.append(float(np.median(abs(mean / truth - 1))))
        sure.append(float(np.sqrt(np.mean(((mean - truth) / deviation) ** 2))))
        tables.append(float(np.median(abs(posterior.tables().total(rows[:10]) / truth - 1))))
    assert np.mean(wrong) < 0.2
    assert np.mean(sure) < 1.5, "the model knows how sure it may be"
    assert np.mean(tables) < 0.2, "the solver's tables have the overhead too"


def test_a_profile_tells_the_sites_apart() -> None:
    rng = np.random.default_rng(3)
    graph = random_graph(rng, 6, 3)
    prior = random_tables(rng, graph)
    config = every(graph)[0]
    own, switching = (part[0] for part in prior.parts(config[None]))
    truth = own * rng.uniform(0.7, 1.4, graph.length)
    for e, (_, b) in enumerate(graph.edges):
        truth[b] += switching[e]
    model = LatencyModel(prior)
    model.profiles.append(Profile(tuple(int(o) for o in config), tuple(float(t) + 1e-2 for t in truth), 1e-2))
    found = model.posterior().tables().parts(config[None])[0][0]
    assert abs(found - own).sum() > 0.1 * own.sum()
    wrong = [abs(costs + sum(switching[e] for e, (_, b) in enumerate(graph.edges) if b == s) - truth[s])
             for s, costs in enumerate(found)]
    assert sum(wrong) < 0.35 * float(abs(prior_sites(own, switching, graph) - truth).sum())


def prior_sites(own: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
                switching: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
                graph: Graph) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the prior's cost of every site with what comes in."""
    return np.array([cost + sum(switching[e] for e, (_, b) in enumerate(graph.edges) if b == s)
                     for s, cost in enumerate(own)])


def read_on(boards: dict[str, float], bench: Bench, count: int, named: bool, seed: int = 0) -> LatencyModel:
    """Return a model after readings on boards that are so much slower than the average one, by turns."""
    rng, model = np.random.default_rng(seed), LatencyModel(bench.seconds)
    for number in range(count):
        config = np.array([rng.integers(len(site.options)) for site in bench.graph.sites])
        board, bias = list(boards.items())[number % len(boards)]
        latency_s = bench.latency_s(config) * (1 + bias) * (1 + 0.004 * rng.normal())
        model.readings.append(Reading(tuple(int(o) for o in config), latency_s, board=board if named else ""))
    return model


def off(model: LatencyModel, bench: Bench, seed: int = 9) -> Floats:
    """Return relative errors of predictions for the average board, on other configurations."""
    rng = np.random.default_rng(seed)
    configs = np.array([[rng.integers(len(site.options)) for site in bench.graph.sites] for _ in range(60)])
    truth = np.array([bench.latency_s(config) for config in configs])
    found: Floats = np.abs(model.posterior().predict(configs)[0] / truth - 1)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_a_board_is_slower_than_others_is_not_taken_for_the_configurations(seed: int) -> None:
    bench, boards = Bench.by_chance(leveled(5), seed), {"pi-a": 0.05, "pi-b": -0.05}
    apart, mixed = (read_on(boards, bench, 16, named, seed) for named in (True, False))
    assert float(np.median(off(apart, bench))) < 0.02
    assert float(np.median(off(apart, bench))) < 0.6 * float(np.median(off(mixed, bench)))
    assert apart.posterior().noise < mixed.posterior().noise
    spread = apart.posterior().mean[-2:]
    assert spread[0] > 0.02 > -0.02 > spread[1], "by name: pi-a is slow, pi-b is fast"


def test_the_bias_of_a_single_board_is_the_speed_of_its_kind() -> None:
    bench = Bench.by_chance(leveled(4))
    named, nameless = (read_on({"pi-a": 0.2}, bench, 10, named) for named in (True, False))
    config = np.zeros((1, 4), np.int64)
    assert np.array_equal(named.posterior().predict(config), nameless.posterior().predict(config))


# What is worth measuring


def test_nothing_unlikely_is_measured_once_something_meets_the_budget() -> None:
    bench = Bench.by_chance(leveled(4))
    configs = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [1, 1, 1, 0]])
    model = LatencyModel(bench.seconds)
    for config in configs[:3]:
        model.readings.append(Reading(tuple(int(o) for o in config), bench.latency_s(config)))
    accuracy = {key_of(config): value for config, value in zip(configs, (0.99, 0.7, 0.6, 0.71), strict=True)}
    posterior = model.posterior()
    budget_s = float(1.05 * posterior.predict(configs[1:2])[0][0])
    judge = Judge(posterior, Aim.ACCURATE, budget_s, accuracy, configs[1:3])
    slow, near = judge.probability(configs[[0]])[0], judge.probability(configs[[1]])[0]
    assert slow < LEAST_PROBABILITY < near
    scores = judge.score(configs[[0, 1]], np.array([0.99, 0.7]))
    assert scores[0] == 0, "however accurate it is"
    assert judge.score(configs[[1]], np.array([0.8]))[0] > 0


# Sensitivity


def test_the_effects_of_attributes_add_up_and_take_few_passes() -> None:
    schemes = [("w32", "a32"), ("w8", "a32"), ("w4", "a32"), ("w8", "a8"), ("w4", "a8")]
    options = tuple(Option("-".join(s), s[1], (*s, f"p{level}"), level) for level in range(3) for s in schemes)
    graph = Graph(tuple(Site(f"s{i}", "conv", options, i - 1) for i in range(3)))
    effect = {"w32": 0.0, "w8": 0.1, "w4": 0.5, "a32": 0.0, "a8": 0.2, "p0": 0.0, "p1": 0.3, "p2": 0.7}
    asked = []

    def divergence(configs: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> np.ndarray[
            tuple[int, ...], np.dtype[np.float64]]:
        asked.append(len(configs))
        return np.array([sum((s + 1) * sum(effect[a] for a in options[o].attributes) for s, o in enumerate(config))
                         for config in configs])

    found = measure_sensitivity(graph, divergence, np.zeros(3, np.int64), least=0.0)
    assert sum(asked) == 1 + 3 * 5, "w8, w4, a8, p1, p2 of every site, and the center"
    for site in range(3):
        for o, option in enumerate(options):
            assert found.table[site, o] == pytest.approx((site + 1) * sum(effect[a] for a in option.attributes))
    elsewhere = measure_sensitivity(graph, divergence, np.full(3, 8))
    assert elsewhere.predict(np.zeros((1, 3), np.int64))[0] == pytest.approx(0.0, abs=1e-9)


def test_a_probe_that_does_not_run_leaves_a_table_that_can_be_solved() -> None:
    options = tuple(Option(name, "f", (name,)) for name in ("float", "int8", "int4"))
    graph = Graph(tuple(Site(f"s{i}", "conv", options, i - 1) for i in range(3)))
    found = measure_sensitivity(graph, lambda configs: np.where((configs == 2).any(1), np.inf, 0.1 * configs.sum(1)),
                                np.zeros(3, np.int64), least=0.0)
    assert np.isfinite(found.table).all()
    assert (found.table[:, 2] > found.table[:, 1]).all()


# The proposer


def make(space: SearchSpace, goal: Goal) -> GraphProposer:
    return proposer(space, goal, "adaptive")


def best_within(space: SearchSpace, goal: Goal, measurements: int) -> float:
    """Return the best accuracy that meets the goal, after float32 and so many proposals."""
    asked, board = make(space, goal), AdditiveBoard(space)
    float32 = Candidate.of(space, {layer.name: layer.choices[0] for layer in space.layers})
    asked.tell(float32, board.evidence(float32))
    found = 0.0
    for _ in range(measurements):
        candidate = asked.propose()
        assert candidate is not None
        evidence = board.evidence(candidate)
        asked.tell(candidate, evidence)
        if goal.feasible(evidence):
            found = max(found, evidence.metrics[goal.objective])
    return found


def test_eight_measurements_find_what_enumeration_finds() -> None:
    space = wide_space(6)
    board = AdditiveBoard(space)
    goal = Goal("top1", latency_budget_s=0.0008)
    sites = chain(space)
    everything = [board.evidence(Candidate.of(space, {
        layer.name: layer.choices[int(o)] for layer, o in zip(space.layers, picks, strict=True)}))
        for picks in every(sites)]
    optimum = max(e.metrics["top1"] for e in everything if goal.feasible(e))
    assert best_within(space, goal, 8) >= optimum - 0.001


def test_a_size_budget_holds() -> None:
    space = wide_space(6)
    goal = Goal("top1", latency_budget_s=0.001, size_budget_bytes=5500)
    assert best_within(space, goal, 8) > 0.8


def test_without_a_budget_the_fastest_is_found() -> None:
    space = wide_space(6)
    board = AdditiveBoard(space)
    goal = Goal("top1", minimum={"top1": 0.88})
    asked = make(space, goal)
    float32 = Candidate.of(space, {layer.name: layer.choices[0] for layer in space.layers})
    asked.tell(float32, board.evidence(float32))
    fastest = board.evidence(float32).latency_s
    for _ in range(12):
        candidate = asked.propose()
        assert candidate is not None
        evidence = board.evidence(candidate)
        asked.tell(candidate, evidence)
        if goal.feasible(evidence):
            fastest = min(fastest, evidence.latency_s)
    sites = chain(space)
    everything = [board.evidence(Candidate.of(space, {
        layer.name: layer.choices[int(o)] for layer, o in zip(space.layers, picks, strict=True)}))
        for picks in every(sites)]
    assert fastest <= 1.05 * min(e.latency_s for e in everything if goal.feasible(e))


def test_layers_with_one_choice_are_no_obstacle() -> None:
    space = mixed_space()
    narrow = SearchSpace("tflite", tuple(
        layer if index else type(layer)(layer.name, layer.kind, (INT8,), layer.weights)
        for index, layer in enumerate(space.layers)))
    candidate = make(narrow, BUDGET).propose()
    assert candidate is not None
    assert candidate.layers[0][1] == INT8


def test_keys_tell_configurations_apart() -> None:
    assert key_of(np.array([0, 1])) == key_of(np.array([0, 1], np.int32)) != key_of(np.array([1, 0]))


@pytest.mark.parametrize("seed", range(12))
def test_every_legal_configuration_is_listed_once(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed), 4, 4)
    listed = [tuple(int(o) for o in config) for config in graph.every()]
    assert len(listed) == len(set(listed))
    assert set(listed) == {tuple(int(o) for o in config) for config in every(graph)}


def test_no_measurement_is_spent_on_a_twin_while_something_may_bring_more() -> None:
    bench = Bench.by_chance(leveled(4))
    told, twin, better = np.array([1, 1, 1, 1]), np.array([1, 1, 1, 2]), np.array([2, 1, 1, 0])
    model = LatencyModel(bench.seconds)
    model.readings.append(Reading(tuple(int(o) for o in told), bench.latency_s(told)))
    accuracy = {key_of(told): 0.90, key_of(twin): 0.9004, key_of(better): 0.9021}
    posterior = model.posterior()
    times, spread = posterior.predict(np.array([told, twin, better]))
    budget_s = float(max(times[:2]) + 3 * max(spread[:2]))
    pool = np.array([twin, better])

    def chosen(margin: float, more: float) -> Ints:
        known = {**accuracy, key_of(better): 0.90 + more}
        judge = Judge(posterior, Aim.ACCURATE, budget_s, known, told[None], margin)
        assert judge.probability(twin[None])[0] > 0.9
        return judge.choose(pool)

    sure = float(Judge(posterior, Aim.ACCURATE, budget_s, accuracy, told[None]).probability(better[None])[0])
    assert sure >= LEAST_PROBABILITY
    assert np.array_equal(chosen(0.0, 0.0001), twin)
    assert np.array_equal(chosen(0.0005, 0.0008), better), "the twin's gain is none"
    hopes = times - spread
    assert np.array_equal(chosen(0.0005, 0.0003), pool[np.argmin(hopes[1:])]), "where nothing is a gain: may be faster"


def test_a_reading_surprises_where_it_is_slower_than_the_model_can_believe() -> None:
    space = wide_space()
    asked, board = proposer(space, BUDGET, "random"), AdditiveBoard(space)
    false = 0
    for number in range(16):
        candidate = asked.propose()
        assert candidate is not None
        evidence = board.evidence(candidate)
        false += asked.surprising(candidate, evidence.latency_s)
        assert not asked.surprising(candidate, 0.5 * evidence.latency_s), "what is fast is no interference"
        if number >= 8:
            assert asked.surprising(candidate, 1.4 * evidence.latency_s)
        asked.tell(candidate, evidence)
    assert false <= 2


def test_nothing_surprises_while_little_is_known() -> None:
    space = wide_space()
    asked, board = proposer(space, BUDGET, "adaptive"), AdditiveBoard(space)
    for number in range(3):
        candidate = asked.propose()
        assert candidate is not None
        evidence = board.evidence(candidate)
        assert not asked.surprising(candidate, 100 * evidence.latency_s), number
        asked.tell(candidate, evidence)


# What is chosen for all layers together


def test_what_is_chosen_for_all_layers_costs_no_time_and_is_not_measured_twice() -> None:
    space = calibrated_space(mixed_space())
    sites = chain(space)
    model = LatencyModel(flat_prior(space, sites))
    rng = np.random.default_rng(0)
    readings = [np.array([rng.integers(len(site.options)) for site in sites.sites]) for _ in range(8)]
    for number, config in enumerate(readings):
        model.readings.append(Reading(tuple(int(o) for o in config), 1e-3 * (1 + number / 20)))
    asked = np.array([[*config[:len(space.layers)], calibration, clipping] for config in readings[:2]
                      for calibration in range(3) for clipping in range(2)], np.int64)
    mean, deviation = model.posterior().predict(asked)
    for values in (mean, deviation):
        assert values[:6] == pytest.approx(values[0])
        assert values[6:] == pytest.approx(values[6])
    tables = model.posterior().tables()
    assert not tables.sites[len(space.layers):].any()


@pytest.mark.parametrize("seed", range(4))
def test_the_best_calibration_and_clipping_are_found(seed: int) -> None:
    space = calibrated_space(wide_space())
    asked, board = proposer(space, BUDGET, "adaptive", seed), AdditiveBoard(space)
    best: tuple[float, Candidate] | None = None
    for _ in range(8):
        candidate = asked.propose()
        assert candidate is not None
        evidence = board.evidence(candidate)
        asked.tell(candidate, evidence)
        if BUDGET.feasible(evidence) and (best is None or evidence.metrics["top1"] > best[0]):
            best = evidence.metrics["top1"], candidate
    assert best is not None
    assert best[1].for_all == {"calibration": "mse", "clipping": "octav"}


def test_a_choice_for_all_reads_nothing() -> None:
    with pytest.raises(ValueError, match="'x' is free: it reads no other site"):
        Graph((Site("a", "conv", (OPTION,)), Site("x", "x", (OPTION,), source=0, free=True)))
