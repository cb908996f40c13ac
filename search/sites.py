"""A space as the engine sees it, and how candidates and the engine's configurations become each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search.adaptive.graph import Graph, Ints, Option, Site
from search.candidate import Candidate, Recovery
from search.recipes import UNIFORM
from search.space import Calibration, Clipping, Layer, PruneGroup, SearchSpace

CALIBRATION = ":calibration"
CLIPPING = ":clipping"
"""Sites of the choices for all layers; no module path has a colon."""


@dataclass(frozen=True)
class Sites:
    """A graph for the engine, and how its configurations and the candidates of a space become each other.

    The options of a site are its layer's choices at full width, then the same at the next width of its group, ...
    After the layers come the choices for all of them, as far as there is anything to choose.
    """

    space: SearchSpace
    graph: Graph

    @cached_property
    def group_of(self) -> Mapping[str, PruneGroup]:
        """Site -> the group that its output channels belong to."""
        return {site.name: self.space.group_of[site.group] for site in self.graph.sites if site.group}

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the sites that cost time, in their order."""
        return tuple(self.space.by_name[self.graph.sites[index].name] for index in self.graph.timed)

    @cached_property
    def int8(self) -> Ints:
        """The uniform int8 configuration: (sites,)."""
        found = np.zeros(self.graph.length, np.int64)
        found[self.graph.timed] = [layer.choices.index(layer.widen(UNIFORM["int8"])) for layer in self.layers]
        return found

    def shares(self, index: int) -> Sequence[float]:
        """Return the share of its output channels that a site has at every level."""
        group = self.group_of.get(self.graph.sites[index].name)
        return (1.0,) if group is None else tuple(width / group.channels for width in group.widths)

    def candidate(self, picks: Ints, threads: int, recovery: Recovery | None = None) -> Candidate:
        """Return a configuration as a candidate; narrowed ones are recovered at a level."""
        for_all = {site.name: site.options[int(pick)].scheme
                   for site, pick in zip(self.graph.sites, picks, strict=True) if site.free}
        widths: dict[str, int] = {}
        configs = {}
        for layer, index in zip(self.layers, self.graph.timed, strict=True):
            level, choice = divmod(int(picks[index]), len(layer.choices))
            configs[layer.name] = layer.choices[choice]
            if group := self.graph.sites[index].group:
                widths[group] = self.space.group_of[group].widths[level]
        narrowed = any(width != self.space.group_of[name].channels for name, width in widths.items())
        return Candidate.of(self.space, configs, threads, widths, recovery if narrowed else None,
                            Calibration(for_all.get(CALIBRATION, Calibration.MIN_MAX)),
                            Clipping(for_all.get(CLIPPING, Clipping.NONE)))

    def picks(self, candidate: Candidate) -> Ints:
        """Return a candidate as a configuration: (sites,)."""
        for_all: Mapping[str, str] = {CALIBRATION: candidate.calibration, CLIPPING: candidate.clipping}
        found = np.zeros(self.graph.length, np.int64)
        for layer, index in zip(self.layers, self.graph.timed, strict=True):
            level, group = 0, self.graph.sites[index].group
            if group in candidate.width_of:
                level = self.space.group_of[group].widths.index(candidate.width_of[group])
            found[index] = level * len(layer.choices) + layer.choices.index(candidate.config_of[layer.name])
        for index, site in enumerate(self.graph.sites):
            if site.free:
                found[index] = [option.scheme for option in site.options].index(for_all[site.name])
        return found


def sites_for_all(space: SearchSpace) -> list[Site]:
    """Return the sites of what is chosen for all layers together: no latency depends on them."""
    return [Site(name, name, tuple(Option(value, "float", (value,)) for value in values), free=True)
            for name, values in ((CALIBRATION, space.calibrations), (CLIPPING, space.clippings)) if len(values) > 1]
