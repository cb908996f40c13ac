"""What is believed of a kind of board after the evidence: corrections, what does not add up, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from search.adaptive.graph import Bools, Floats, Ints, Tables
from search.adaptive.one_core import one_core

if TYPE_CHECKING:
    from search.adaptive.latency import LatencyModel

LEAST = 0.02
"""A corrected cost is at least this share of its prior."""
RIDGE = 1e-18
"""Squared seconds: keeps a covariance invertible."""


@dataclass(frozen=True)
class Rows:
    """Evidence: readings first, then the sites of profiles."""

    features: Floats
    """(rows, corrections), seconds."""
    missed: Floats
    """(rows,), what the prior missed, seconds."""
    loud: Floats
    """(rows,), what the board's noise multiplies, seconds; 0 for profiles."""
    site_noise: Floats
    """(rows,), seconds; 0 for readings."""
    similar: Floats
    """(readings, readings), covariance of rests for a relative deviation of 1, squared seconds."""
    surely: Bools
    """(rows,), no spike."""

    def of(self, picked: Ints) -> Rows:
        """Return some rows, in order."""
        readings = picked[picked < len(self.similar)]
        return Rows(self.features[picked], self.missed[picked], self.loud[picked], self.site_noise[picked],
                     self.similar[np.ix_(readings, readings)], self.surely[picked])

    def variance(self, noise: float, rest: float, spikes: Floats) -> Floats:
        """Return the covariance of rests, noise and spikes: (rows, rows), squared seconds."""
        count = len(self.similar)
        own: Floats = (noise * self.loud) ** 2 + self.site_noise ** 2 + spikes ** 2 + RIDGE
        found: Floats = np.diag(own)
        found[:count, :count] += self.similar * rest ** 2
        return found


class Posterior:
    """The corrections after the evidence."""

    def __init__(self, model: LatencyModel, features: Floats, missed: Floats, variance: Floats, prior: Floats,
                 noise: float, rest: float, gram: Floats | None = None) -> None:
        """Solve for the corrections.

        Args:
            model: what it belongs to.
            features: (rows, corrections), seconds.
            missed: (rows,), what the prior missed in seconds.
            variance: (rows, rows), covariance of rests and noise in squared seconds.
            prior: (corrections,), their variance.
            noise: relative standard deviation of one measurement.
            rest: relative standard deviation of what does not add up.
            gram: (rows, rows), what the corrections explain together, where it is known.
        """
        self._predicted: dict[bytes, tuple[float, float]] = {}
        self._model, self._features, self._variance, self._prior = model, features, variance, prior
        self.noise, self._rest, self._missed = noise, rest, missed
        self._gram = (features * prior) @ features.T if gram is None else gram
        self._root = np.linalg.cholesky(self._gram + variance)
        self._weights = self._solve(missed)
        self.mean = prior * (features.T @ self._weights)

    def with_variance(self, variance: Floats) -> Posterior:
        """Return what is believed when rests and noise have another covariance."""
        return Posterior(self._model, self._features, self._missed, variance, self._prior, self.noise, self._rest,
                         self._gram)

    @cached_property
    def _loud(self) -> Floats:
        return np.asarray(np.linalg.cholesky(self._variance), np.float64)

    def _solve(self, right: Floats) -> Floats:
        found: Floats = cho_solve((self._root, True), right, check_finite=False)
        return found

    def left_over(self) -> Floats:
        """Return what corrections and rests do not explain of every row, in seconds."""
        found: Floats = np.diag(self._variance) * self._weights
        similar = self._variance - np.diag(np.diag(self._variance))
        return np.where(similar.any(1), self._missed - self._features @ self.mean - similar @ self._weights, found)

    @one_core()
    def draw(self, rng: np.random.Generator) -> Floats:
        """Return corrections drawn from the posterior (Matheron's rule)."""
        start = rng.normal(size=len(self._prior)) * np.sqrt(self._prior)
        told = self._features @ start + self._loud @ rng.normal(size=len(self._variance))
        return start + self._prior * (self._features.T @ self._solve(self._missed - told))

    def tables(self, corrections: Floats | None = None) -> Tables:
        """Return the corrected costs in seconds, of the mean or of given corrections."""
        theta = self.mean if corrections is None else corrections
        model = self._model
        factor = 1.0 + sum(theta[table] for _, table in model.groups)
        sites = model.prior.sites * np.maximum(factor, LEAST)[:, None, :]
        sites += theta[model.narrowing] * (model.prior.full[:, None] - model.prior.sites)
        beside = model.share * theta[dict(model.groups)["site"]] + theta[model.overhead]
        sites += (beside * model.typical[:, None])[:, None]
        sites = np.maximum(sites, LEAST * model.prior.sites)
        edges = model.prior.edges
        if model.graph.edges:
            edges = edges * np.maximum(1.0 + theta[model.edge_numbers], 0.0)
        return Tables(model.graph, sites, edges)

    def predict(self, configs: Ints) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the true latency in seconds: (configurations,) each."""
        keys = [config.tobytes() for config in configs]
        new = [row for row, key in enumerate(keys) if key not in self._predicted]
        if new:
            found = np.array(self._predict(configs[new])).T
            self._predicted.update(zip([keys[row] for row in new], map(tuple, found), strict=True))
        mean, deviation = np.array([self._predicted[key] for key in keys]).reshape(-1, 2).T
        return mean, deviation

    @one_core()
    def _predict(self, configs: Ints) -> tuple[Floats, Floats]:
        model = self._model
        features, base = model.features(configs), model.prior.total(configs)
        shared = (features * self._prior) @ self._features.T
        seconds = np.maximum(base + features @ self.mean, LEAST * base)
        if model.readings:
            known = np.array([r.latency_s for r in model.readings])
            shared[:, :len(known)] += self._rest ** 2 * model.similarity(configs, model.configs) * np.outer(
                seconds, known)
        mean = base + shared @ self._weights
        white = solve_triangular(self._root, shared.T, lower=True, check_finite=False)
        variance = (features ** 2 * self._prior).sum(1) + (self._rest * seconds) ** 2 - (white ** 2).sum(0)
        return mean, np.sqrt(np.maximum(variance, (1e-4 * mean) ** 2))
