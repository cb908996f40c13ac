"""What a board can reach at all: the least latency that is believed of any configuration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from search.adaptive.latency import LatencyModel
from search.adaptive.polish import Problem
from search.adaptive.solver import solve_all

DRAWS = 4
"""What may be the fastest is asked of the mean, and of so many draws from what is believed."""
HOPELESS = 1e-3
"""A share of the cheapest options that no configuration costs: the solver then answers with the least there is."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The fastest configurations, as they are believed."""

    latency_s: float
    """The least expected one."""
    probability: float
    """That the likeliest of them keeps within the budget."""


def reach(model: LatencyModel, budget_s: float, seed: int) -> Reach:
    """Return what is believed of the fastest configurations, whatever their accuracy and size.

    Args:
        model: with at least one reading.
        budget_s: the latency that is asked for.
        seed: of the draws.
    """
    graph, posterior = model.graph, model.posterior()
    rng = np.random.default_rng([seed, len(model.readings)])
    free = np.zeros((graph.length, graph.width))
    problems = []
    for table in (posterior.tables(), *(posterior.tables(posterior.draw(rng)) for _ in range(DRAWS))):
        cheapest_s = float(np.where(graph.valid, table.sites.min(1), np.inf).min(1).sum())
        problems.append(Problem(graph, free, (table,), (HOPELESS * cheapest_s,)))
    measured = np.array([reading.config for reading in model.readings], np.int64)
    mean, deviation = posterior.predict(np.concatenate([solve_all(problems), measured]))
    return Reach(float(mean.min()), float(norm.cdf((budget_s - mean) / deviation).max()))
