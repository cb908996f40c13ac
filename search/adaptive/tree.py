"""The optimum of many additive problems at once: dynamic programming from the leaves of the data flow to its roots.

Exact for the tree of sources (Viterbi 1967). What a site costs depends on its source's option only by format and
level, so the message to the source has one entry for each of these classes. Edges of skips take the other end from
the round before; groups whose sites are scattered over the tree take their levels from the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search.adaptive.graph import Bools, Floats, Graph, Ints, Tables

ROUNDS = 2
"""Of the skips' ends, within one solution."""


@dataclass(frozen=True)
class Programs:
    """Problems over one graph: minimise loss + multiplier * cost."""

    graph: Graph
    kept: Ints
    """(problems, sites, kept): options that no other of the same class beats; padded with the first."""
    loss: Floats
    """(problems, sites, kept); infinite where padded."""
    cost: Floats
    """(problems, sites, classes, kept): of the option and of the edge from its source."""
    skipped: Floats
    """(problems, skips, width, width)."""

    @staticmethod
    def of(graph: Graph, losses: Floats, costs: list[tuple[Tables, ...]],
           limits: list[tuple[float, ...]], whole: bool = False) -> Programs:
        """Prepare problems; several resources are added up in shares of their limits.

        Args:
            graph: of all.
            losses: (problems, sites, width).
            costs: of every problem, its resources.
            limits: of every problem, its resources' limits.
            whole: keep also what another option beats.
        """
        shape = (len(losses), graph.length, graph.depth, graph.width)
        own = np.zeros(shape)
        edges = np.zeros((len(losses), len(graph.edges), graph.width, graph.width))
        for number, (tables, limit) in enumerate(zip(costs, limits, strict=True)):
            for table, most in zip(tables, limit, strict=True):
                own[number] += table.sites / most
                edges[number] += table.edges / most
        kept, valid = _undominated(graph, losses, costs, whole)
        problems, rows = np.arange(len(losses))[:, None, None], np.arange(graph.length)[None, :, None]
        loss = np.where(valid, losses[problems, rows, kept], np.inf)
        before = np.where(np.array([site.source < 0 for site in graph.sites])[:, None], 0,
                          graph.levels[graph.sources[:, None], graph.representatives[graph.sources]])
        cost = own[problems[..., None], rows[..., None], before[None, :, :, None], kept[:, :, None, :]]
        for edge, (a, b) in enumerate(graph.edges[:graph.chained]):
            cost[:, b] += edges[np.arange(len(losses))[:, None, None], edge, graph.representatives[a][None, :, None],
                                kept[:, b][:, None, :]]
        return Programs(graph, kept, loss, cost, edges[:, graph.chained:])

    @cached_property
    def tied(self) -> dict[int, Floats]:
        """Site that has its source's level -> (classes, width): infinite where the levels differ."""
        graph, found = self.graph, {}
        for index, site in enumerate(graph.sites):
            if site.group and site.source >= 0 and graph.sites[site.source].group == site.group:
                before = graph.levels[site.source, graph.representatives[site.source]]
                found[index] = np.where(before[:, None] != graph.levels[index][None], np.inf, 0.0)
        return found

    def best(self, problem: Ints, multipliers: Floats, levels: Ints | None = None) -> Ints:
        """Return the optimum of every row: (rows, sites).

        Args:
            problem: (rows,), which one.
            multipliers: (rows,).
            levels: (rows, scattered groups), their levels.
        """
        graph, count = self.graph, len(problem)
        each, picked = np.arange(count), np.zeros((0, 0), np.int64)
        loss = self.loss[problem]
        for number, members in enumerate(graph.scattered):
            if levels is not None:
                own = graph.levels[members[None, :, None], self.kept[problem][:, members]]
                loss[:, members] = np.where(own == levels[:, number, None, None], loss[:, members], np.inf)
        kept_class = np.take_along_axis(graph.classes[None], self.kept, 2)
        skips = graph.edges[graph.chained:]
        for _ in range(ROUNDS if skips else 1):
            unary = loss.copy()
            for e, (a, b) in enumerate(skips if len(picked) else ()):
                unary[:, b] += multipliers[:, None] * self.skipped[problem[:, None], e, picked[:, a, None],
                                                                   self.kept[problem, b]]
                unary[:, a] += multipliers[:, None] * self.skipped[problem[:, None], e, self.kept[problem, a],
                                                                   picked[:, b, None]]
            choices: list[Ints] = [np.zeros((0, 0), np.int64)] * graph.length
            for index in range(graph.length - 1, -1, -1):
                source, table = graph.sites[index].source, self.cost[problem, index]
                if source < 0:
                    choices[index] = (unary[:, index] + multipliers[:, None] * table[:, 0]).argmin(1)[:, None]
                    continue
                table *= multipliers[:, None, None]
                table += unary[:, index][:, None, :]
                if index in self.tied:
                    table += self.tied[index][np.arange(graph.class_count)[None, :, None],
                                                      self.kept[problem, index][:, None, :]]
                choice = table.argmin(2)
                message = table.reshape(choice.size, -1)[np.arange(choice.size), choice.ravel()].reshape(choice.shape)
                choices[index] = choice
                unary[:, source] += message[each[:, None], kept_class[problem, source]]
            picked = np.zeros((count, graph.length), np.int64)
            for index, site in enumerate(graph.sites):
                column = 0 if site.source < 0 else graph.classes[site.source, picked[:, site.source]]
                picked[:, index] = self.kept[problem, index, choices[index][each, column]]
        return picked


def _undominated(graph: Graph, losses: Floats, costs: list[tuple[Tables, ...]], whole: bool) -> tuple[Ints, Bools]:
    """Return the options that no other of the same class beats in loss and all resources, and which are padding."""
    count = len(losses)
    width = np.arange(graph.width)
    beaten = np.zeros((count, graph.length, graph.width), bool)
    if not whole:
        same = graph.classes[:, :, None] == graph.classes[:, None, :]
        same &= graph.valid[:, :, None] & graph.valid[:, None, :]
        for number, tables in enumerate(costs):
            values = [losses[number], *(table.sites.mean(1) for table in tables)]
            worse, strictly = same.copy(), np.broadcast_to(width[:, None] > width[None, :], same.shape).copy()
            for value in values:
                worse &= value[:, :, None] >= value[:, None, :]
                strictly |= value[:, :, None] > value[:, None, :]
            beaten[number] = (worse & strictly).any(2)
    alive = graph.valid[None] & ~beaten
    most = int(alive.sum(2).max())
    order = np.argsort(~alive, axis=2, kind="stable")[:, :, :most]
    valid = np.take_along_axis(alive, order, 2)
    return np.where(valid, order, order[:, :, :1]), valid
