"""What the latency model believes when a part of its prior is far off, and of what it has never measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search.adaptive.graph import Floats, Graph, Ints, Option, Site, Tables
from search.adaptive.latency import LatencyModel, Reading

OPTIONS = (Option("float32", "f", ("float32",), arithmetic="float"), Option("int8", "i", ("int8",), arithmetic="int"),
           Option("fp16", "f", ("fp16",), arithmetic="float"))
FLOAT, INT8, FP16 = range(3)
KINDS = ("conv", "norm")
SECONDS = np.array([1e-3, 0.4e-3, 1e-3])
"""What the prior says of every site."""


def network(arithmetic: bool = True) -> Graph:
    options = OPTIONS if arithmetic else tuple(replace(option, arithmetic="") for option in OPTIONS)
    return Graph(tuple(Site(f"s{i}", KINDS[i % 2], options, i - 1) for i in range(12)))


def model_of(graph: Graph) -> LatencyModel:
    sites = np.tile(SECONDS, (graph.length, graph.depth, 1))
    return LatencyModel(Tables(graph, sites, np.zeros((len(graph.edges), 3, 3))))


def config(conv: int, norm: int) -> Ints:
    return np.array([conv, norm] * 6, np.int64)


def read(model: LatencyModel, factors: Floats, *configs: Ints) -> None:
    """Let a board measure that takes `factors` times the prior: (kinds, options)."""
    for picks in configs:
        seconds = sum(float(SECONDS[o] * factors[i % 2, o]) for i, o in enumerate(picks))
        model.readings.append(Reading(tuple(int(o) for o in picks), seconds))


def test_an_operator_that_is_far_off_leaves_the_others_certain() -> None:
    model, factors = model_of(network()), np.ones((2, 3))
    factors[1, INT8] = 6.0
    read(model, factors, config(FLOAT, FLOAT), config(INT8, FLOAT), config(FP16, FLOAT), config(INT8, FP16),
         config(INT8, INT8))
    mixed = config(INT8, FLOAT)
    mixed[:4] = FLOAT
    asked = np.array([mixed, config(FLOAT, INT8)])
    truth = np.array([sum(float(SECONDS[o] * factors[i % 2, o]) for i, o in enumerate(picks)) for picks in asked])
    mean, deviation = model.posterior().predict(asked)
    assert mean[0] == pytest.approx(truth[0], rel=0.05)
    assert deviation[0] < 0.05 * mean[0], "convolutions never surprised"
    assert mean[1] > 0.7 * truth[1], "and the slow one is slow elsewhere too"


def test_nothing_is_far_off_where_the_prior_is_right() -> None:
    model, rng = model_of(network()), np.random.default_rng(0)
    wrong = np.exp(0.05 * rng.normal(size=(2, 3)))
    read(model, wrong, *(rng.integers(0, 3, 12) for _ in range(10)))
    model.posterior()
    assert [scales.outliers for scales in model._chosen.values()] == [()]


def test_formats_that_compute_alike_are_believed_to_be_as_fast() -> None:
    factors = np.ones((2, 3))
    factors[:, [FLOAT, FP16]] = 0.6
    believed = []
    for arithmetic in (True, False):
        model = model_of(network(arithmetic))
        read(model, factors, config(FLOAT, FLOAT), config(INT8, INT8), config(INT8, FLOAT), config(FLOAT, INT8))
        mean, deviation = model.posterior().predict(np.array([config(FP16, FP16), config(FLOAT, FLOAT)]))
        believed.append((mean[0] / mean[1] - 1, deviation[0] / mean[0]))
    (off, unsure), (off_apart, unsure_apart) = believed
    assert off < 0.5 * off_apart
    assert unsure < 0.9 * unsure_apart
