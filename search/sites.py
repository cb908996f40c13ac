"""A space as the engine sees it, and how candidates and the engine's configurations become each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search.adaptive.graph import Graph, Ints
from search.candidate import Candidate, Recovery
from search.space import LayerConfig, PruneGroup, SearchSpace


@dataclass(frozen=True)
class Sites:
    """A graph for the engine, and how its configurations and the candidates of a space become each other.

    The options of a site are its layer's choices at full width, then the same at the next width of its group, ...
    """

    space: SearchSpace
    graph: Graph

    @cached_property
    def group_of(self) -> Mapping[str, PruneGroup]:
        """Site -> the group that its output channels belong to."""
        return {site.name: self.space.group_of[site.group] for site in self.graph.sites if site.group}

    def shares(self, index: int) -> Sequence[float]:
        """Return the share of its output channels that a site has at every level."""
        group = self.group_of.get(self.graph.sites[index].name)
        return (1.0,) if group is None else tuple(width / group.channels for width in group.widths)

    def candidate(self, picks: Ints, threads: int, recovery: Recovery | None = None) -> Candidate:
        """Return a configuration as a candidate; narrowed ones are recovered at a level."""
        configs: dict[str, LayerConfig] = {}
        widths: dict[str, int] = {}
        for site, pick in zip(self.graph.sites, picks, strict=True):
            choices = self.space.by_name[site.name].choices
            level, choice = divmod(int(pick), len(choices))
            configs[site.name] = choices[choice]
            if site.group:
                widths[site.group] = self.space.group_of[site.group].widths[level]
        narrowed = any(width != self.space.group_of[name].channels for name, width in widths.items())
        return Candidate.of(self.space, configs, threads, widths, recovery if narrowed else None)

    def picks(self, candidate: Candidate) -> Ints:
        """Return a candidate as a configuration: (sites,)."""
        found = []
        for site in self.graph.sites:
            choices, level = self.space.by_name[site.name].choices, 0
            if site.group in candidate.width_of:
                level = self.space.group_of[site.group].widths.index(candidate.width_of[site.group])
            found.append(level * len(choices) + choices.index(candidate.config_of[site.name]))
        return np.array(found, np.int64)
