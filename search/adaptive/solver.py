"""The cheapest configuration within budgets: dynamic programming over the data flow, then a polish.

min quality loss + sum of multipliers * resources, exact on the tree of sources (Viterbi 1967; the multiplier as in
Shoham and Gersho 1988, Efficient bit allocation for an arbitrary set of quantizers); edges of skips take the other
end from the last round. The multiplier is refined between the two grid points that enclose the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search.adaptive.graph import Floats, Graph, Ints, Tables

GRID = 24
ROUNDS = 3
"""Of the skips' ends, within one solution."""
PAIRS = 32
"""Moves of each direction that the polish combines."""
POLISHES = 40


@dataclass(frozen=True)
class Problem:
    """Minimise `loss` so that every resource stays within its limit."""

    graph: Graph
    loss: Floats
    """(sites, width); lower is better, additive."""
    resources: tuple[Tables, ...]
    limits: tuple[float, ...]

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


@dataclass(frozen=True)
class _Reduced:
    """A problem without the options that another of the same format and level beats."""

    kept: Ints
    """(sites, kept width): the option's index; padded with the site's first."""
    loss: Floats
    """(sites, kept width); infinite where padded."""
    forbidden: Floats
    """(sites, kept width of the source, kept width): infinite where a tied site has not its source's level."""
    pairs: tuple[Floats, ...]
    """Of every resource: (sites, kept width of the source, kept width), the source's edge with it."""
    skips: tuple[tuple[int, int, tuple[Floats, ...]], ...]
    """(from, to, of every resource: (kept width, kept width))."""


def _reduce(problem: Problem, whole: bool = False) -> _Reduced:
    graph = problem.graph
    kept = [list(range(len(site.options))) if whole else _undominated(problem, index)
            for index, site in enumerate(graph.sites)]
    width = max(map(len, kept))
    valid = np.array([[o < len(k) for o in range(width)] for k in kept])
    options = np.array([[*k, *[k[0]] * (width - len(k))] for k in kept])
    rows = np.arange(graph.length)
    sources = np.where(np.array([site.source < 0 for site in graph.sites])[:, None], 0, options[graph.sources])
    source_edge = {b: e for e, (_, b) in enumerate(graph.edges[:graph.chained])}
    pairs = []
    for resource in problem.resources:
        table = resource.sites[rows[:, None, None], sources[:, :, None], options[:, None, :]]
        for b, e in source_edge.items():
            table[b] += resource.edges[e][np.ix_(options[graph.sites[b].source], options[b])]
        pairs.append(table)
    forbidden = np.zeros((graph.length, width, width))
    for index, site in enumerate(graph.sites):
        if site.tied:
            differ = graph.levels[site.source][options[site.source]][:, None] != graph.levels[index][options[index]]
            forbidden[index][differ] = np.inf
    skips = tuple((a, b, tuple(r.edges[graph.chained + n][np.ix_(options[a], options[b])] for r in problem.resources))
                  for n, (a, b) in enumerate(graph.edges[graph.chained:]))
    loss = np.where(valid, problem.loss[rows[:, None], options], np.inf)
    return _Reduced(options, loss, forbidden, tuple(pairs), skips)


def _undominated(problem: Problem, index: int) -> list[int]:
    """Return the options of a site that no other of the same format and level beats in loss and all resources."""
    site = problem.graph.sites[index]
    count = len(site.options)
    if not problem.resources:
        return list(range(count))
    used = [r.sites[index][:len(problem.graph.sites[site.source].options) if site.source >= 0 else 1, :count].mean(0)
            for r in problem.resources]
    costs = np.array([problem.loss[index, :count], *used])
    groups = np.array([hash((option.format, option.level)) for option in site.options])
    worse = (costs[:, :, None] >= costs[:, None, :]).all(0) & (groups[:, None] == groups[None])
    strictly = worse & ((costs[:, :, None] > costs[:, None, :]).any(0) | (np.arange(count)[:, None] > np.arange(count)))
    return [o for o in range(count) if not strictly[o].any()]


def solve(problem: Problem) -> Ints:
    """Return the best configuration found: (sites,). The nearest one where none is within the limits."""
    graph, small = problem.graph, _reduce(problem)
    span = float(np.where(graph.valid, problem.loss, 0.0).max(1).sum()) or 1.0
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, GRID - 1)]) * span
    configs = [_trees(problem, small, grid)]
    for _ in range(2):
        over = problem.excess(configs[-1]) > 0
        if not over.any() or over.all():
            break
        first = int(np.argmax(~over))
        low, high = grid[max(first - 1, 0)], grid[first]
        if first == 0:
            break
        grid = np.linspace(low, high, GRID) if low == 0 else np.geomspace(low, high, GRID)
        configs.append(_trees(problem, small, grid))
    every = graph.settle(np.concatenate(configs))
    starts = [_best(problem, every)]
    outside = every[problem.excess(every) > 0]
    if len(outside):
        starts.append(outside[np.argmin(problem.excess(outside))])
    found = _best(problem, np.array([polish(problem, start) for start in starts]))
    if problem.excess(found[None])[0] <= 0:
        return found
    nearest = Problem(graph, np.zeros_like(problem.loss), problem.resources, problem.limits)
    cheapest = graph.settle(_trees(nearest, _reduce(problem, whole=True), np.ones(1)))[0]
    return _best(problem, np.array([found, polish(problem, cheapest)]))


