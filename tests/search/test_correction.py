"""Accuracies correct a sensitivity table: against a truth that the table does not know."""

from __future__ import annotations

import numpy as np

from search.adaptive.correction import LEAST, corrected
from search.adaptive.graph import Floats, Graph, Ints, Option, Site
from search.adaptive.quality import Sensitivity

SCHEMES = (("float", "w32", "a32"), ("int8", "w8", "a8"), ("int4", "w4", "a8"))
OPTIONS = tuple(Option(f"{name}", "f" if name == "float" else "i", (weights, activations, f"p{level}"), level)
                for level in range(2) for name, weights, activations in SCHEMES)
GRAPH = Graph(tuple(Site(f"s{n}", "conv", OPTIONS, n - 1) for n in range(12)))


def table_and_truth(rng: np.random.Generator) -> tuple[Sensitivity, Floats]:
    """Return a table around float32, and what entries really are: each attribute is off by a factor of its own."""
    numbers = GRAPH.attribute_numbers
    own = np.array([[0.0, 0.05, 0.2, 0.0, 0.05, 0.2]] * GRAPH.length)
    narrower = np.array([[0.0] * 3 + [0.3] * 3] * GRAPH.length)
    scale = rng.lognormal(0, 0.7, (GRAPH.length, 1))
    table = (own + narrower) * scale
    factor = rng.lognormal(0, 0.5, int(numbers.max()) + 1)
    truth = own * scale * factor[numbers[:, :, 0]] + narrower * scale * factor[numbers[:, :, 2]]
    return Sensitivity(np.zeros(GRAPH.length, np.int64), 0.0, table), truth


def total(table: Floats, configs: Ints) -> Floats:
    return np.asarray(table[np.arange(GRAPH.length)[None], configs].sum(1))


def test_a_corrected_table_predicts_what_it_has_not_seen() -> None:
    gains = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        table, truth = table_and_truth(rng)
        configs = rng.integers(0, len(OPTIONS), (140, GRAPH.length))
        accuracy = 0.92 - 0.05 * total(truth, configs) + 0.002 * rng.normal(size=len(configs))
        better = corrected(GRAPH, table, configs[:100], accuracy[:100])
        errors = [float(np.corrcoef(total(t, configs[100:]), total(truth, configs[100:]))[0, 1])
                  for t in (table.table, better)]
        gains.append((1 - errors[0]) / (1 - errors[1]))
    assert np.median(gains) > 3, gains


def test_the_center_stays_where_it_is() -> None:
    rng = np.random.default_rng(1)
    table, truth = table_and_truth(rng)
    configs = rng.integers(0, len(OPTIONS), (60, GRAPH.length))
    better = corrected(GRAPH, table, configs, 0.9 - 0.05 * total(truth, configs))
    assert np.allclose(better[:, 0], 0.0)


def test_few_accuracies_or_none_that_agree_leave_the_table_as_it_is() -> None:
    rng = np.random.default_rng(2)
    table, truth = table_and_truth(rng)
    configs = rng.integers(0, len(OPTIONS), (60, GRAPH.length))
    accuracy = 0.9 - 0.05 * total(truth, configs)
    few = np.where(np.arange(60) < LEAST - 1, accuracy, np.nan)
    for told in (few, 0.9 + 0.05 * total(table.table, configs), np.full(60, 0.9), np.full(60, np.nan)):
        assert np.array_equal(corrected(GRAPH, table, configs, told), table.table)
