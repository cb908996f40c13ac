"""How far a prior is from what was measured, on layers that it was not trained with."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profilers.cost_model import VARIANTS, CostModel, roofline_seconds
from profilers.cost_model_features import Floats
from profilers.cost_model_rows import Observation
from profilers.simulation import Roofline

PRIORS = ("roofline", *VARIANTS)
FOLDS = 5
TIE = 0.01
"""Median relative errors that differ by less are the same: on a simulated board both are its noise."""
MIN_ROWS = 100
"""Fewer rows than this say nothing about shapes that were not measured."""
Ints = NDArray[np.int64]


class TooFewRows(ValueError):
    """There is not enough evidence to train with."""


@dataclass(frozen=True, slots=True)
class PriorError:
    """Of one prior on held-out rows."""

    median_relative: float
    """Median of |predicted / measured - 1|, after the best scale for each kind of board."""
    rank_correlation: float
    """Spearman's, -1 to 1."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Errors by prior, each prediction made by a model that knew nothing of its group."""

    rows: int
    by_family: dict[str, PriorError]
    """A family of shapes is held out: one operator, kernel, stride and order of magnitude."""
    by_board_kind: dict[str, PriorError] | None
    """A kind of board is held out; None with one kind."""

    @property
    def chosen(self) -> str:
        """The prior with the least error on held-out families; within `TIE`, the roofline, which needs no model."""
        best = min(PRIORS, key=lambda name: self.by_family[name].median_relative)
        gained = self.by_family["roofline"].median_relative - self.by_family[best].median_relative
        return best if gained > TIE else "roofline"


def error_of(predicted: Floats, measured: Floats, groups: Sequence[Hashable]) -> PriorError:
    """Compare seconds with seconds.

    The scale is taken out first, since a search finds it with its first measurement: the median of the
    logarithmic ratios, for each group.
    """
    from scipy.stats import spearmanr

    logs = np.log(predicted) - np.log(measured)
    for label in dict.fromkeys(groups):
        own = np.array([group == label for group in groups])
        logs[own] -= np.median(logs[own])
    return PriorError(float(np.median(np.abs(np.expm1(logs)))), float(spearmanr(predicted, measured).statistic))


def evaluate_priors(rows: Sequence[Observation], roofline: Roofline, seed: int = 0) -> Evaluation:
    """Predict every row by models that have not seen its family, or its kind of board. Raises TooFewRows."""
    if len(rows) < MIN_ROWS:
        raise TooFewRows(f"{len(rows)} measured layers are too few to train with and to judge by: at least {MIN_ROWS} "
                         "are needed; 'orchestrator costmodel collect --device NAME' measures more")
    families = _folds([row.family for row in rows], seed)
    kinds = sorted({row.where.board_kind for row in rows})
    by_kind = None
    if len(kinds) > 1:
        by_kind = _held_out(rows, np.array([kinds.index(row.where.board_kind) for row in rows]), roofline)
    return Evaluation(len(rows), _held_out(rows, families, roofline), by_kind)


def _held_out(rows: Sequence[Observation], folds: Ints,
              roofline: Roofline) -> dict[str, PriorError]:
    predicted = {name: np.zeros(len(rows)) for name in PRIORS}
    for fold in np.unique(folds):
        model = CostModel.train([row for row, its in zip(rows, folds, strict=True) if its != fold], roofline)
        for where in dict.fromkeys(row.where for row, its in zip(rows, folds, strict=True) if its == fold):
            picked = np.array([i for i, row in enumerate(rows) if folds[i] == fold and row.where == where])
            layers = [(rows[i].shape, rows[i].config) for i in picked]
            predicted["roofline"][picked] = roofline_seconds(layers, where, roofline)
            for variant in VARIANTS:
                predicted[variant][picked] = model.predict(variant, layers, where, roofline)
    measured = np.array([row.latency_s for row in rows])
    return {name: error_of(found, measured, [row.where.board_kind for row in rows])
            for name, found in predicted.items()}


def _folds(groups: Sequence[Hashable], seed: int) -> Ints:
    """Deal groups to folds, the largest first to the smallest fold; ties by chance."""
    counts = {group: groups.count(group) for group in dict.fromkeys(groups)}
    names = list(counts)
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    sizes, fold_of = [0] * FOLDS, {}
    for index in sorted(order, key=lambda i: -counts[names[i]]):
        fold = sizes.index(min(sizes))
        fold_of[names[index]] = fold
        sizes[fold] += counts[names[index]]
    return np.array([fold_of[group] for group in groups])
