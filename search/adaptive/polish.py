"""Improves many configurations at once: one site changes, two do, or a whole group takes another level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.adaptive.graph import Bools, Floats, Graph, Ints, Tables

STEPS = 30
PAIRS = 24
"""Moves of each direction that are combined."""
TRIED = 4
"""Of these combinations, those that are computed exactly."""
LEAST = 1e-12


@dataclass(frozen=True)
class Problem:
    """Minimise `loss` so that every resource stays within its limit."""

    graph: Graph
    loss: Floats
    """(sites, width); lower is better, additive."""
    resources: tuple[Tables, ...]
    limits: tuple[float, ...]
    around: Ints | None = None
    """A configuration whose groups' levels are a good start: (sites,)."""
    roughly: bool = False
    """One start will do: the loss is a draw, 0.8 % more of it does not matter."""

    def losses(self, configs: Ints) -> Floats:
        """Return the loss: (configurations,)."""
        found: Floats = self.loss[np.arange(self.graph.length)[None], configs].sum(1)
        return found

    def excess(self, configs: Ints) -> Floats:
        """Return the largest relative violation, negative within all limits: (configurations,)."""
        if not self.resources:
            return np.full(len(configs), -1.0)
        over = [r.total(configs) / limit - 1 for r, limit in zip(self.resources, self.limits, strict=True)]
        found: Floats = np.array(over).max(0)
        return found


def changes(tables: Tables, config: Ints) -> Floats:
    """Return what a cost changes by when one site takes another option: (sites, width)."""
    graph = tables.graph
    rows = np.arange(graph.length)
    entering = graph.entering(config[None])[0]
    own = tables.sites[rows, entering, config]
    found: Floats = tables.sites[rows, entering] - own[:, None]
    if graph.edges:
        starts, ends = graph.ends
        edges = np.arange(len(starts))
        now = tables.edges[edges, config[starts], config[ends]]
        read = ends[:graph.chained]
        after = tables.sites[read[:, None], graph.levels[graph.sources[read]], config[read][:, None]]
        np.add.at(found, graph.sources[read], after - own[read][:, None])
        np.add.at(found, starts, tables.edges[edges, :, config[ends]] - now[:, None])
        np.add.at(found, ends, tables.edges[edges, config[starts], :] - now[:, None])
    return found


def polish(problem: Problem, config: Ints) -> Ints:
    """Improve a configuration while a single change, a group's level or two changes together help."""
    graph = problem.graph
    for _ in range(STEPS):
        loss = float(problem.losses(config[None])[0])
        lost = problem.loss - problem.loss[np.arange(graph.length), config][:, None]
        used = np.array([r.total(config[None])[0] / limit - 1
                         for r, limit in zip(problem.resources, problem.limits, strict=True)])
        excess = float(used.max(initial=-1.0))
        moved = [changes(r, config) / limit for r, limit in zip(problem.resources, problem.limits, strict=True)]
        after = np.array([u + m for u, m in zip(used, moved, strict=True)]).max(0) if moved else np.full_like(lost, -1)
        here = graph.levels[np.arange(graph.length), config]
        single = graph.valid & (np.arange(graph.width)[None] != config[:, None])
        single &= graph.alone[:, None] | (graph.levels == here[:, None])
        better = _repaired(problem, config, excess, loss, lost, after, single) if excess > 0 else \
            _improved(problem, config, loss, lost, after, single, moved, used)
        if better is None:
            return config
        config = better
    return config


def _with(config: Ints, *moves: tuple[int, int]) -> Ints:
    changed = config.copy()
    for site, option in moves:
        changed[site] = option
    return changed


def _place(flat: int, width: int) -> tuple[int, int]:
    return int(flat) // width, int(flat) % width


def _repaired(problem: Problem, config: Ints, excess: float, loss: float, lost: Floats, after: Floats,
              single: Bools) -> Ints | None:
    """Return the change that brings the limits nearest for the least loss."""
    worth = np.where(single & (excess - after > LEAST), np.minimum(excess - after, excess) / np.maximum(lost, LEAST), 0)
    found, best = None, 0.0
    if worth.max() > 0:
        found, best = _with(config, _place(int(np.argmax(worth)), lost.shape[1])), float(worth.max())
    grouped = problem.graph.group_moves(config)
    if len(grouped):
        saved = excess - problem.excess(grouped)
        rate = np.where(saved > LEAST,
                        np.minimum(saved, excess) / np.maximum(problem.losses(grouped) - loss, LEAST), 0)
        if rate.max() > best:
            found = grouped[np.argmax(rate)]
    return found


def _improved(problem: Problem, config: Ints, loss: float, lost: Floats, after: Floats,
              single: Bools, moved: Sequence[Floats],
              used: Floats) -> Ints | None:
    """Return a change, or two together, that lowers the loss within the limits."""
    width = lost.shape[1]
    gain = np.where(single & (after <= 0), lost, np.inf)
    if gain.min() < -LEAST:
        return _with(config, _place(int(np.argmin(gain)), width))
    every = np.concatenate([_paired(problem, config, lost, single, moved, used), problem.graph.group_moves(config)])
    if not len(every):
        return None
    every = every[problem.excess(every) <= 0]
    if not len(every) or problem.losses(every).min() >= loss - LEAST:
        return None
    return np.asarray(every[np.argmin(problem.losses(every))])


def _paired(problem: Problem, config: Ints, lost: Floats, single: Bools,
            moved: Sequence[Floats], used: Floats) -> Ints:
    """Return the most promising pairs of changes, one that lowers the loss and one that pays for it."""
    if not moved:
        return np.empty((0, len(config)), np.int64)
    width = lost.shape[1]
    gains = np.argsort(np.where(single, lost, np.inf), axis=None)[:PAIRS]
    gains = gains[(lost.ravel()[gains] < -LEAST) & single.ravel()[gains]]
    tightest = moved[int(np.argmax(used))]
    price = np.where(single & (tightest < -LEAST), np.maximum(lost, 0) / np.maximum(-tightest, LEAST), np.inf)
    saves = np.argsort(price, axis=None)[:PAIRS]
    saves = saves[np.isfinite(price.ravel()[saves])]
    if not len(gains) or not len(saves):
        return np.empty((0, len(config)), np.int64)
    both = lost.ravel()[gains][:, None] + lost.ravel()[saves][None]
    over = np.array([u + m.ravel()[gains][:, None] + m.ravel()[saves][None] for u, m in zip(used, moved, strict=True)])
    same = (gains[:, None] // width) == (saves[None] // width)
    rank = np.where((over.max(0) <= 0) & ~same, both, np.inf)
    picks = np.argsort(rank, axis=None)[:TRIED]
    picks = picks[rank.ravel()[picks] < -LEAST]
    return np.array([_with(config, _place(gains[p // len(saves)], width), _place(saves[p % len(saves)], width))
                     for p in picks], np.int64).reshape(-1, len(config))