def _best(problem: Problem, configs: Ints) -> Ints:
    """Return the least loss within the limits, else the least excess."""
    excess, losses = problem.excess(configs), problem.losses(configs)
    inside = excess <= 0
    found: Ints = configs[np.argmin(np.where(inside, losses, np.inf)) if inside.any() else np.argmin(excess)]
    return found


def _trees(problem: Problem, small: _Reduced, multipliers: Floats) -> Ints:
    """Return the optimum of the tree for every multiplier: (multipliers, sites)."""
    sites, count = problem.graph.sites, len(multipliers)
    each = np.arange(count)
    weight = [multipliers / limit for limit in problem.limits]
    picked: Ints | None = None
    for _ in range(ROUNDS if small.skips else 1):
        unary = np.broadcast_to(small.loss[None], (count, *small.loss.shape)).copy()
        if picked is not None:
            for a, b, tables in small.skips:
                for table, factor in zip(tables, weight, strict=True):
                    unary[:, b] += factor[:, None] * table[picked[:, a]]
                    unary[:, a] += factor[:, None] * table[:, picked[:, b]].T
        picks: dict[int, Ints] = {}
        roots: dict[int, Ints] = {}
        for index in range(len(sites) - 1, -1, -1):
            source = sites[index].source
            cost = unary[:, index][:, None, :] + (small.forbidden[index] if source >= 0 else 0.0)
            for table, factor in zip(small.pairs, weight, strict=True):
                cost = cost + factor[:, None, None] * (table[index] if source >= 0 else table[index, :1])[None]
            best = cost.argmin(2)
            if source < 0:
                roots[index] = best[:, 0]
            else:
                picks[index] = best
                unary[:, source] += np.take_along_axis(cost, best[:, :, None], 2)[:, :, 0]
        picked = np.zeros((count, len(sites)), np.int64)
        for index, site in enumerate(sites):
            picked[:, index] = roots[index] if site.source < 0 else picks[index][each, picked[:, site.source]]
    if picked is None:
        raise ValueError("a tree needs at least one round")
    found: Ints = small.kept[np.arange(len(sites))[None], picked]
    return found


def polish(problem: Problem, config: Ints) -> Ints:
    """Improve a configuration by changing one site, then two at once, while that helps."""
    for _ in range(POLISHES):
        excess, loss = problem.excess(config[None])[0], problem.losses(config[None])[0]
        near = problem.graph.neighbours(config)
        if not len(near):
            return config
        if excess > 0:
            better = _repair(problem, config, near, float(excess), float(loss))
        else:
            better = _improve(problem, config, near, float(loss))
        if better is None:
            return config
        config = better
    return config


def _combined(problem: Problem, config: Ints, first: Ints, second: Ints) -> Ints:
    """Return every change of `first` together with every change of `second`."""
    changed = (first != config)[:, None, :]
    both = np.where(changed, first[:, None, :], second[None, :, :]).reshape(-1, problem.graph.length)
    return problem.graph.settle(both)


def _repair(problem: Problem, config: Ints, near: Ints, excess: float, loss: float) -> Ints | None:
    """Return the change that brings the budget nearest for the least loss."""
    saved = excess - problem.excess(near)
    lost = np.maximum(problem.losses(near) - loss, 1e-12)
    helps = saved > 1e-12
    if not helps.any():
        first, second = near[np.argsort(-saved)[:PAIRS]], near[np.argsort(-saved)[:PAIRS]]
        both = _combined(problem, config, first, second)
        excesses = problem.excess(both)
        return np.asarray(both[np.argmin(excesses)]) if excesses.min() < excess - 1e-12 else None
    enough = np.minimum(saved, excess)
    found: Ints = near[np.argmax(np.where(helps, enough / lost, -np.inf))]
    return found


def _improve(problem: Problem, config: Ints, near: Ints, loss: float) -> Ints | None:
    """Return a change, or two together, that lowers the loss within the limits."""
    losses, excess = problem.losses(near), problem.excess(near)
    single = np.where(excess <= 0, losses, np.inf)
    if single.min() < loss - 1e-12:
        return np.asarray(near[np.argmin(single)])
    gains = near[np.argsort(losses)[:PAIRS]]
    saved = problem.excess(config[None])[0] - excess
    price = np.where(saved > 1e-12, np.maximum(losses - loss, 0.0) / np.maximum(saved, 1e-12), np.inf)
    saves = near[np.argsort(price)[:PAIRS]]
    both = _combined(problem, config, gains, saves)
    found = np.where(problem.excess(both) <= 0, problem.losses(both), np.inf)
    if found.min() < loss - 1e-12:
        return np.asarray(both[np.argmin(found)])
    return None
