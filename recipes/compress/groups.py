"""Channels that layers share: what a group is made of, and where its channels lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from search.space import PruneGroup

ROUND_TO = 8
"""Kept channels are multiples of this: kernels compute in lanes of it."""
RATIOS = (7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 1 / 8)


class Axis(StrEnum):
    """Where a layer has a group's channels."""

    OUT = "out"
    IN = "in"
    BOTH = "both"
    """One value or kernel for every channel: a depthwise convolution, a normalisation, a PReLU."""


@dataclass(frozen=True, slots=True)
class Member:
    """One layer's share of a group."""

    module: str
    """Path in the PyTorch network."""
    axis: Axis
    positions: tuple[int, ...]
    """Along that axis of its parameters."""
    channels: tuple[int, ...]
    """Of the group, one for every position: a linear layer behind a flattened image has several of each."""


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that go together or not at all."""

    name: str
    channels: int
    members: tuple[Member, ...]
    """In the order in which they are executed."""
    order: tuple[int, ...] = ()
    """All channels, the most important first; empty until a criterion has ordered them."""

    def kept(self, width: int) -> tuple[int, ...]:
        """Return the channels that stay at a width, ascending."""
        if len(self.order) != self.channels:
            raise ValueError(f"group {self.name}: its channels are not ordered yet")
        return tuple(sorted(self.order[:width]))

    @property
    def readers(self) -> tuple[Member, ...]:
        """Layers that mix the channels."""
        return tuple(member for member in self.members if member.axis is Axis.IN)

    @property
    def writers(self) -> tuple[Member, ...]:
        """Layers whose output the channels are, without those that only pass them on."""
        return tuple(member for member in self.members if member.axis is Axis.OUT)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Channels that cannot be pruned."""

    name: str
    """The first layer that produces them, or `` where it is the whole network."""
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What can be pruned in a network, and in which order its channels go."""

    groups: tuple[ChannelGroup, ...]
    left_out: tuple[LeftOut, ...]

    def to_bytes(self) -> bytes:
        """Serialise as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        found = json.loads(data)
        return cls(tuple(_group(entry) for entry in found["groups"]),
                   tuple(LeftOut(**entry) for entry in found["left_out"]))


def _group(data: Mapping[str, Any]) -> ChannelGroup:
    members = tuple(Member(m["module"], Axis(m["axis"]), tuple(m["positions"]), tuple(m["channels"]))
                    for m in data["members"])
    return ChannelGroup(data["name"], data["channels"], members, tuple(data["order"]))


def legal_widths(channels: int) -> tuple[int, ...]:
    """Return all channels and the multiples of `ROUND_TO` nearest to `RATIOS` of them, widest first."""
    rounded = {max(ROUND_TO, round(channels * ratio / ROUND_TO) * ROUND_TO) for ratio in RATIOS}
    return (channels, *sorted((width for width in rounded if width < channels), reverse=True))


def prune_group(group: ChannelGroup, layers: frozenset[str]) -> PruneGroup:
    """Return a group as the search sees it; only modules that are layers of the space are named."""
    produced = tuple(m.module for m in group.members if m.axis is not Axis.IN and m.module in layers)
    read = tuple(m.module for m in group.members if m.axis is not Axis.OUT and m.module in layers)
    return PruneGroup(group.name, group.channels, legal_widths(group.channels), produced, read)
