"""The cheapest configurations within budgets: dynamic programming over the data flow with multipliers, then a polish.

min loss + multiplier * resources is exact on the tree of sources (tree.py); the multiplier as in Shoham and Gersho
1988, Efficient bit allocation for an arbitrary set of quantizers, equation 7: it is refined between the two grid
points that enclose the budget. Groups whose sites are scattered over the tree get their levels from outside, one
level after the other (cutset conditioning, Pearl 1988, section 4.4.2). Many problems over one graph are solved at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from search.adaptive.graph import Bools, Floats, Graph, Ints, unique
from search.adaptive.polish import Problem, polish
from search.adaptive.tree import Programs

GRID = 12
FINER = 8
REFINEMENTS = 2
ALL = 12
"""Up to so many assignments of levels to scattered groups are all tried."""
SWEEPS = 2
"""Of the scattered groups, each a step up or down."""


def solve(problem: Problem) -> Ints:
    """Return the best configuration found: (sites,). The nearest one where none is within the limits."""
    found: Ints = solve_all([problem])[0]
    return found


def solve_all(problems: Sequence[Problem]) -> Ints:
    """Solve problems over one graph: (problems, sites). See `solve`."""
    stack = _Stack.of(problems)
    graph = problems[0].graph
    starts = [_first_levels(problem) for problem in problems]
    found = stack.search(starts)
    for _ in range(SWEEPS if graph.scattered else 0):
        further = stack.search([_next_levels(graph, near[0]) for near in found])
        chosen = [np.array([_best(p, np.concatenate([near[:1], more[:1]])), near[-1]])
                  for p, near, more in zip(problems, found, further, strict=True)]
        if all(np.array_equal(a[0], b[0]) for a, b in zip(chosen, found, strict=True)):
            break
        found = chosen
    results = []
    for problem, near in zip(problems, found, strict=True):
        best = _best(problem, np.array([polish(problem, start) for start in unique(near)]))
        if problem.excess(best[None])[0] > 0:
            best = _best(problem, np.array([best, polish(problem, _cheapest(problem))]))
        results.append(best)
    return np.array(results)


def _first_levels(problem: Problem) -> Ints:
    """Return the levels of the scattered groups to begin with: (assignments, groups)."""
    graph = problem.graph
    offered = [sorted({option.level for option in graph.sites[members[0]].options}) for members in graph.scattered]
    if math.prod(map(len, offered)) <= ALL:
        every = list(product(*offered))
        return np.array(every, np.int64).reshape(len(every), len(offered))
    rows = [[min(level, levels[-1]) for levels in offered] for level in range(graph.depth)]
    if problem.around is not None:
        rows.insert(0, _levels(graph, problem.around).tolist())
    return unique(np.array(rows, np.int64).reshape(len(rows), -1))


def _levels(graph: Graph, config: Ints) -> Ints:
    leaders = np.array([members[0] for members in graph.scattered], np.int64)
    found: Ints = graph.levels[leaders, config[leaders]]
    return found


def _next_levels(graph: Graph, config: Ints) -> Ints:
    """Return a configuration's levels with one scattered group a step up or down: (assignments, groups)."""
    here, rows = _levels(graph, config), []
    for number, members in enumerate(graph.scattered):
        offered = sorted({option.level for option in graph.sites[members[0]].options})
        place = offered.index(int(here[number]))
        for near in offered[max(place - 1, 0):place + 2]:
            row = here.copy()
            row[number] = near
            rows.append(row)
    return unique(np.array(rows))


def _best(problem: Problem, configs: Ints, excess: Floats | None = None) -> Ints:
    """Return the least loss within the limits, else the least excess (which may be known)."""
    excess, losses = problem.excess(configs) if excess is None else excess, problem.losses(configs)
    inside = excess <= 0
    found: Ints = configs[np.argmin(np.where(inside, losses, np.inf)) if inside.any() else np.argmin(excess)]
    return found


def _cheapest(problem: Problem) -> Ints:
    """Return the least of the resources, whatever the loss."""
    free = Problem(problem.graph, np.zeros_like(problem.loss), problem.resources, problem.limits)
    graph, levels = problem.graph, _first_levels(problem)
    programs = Programs.of(graph, free.loss[None], [free.resources], [free.limits], whole=True)
    found = _best(free, programs.best(np.zeros(len(levels), np.int64), np.ones(len(levels)), levels))
    while graph.scattered:
        levels = _next_levels(graph, found)
        near = programs.best(np.zeros(len(levels), np.int64), np.ones(len(levels)), levels)
        better = _best(free, np.concatenate([found[None], near]))
        if free.excess(better[None])[0] >= free.excess(found[None])[0]:
            break
        found = better
    return found


