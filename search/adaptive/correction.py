"""What the host's accuracies say of a sensitivity table: a Bayesian regression on what the table missed.

    accuracy = a - k * (divergence by the table + sum over sites of corrections [site, attribute]) + noise

The corrections are independent Gaussians with mean 0, as wide as the table's own entries; k and a are fitted first
(Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, section 2.1; as the latency model does it).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from search.adaptive.graph import Floats, Graph, Ints
from search.adaptive.one_core import one_core
from search.adaptive.quality import Sensitivity

LEAST = 16
"""Fewer accuracies say too little."""
MOST = 200
"""The most accurate are used: elsewhere the table need not be right."""
AGREED = -0.2
"""Correlation of divergence and accuracy above which a table has nothing to be scaled by."""
WIDTH = 0.5
"""Standard deviation of a correction, as a share of the entry; a tenth of it for entries that are 0."""
NOISES = (0.1, 0.2, 0.4, 0.8)
"""Noise as a share of the spread of what the table missed."""


@one_core()
def corrected(graph: Graph, table: Sensitivity, configs: Ints, accuracy: Floats) -> Floats:
    """Return a table that agrees better with accuracies: (sites, width), in the unit of the divergence."""
    order = np.argsort(-np.where(np.isfinite(accuracy), accuracy, -np.inf), kind="stable")[:MOST]
    order = order[np.isfinite(accuracy[order])]
    if len(order) < LEAST:
        return table.table
    configs, accuracy = configs[order], accuracy[order]
    predicted = table.predict(configs)
    flat = np.ptp(predicted) == 0 or np.ptp(accuracy) == 0
    if flat or np.corrcoef(predicted, accuracy)[0, 1] > AGREED:
        return table.table
    slope, start = np.polyfit(predicted, accuracy, 1)
    missed = predicted - (accuracy - start) / slope
    numbers = graph.attribute_numbers
    size = int(numbers.max()) + 1
    features = _features(numbers, configs, size) - _features(numbers, table.center[None], size)
    deviation = _deviations(graph, table.table, size)
    gram = (features * deviation ** 2) @ features.T
    best: tuple[float, Floats] | None = None
    for noise in NOISES:
        loud = noise * missed.std() + 1e-4 * np.ptp(predicted)
        factor = cho_factor(gram + loud ** 2 * np.eye(len(missed)), lower=True)
        weights = cho_solve(factor, missed)
        likelihood = -0.5 * float(missed @ weights) - float(np.log(np.diag(factor[0])).sum())
        if best is None or likelihood > best[0]:
            best = likelihood, weights
    if best is None:
        raise ValueError("no noise was tried")
    effects = deviation ** 2 * (features.T @ best[1])
    own = effects[numbers].sum(2)
    found: Floats = table.table - (own - own[np.arange(graph.length), table.center][:, None])
    return found


def _features(numbers: Ints, configs: Ints, size: int) -> Floats:
    """Return how often every attribute of every site occurs: (configurations, attributes)."""
    picked = numbers[np.arange(configs.shape[1])[None], configs].reshape(len(configs), -1)
    flat = picked + size * np.arange(len(configs))[:, None]
    return np.asarray(np.bincount(flat.ravel(), minlength=size * len(configs)), float).reshape(len(configs), size)


def _deviations(graph: Graph, table: Floats, size: int) -> Floats:
    """Return the prior standard deviation of every attribute: as large as the entries in which it occurs."""
    total, count = np.zeros(size), np.zeros(size)
    for attribute in range(graph.attribute_numbers.shape[2]):
        np.add.at(total, graph.attribute_numbers[:, :, attribute][graph.valid], np.abs(table[graph.valid]))
        np.add.at(count, graph.attribute_numbers[:, :, attribute][graph.valid], 1.0)
    mean = total / np.maximum(count, 1.0)
    return np.asarray(WIDTH * (mean + 0.1 * mean.mean()))
