"""MixDQ-like: one sensitivity table for every metric, and an integer program that heeds all of them.

Zhao et al. 2024, MixDQ: Memory-Efficient Few-Step Text-to-Image Diffusion Models with Metric-Decoupled Mixed Precision
Quantization, ECCV (arXiv 2405.17873), sections on metric-decoupled sensitivity and integer programming: a layer that
looks harmless to one metric may ruin another, so each metric has a table of its own. Here the metrics are the
goal's, measured one layer at a time on the host, and the divergence of the outputs. The program minimises the mean of
the divergence's and the objective's tables, each relative to its own mean; what another metric may lose is a limit.
"""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np

from search.adaptive.graph import Extra, Floats, Ints, Tables
from search.adaptive.quality import measure_sensitivity
from search.baselines.front import Front
from search.baselines.ledger import Ledger, Result

LEAST_SHARE = 1e-3
"""A metric that may lose nothing may lose this share of its table's sum, for the program needs positive limits."""


class MixDq:
    """Walks along the front of the decoupled program; its latencies are the prior, rescaled like HAWQ's."""

    def __init__(self, ledger: Ledger) -> None:
        self._task = ledger.task
        self._objective = next(iter(self._task.metrics.least))
        self._front = Front(ledger, lambda: self._loss, lambda: self._task.prior, self._resources)

    def propose(self) -> Ints | None:
        """See Strategy."""
        return self._front.propose()

    def learn(self, config: Ints, result: Result | None) -> None:
        """See Strategy."""
        self._front.learn(config, result)

    @cached_property
    def _reference(self) -> dict[str, float]:
        """Metric -> float32's value."""
        return {name: float(values[0]) for name, values in self._scored(self._task.floating[None]).items()}

    @cached_property
    def tables(self) -> dict[str, Floats]:
        """Metric -> what every option of one site loses: (sites, width)."""
        return {name: measure_sensitivity(self._task.graph, partial(self._lost, name), self._task.floating,
                                          least=0.0).table for name in self._reference}

    @cached_property
    def _loss(self) -> Floats:
        graph = self._task.graph
        outputs = measure_sensitivity(graph, self._task.divergence, self._task.floating, least=0.0).table
        both = [outputs, self.tables[self._objective]]
        means = [float(table[graph.valid].mean()) for table in both]
        found: Floats = np.mean([t / m if m > 0 else t for t, m in zip(both, means, strict=True)], axis=0)
        return found

    def _resources(self) -> tuple[Extra, ...]:
        """Return the task's resources and what every metric may lose."""
        graph = self._task.graph
        found = []
        for name, least in self._task.metrics.least.items():
            if least is None:
                continue
            table = self.tables[name]
            whole = np.broadcast_to(table[:, None, :], (graph.length, graph.depth, graph.width))
            limit = max(self._reference[name] - least, LEAST_SHARE * float(table.max(1).sum()), 1e-9)
            found.append(Extra(Tables(graph, whole, np.zeros((len(graph.edges), graph.width, graph.width))), limit))
        return (*self._task.limits(), *found)

    def _scored(self, configs: Ints) -> dict[str, Floats]:
        return dict(self._task.metrics.scores(configs))

    def _lost(self, metric: str, configs: Ints) -> Floats:
        """Return what a metric loses from float32; infinite where a configuration does not run."""
        lost = self._reference[metric] - self._scored(configs)[metric]
        return np.where(np.isfinite(lost), lost, np.inf)
