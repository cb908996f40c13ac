"""HAWQ-like: an integer program over a sensitivity table and a latency table that nobody measured.

Yao et al. 2021, HAWQ-V3: Dyadic Neural Network Quantization, ICML, section 3.4: minimise the sum of the layers'
perturbations so that size, bit operations and latency stay within limits. Here the perturbation is the divergence of
the outputs instead of the Hessian's trace times the weights' error, because it needs neither labels nor gradients and
covers activations and pruning; the latency is the prior, rescaled by what was measured of the whole network.
"""

from __future__ import annotations

from functools import cached_property

from search.adaptive.graph import Floats, Ints
from search.adaptive.quality import measure_sensitivity
from search.baselines.front import Front
from search.baselines.ledger import Ledger, Result


class Hawq:
    """Solves once for the budget, then walks along the front until something meets it, and around there."""

    def __init__(self, ledger: Ledger) -> None:
        self._task = ledger.task
        self._front = Front(ledger, lambda: self._table, lambda: self._task.prior)

    @cached_property
    def _table(self) -> Floats:
        return measure_sensitivity(self._task.graph, self._task.divergence, self._task.floating, least=0.0).table

    def propose(self) -> Ints | None:
        """See Strategy."""
        return self._front.propose()

    def learn(self, config: Ints, result: Result | None) -> None:
        """See Strategy."""
        self._front.learn(config, result)
