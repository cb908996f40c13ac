"""Quantune-like: gradient-boosted trees predict what was measured, and the best predicted is measured next.

Lee et al. 2022, Quantune: Post-Training Quantization of Convolutional Neural Networks Using Extreme Gradient Boosting
for Fast Deployment, Future Generation Computer Systems 132 (arXiv 2202.05048), section 4. There one figure, the
accuracy, is predicted from an encoding of the configuration; here it is the accuracy less a penalty for what the goal
forbids. XGBoost: Chen and Guestrin 2016, KDD.
"""

from __future__ import annotations

import numpy as np

from search.adaptive.graph import Floats, Ints, unique
from search.baselines.ledger import Ledger, Result
from search.baselines.ordinal import Scale

STARTUP = 6
"""Results before the trees are asked."""
POOL = 512
"""Configurations by chance, and as many changes of the best, whose figure is predicted."""
PARENTS = 8
TREES = 60


class Quantune:
    """Proposes the best predicted among chance and changes of the best."""

    def __init__(self, ledger: Ledger, scale: Scale, seed: int) -> None:
        self._ledger, self._scale, self._seed = ledger, scale, seed
        self._rng = np.random.default_rng([seed, 2])

    def propose(self) -> Ints | None:
        """See Strategy."""
        results = list(self._ledger.results.values())
        if len(results) < STARTUP:
            return self._scale.chance()
        merits = np.array([self._ledger.merit(r) for r in results])
        parents = [results[int(i)].picks for i in np.argsort(-merits)[:PARENTS]]
        changed = [self._scale.mutate(parents[int(self._rng.integers(len(parents)))], int(self._rng.integers(1, 5)))
                   for _ in range(POOL)]
        pool = unique(np.array([self._scale.chance() for _ in range(POOL)] + changed))
        pool = pool[self._ledger.fresh(pool)]
        if not len(pool):
            return None
        predicted = self._predict(np.array([r.picks for r in results]), merits, pool)
        return np.asarray(pool[int(np.argmax(predicted))])

    def learn(self, config: Ints, result: Result | None) -> None:
        """See Strategy; the ledger holds what the trees learn from."""

    def _predict(self, known: Ints, merits: Floats, pool: Ints) -> Floats:
        import xgboost  # a heavy import that no other sampler needs

        settings = {"max_depth": 4, "eta": 0.15, "subsample": 0.9, "nthread": 1, "seed": self._seed % 2**31}
        trees = xgboost.train(settings, xgboost.DMatrix(self._encoded(known), merits), TREES)
        return np.asarray(trees.predict(xgboost.DMatrix(self._encoded(pool))), np.float64)

    def _encoded(self, configs: Ints) -> Floats:
        return np.array([self._scale.values(config) for config in configs], np.float64)
