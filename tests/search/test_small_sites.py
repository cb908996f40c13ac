"""A small site may be far from its prior: the error of a site is not in proportion to its own time alone."""

from __future__ import annotations

import numpy as np
import pytest

from search.adaptive.engine import Engine
from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.adaptive.latency import EARLY, LatencyModel, Reading
from search.adaptive.memory import key_of
from search.adaptive.round import Round

SITES = 10


def network() -> Graph:
    options = (Option("float", "f", ("float",)), Option("int8", "i", ("int8",)))
    return Graph(tuple(Site(f"s{i}", "conv" if i else "depthwise", options, i - 1) for i in range(SITES)))


def tables(first: tuple[float, float]) -> Tables:
    """Return seconds: ten sites, of which the first is a tenth of the others or what is given."""
    graph = network()
    sites = np.tile([1e-3, 0.4e-3], (SITES, 1))
    sites[0] = first
    return Tables(graph, sites[:, None], np.zeros((len(graph.edges), 2, 2)))


def all_int8_but(site: int) -> Ints:
    found = np.ones(SITES, np.int64)
    found[site] = 0
    return found


def test_a_small_site_that_was_never_tried_alone_is_uncertain() -> None:
    """On an x86-64 machine, the first layer of a network cost more in int8 than in float."""
    prior, truth = tables((0.1e-3, 0.04e-3)), tables((0.1e-3, 0.25e-3))
    model = LatencyModel(prior)
    for config in (np.zeros(SITES, np.int64), np.ones(SITES, np.int64), *map(all_int8_but, range(1, SITES))):
        model.readings.append(Reading(tuple(int(o) for o in config), float(truth.total(config[None])[0])))
    best = all_int8_but(0)[None]
    mean, deviation = model.posterior().predict(best)
    assert abs(mean - truth.total(best)) < 2 * deviation
    assert deviation < 0.1 * mean


def test_it_is_not_doubted_among_the_first_readings() -> None:
    """Then all of the prior may be wrong; doubts about every small site kept proposals at the edge of the budget."""
    prior = tables((0.1e-3, 0.04e-3))
    model = LatencyModel(prior)
    deviations = []
    for config in (np.zeros(SITES, np.int64), np.ones(SITES, np.int64), *map(all_int8_but, range(1, EARLY - 1))):
        model.readings.append(Reading(tuple(int(o) for o in config), float(prior.total(config[None])[0])))
        deviations.append(float(model.posterior().predict(all_int8_but(0)[None])[1][0]))
    assert len(deviations) == EARLY
    assert deviations[-1] > 2 * deviations[-2]


def test_what_a_small_site_takes_is_learned_from_one_reading() -> None:
    prior, truth = tables((0.1e-3, 0.04e-3)), tables((0.1e-3, 0.25e-3))
    model = LatencyModel(prior)
    for config in (np.zeros(SITES, np.int64), np.ones(SITES, np.int64), *map(all_int8_but, range(EARLY - 2))):
        model.readings.append(Reading(tuple(int(o) for o in config), float(truth.total(config[None])[0])))
    other = all_int8_but(0)
    other[5] = 0
    posterior = model.posterior()
    mean, _ = posterior.predict(other[None])
    assert mean == pytest.approx(truth.total(other[None]), rel=0.02)
    assert posterior.tables().total(other[None]) == pytest.approx(truth.total(other[None]), rel=0.02)


def test_where_nothing_promises_a_gain_every_other_format_of_one_site_is_rated(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without the children of what is good, which come by chance; what may be faster is measured."""
    monkeypatch.setattr(Round, "_cross", lambda self, rng: np.zeros((0, SITES), np.int64))
    prior, rated = tables((0.1e-3, 0.09e-3)), list[Ints]()

    def accuracy(configs: Ints) -> Floats:
        rated.extend(configs)
        return np.full(len(configs), 0.9)

    def divergence(configs: Ints) -> Floats:
        return np.asarray(0.01 * (configs == 1).sum(1), float)

    floating, int8 = np.zeros(SITES, np.int64), np.ones(SITES, np.int64)
    engine = Engine(LatencyModel(prior), divergence, accuracy, 2e-2, floating, seed=0, evaluations=SITES)
    for config in (floating, int8):
        engine.tell(config, float(prior.total(config[None])[0]), 0.9)
    best = engine.judge().incumbent()
    assert best is not None
    proposed = engine.propose()
    assert proposed is not None
    flipped = [np.where(np.arange(SITES) == site, 1 - best, best) for site in range(SITES)]
    assert {key_of(config) for config in flipped} <= {key_of(config) for config in rated}
    seconds, _ = engine.judge().posterior.predict(np.array([proposed, *rated]))
    assert seconds[0] <= np.median(seconds)
