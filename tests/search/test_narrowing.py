"""What narrowing saves is learned once, for all layers and widths: a prior that promises too much is found out."""

from __future__ import annotations

import numpy as np
import pytest

from search.adaptive.graph import Graph, Ints, Option, Site, Tables
from search.adaptive.latency import LatencyModel, Profile, Reading

SITES, LEVELS = 8, 3
COMES = 0.5
"""Share of what the prior promises that is saved."""


def network() -> Graph:
    options = tuple(Option(scheme, "f", (scheme, f"p{level}"), level)
                    for level in range(LEVELS) for scheme in ("float", "int8"))
    return Graph(tuple(Site(f"s{i}", "fc" if i % 2 else "conv", options, i - 1) for i in range(SITES)))


def promised(graph: Graph) -> Tables:
    """Return a prior in proportion to the channels that are read and written; int8 takes half."""
    own = np.array([(1 - 0.3 * o.level) * (0.5 if o.scheme == "int8" else 1.0) for o in graph.sites[0].options])
    read = 1 - 0.3 * np.arange(LEVELS)
    sites = 1e-3 * np.tile(read[:, None] * own[None], (SITES, 1, 1))
    sites[0, 1:] = sites[0, :1]
    return Tables(graph, sites, np.zeros((len(graph.edges), graph.width, graph.width)))


def true_s(prior: Tables, configs: Ints) -> list[float]:
    scheme = prior.graph.full_width[np.arange(SITES), configs]
    full, narrow = prior.total(scheme), prior.total(configs)
    return [float(value) for value in full - COMES * (full - narrow)]


def narrowed(sites: range, level: int, scheme: int = 0) -> Ints:
    found = np.full(SITES, scheme)
    found[list(sites)] += 2 * level
    return found


def test_full_width_is_that_of_the_same_scheme() -> None:
    prior = promised(network())
    assert prior.full == pytest.approx(np.tile([1e-3, 0.5e-3] * LEVELS, (SITES, 1)))


def test_widths_that_were_never_read_are_predicted() -> None:
    graph = network()
    prior = promised(graph)
    model = LatencyModel(prior)
    few = np.array([narrowed(range(0), 0), narrowed(range(0), 0, 1), narrowed(range(2), 1), narrowed(range(2, 4), 2)])
    for config, latency_s in zip(few, true_s(prior, few), strict=True):
        model.readings.append(Reading(tuple(int(o) for o in config), latency_s))
    others = np.array([narrowed(range(4, 8), 2), narrowed(range(4, 8), 1), narrowed(range(4, 8), 2, 1)])
    truth, posterior = np.array(true_s(prior, others)), model.posterior()
    mean, deviation = posterior.predict(others)
    assert abs(prior.total(others) / truth - 1).max() > 0.2
    assert mean == pytest.approx(truth, rel=0.05)
    assert (abs(mean - truth) < 2 * deviation).all()
    assert posterior.tables().total(others) == pytest.approx(truth, rel=0.06), "the solver's tables know it, too"


def test_a_profile_shows_it_as_well() -> None:
    graph = network()
    prior = promised(graph)
    model = LatencyModel(prior)
    for config in (narrowed(range(0), 0), narrowed(range(4), 2)):
        own = [float(value) for value in prior.parts(config[None])[0][0]]
        full = [float(value) for value in prior.sites[np.arange(SITES), 0, graph.full_width[np.arange(SITES), config]]]
        model.profiles.append(Profile(tuple(int(o) for o in config), tuple(
            f - COMES * (f - o) for f, o in zip(full, own, strict=True))))
        model.readings.append(Reading(tuple(int(o) for o in config), true_s(prior, config[None])[0]))
    others = narrowed(range(4, 8), 1, 1)[None]
    assert model.posterior().predict(others)[0] == pytest.approx(true_s(prior, others), rel=0.05)