@dataclass(frozen=True)
class _Stack:
    """Problems, and the distinct programs behind them: those that differ in their limits alone share one."""

    problems: Sequence[Problem]
    programs: Programs
    number: Ints
    """(problems,), of the program."""
    span: Floats
    """(problems,), by how much losses differ."""

    @staticmethod
    def of(problems: Sequence[Problem]) -> _Stack:
        keys: dict[tuple[int, ...], int] = {}
        firsts: list[Problem] = []
        number = np.zeros(len(problems), np.int64)
        for index, problem in enumerate(problems):
            key = (id(problem.loss), *map(id, problem.resources))
            if key not in keys:
                keys[key] = len(firsts)
                firsts.append(problem)
            number[index] = keys[key]
        graph = problems[0].graph
        programs = Programs.of(graph, np.array([p.loss for p in firsts]), [p.resources for p in firsts],
                               [p.limits for p in firsts])
        span = np.array([float(np.where(graph.valid, p.loss, 0.0).max(1).sum()) or 1.0 for p in problems])
        return _Stack(problems, programs, number, span)

    def search(self, levels: Sequence[Ints]) -> list[Ints]:
        """Return of every problem the best within the limits, then the nearest beyond them: one or two rows.

        Args:
            levels: of every problem, levels of the scattered groups to try: (assignments, groups).
        """
        problem = np.concatenate([np.full(len(rows), index) for index, rows in enumerate(levels)])
        assigned = np.concatenate(levels)
        low, high = np.zeros(len(problem)), np.full(len(problem), np.inf)
        kept: list[list[tuple[Ints, float]]] = [[] for _ in self.problems]
        grid = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, GRID - 1)])
        steps = grid[None] * self.span[problem, None]
        active = np.arange(len(problem))
        for _ in range(1 + REFINEMENTS):
            configs = self._run(problem[active], steps, assigned[active])
            excess = self._excess(problem[active], configs)
            inside = excess <= 0
            some: Bools = np.asarray(inside.any(1))
            first = inside.argmax(1)
            beyond = np.where(inside, np.inf, excess).argmin(1)
            for place, row in enumerate(problem[active]):
                ends = (first[place], beyond[place]) if some[place] else (-1,)
                kept[row].extend((configs[place, end], excess[place, end]) for end in ends)
            going = some & (first > 0)
            low[active[going]] = steps[going, first[going] - 1]
            high[active[going]] = steps[going, first[going]]
            active = active[going]
            if not len(active):
                break
            least, most = low[active, None], high[active, None]
            share = np.linspace(0, 1, FINER + 2)[None, 1:]
            steps = np.where(least > 0, least ** (1 - share) * most ** share, share * most)
        return [self._ends(of, rows) for of, rows in zip(self.problems, kept, strict=True)]

    def _excess(self, problem: Ints, configs: Ints) -> Floats:
        """Return the largest relative violation: (rows, multipliers); a table is asked once for all its problems."""
        rows, each, sites = configs.shape
        found = np.full((rows, each), -1.0 if not self.problems[0].resources else -np.inf)
        for place in range(len(self.problems[0].resources)):
            limits = np.array([self.problems[p].limits[place] for p in problem])
            tables = [self.problems[p].resources[place] for p in problem]
            for table in {id(table): table for table in tables}.values():
                own = np.array([other is table for other in tables])
                total = table.total(configs[own].reshape(-1, sites)).reshape(-1, each)
                found[own] = np.maximum(found[own], total / limits[own, None] - 1)
        return found

    def _run(self, problem: Ints, multipliers: Floats, assigned: Ints) -> Ints:
        """Return the optima: (rows, multipliers, sites). What is asked twice is computed once."""
        each = multipliers.shape[1]
        asked = np.concatenate([np.repeat(self.number[problem], each)[:, None], multipliers.reshape(-1, 1),
                                np.repeat(assigned, each, axis=0)], axis=1)
        rows, back = np.unique(asked, axis=0, return_inverse=True)
        found = self.programs.best(rows[:, 0].astype(np.int64), rows[:, 1], rows[:, 2:].astype(np.int64))
        graph = self.problems[0].graph
        return graph.settle(found)[back.ravel()].reshape(len(problem), each, graph.length)

    @staticmethod
    def _ends(of: Problem, rows: Sequence[tuple[Ints, float]]) -> Ints:
        """Return the best of these configurations with their excess, then the nearest one beyond the limits."""
        distinct = {config.tobytes(): (config, excess) for config, excess in rows}.values()
        configs, excess = np.array([c for c, _ in distinct]), np.array([e for _, e in distinct])
        best = _best(of, configs, excess)
        if not (excess > 0).any() or (of.roughly and (excess <= 0).any()):
            return best[None]
        return unique(np.array([best, configs[np.where(excess > 0, excess, np.inf).argmin()]]))
