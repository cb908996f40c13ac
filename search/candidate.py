"""A candidate: a configuration for every layer, a width for every group, and the choices that hold for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from search.space import FOR_ALL, Calibration, Clipping, LayerConfig, Scheme, SearchSpace


class Recovery(StrEnum):
    """How the accuracy that pruning costs is won back; cheapest first."""

    NONE = "none"
    """The kept weights stay as they are."""
    RECONSTRUCT = "reconstruct"
    """Layer-by-layer least squares on the calibration inputs."""

    @property
    def rank(self) -> int:
        """Place in the order of prices: a dearer level has a greater rank (the values sort as text)."""
        return list(Recovery).index(self)


@dataclass(frozen=True)
class Candidate:
    """What a compiler turns into an artifact. Two with the same canonical form are one."""

    compiler: str
    layers: tuple[tuple[str, LayerConfig], ...]
    """(layer name, configuration), in the order of the space."""
    threads: int = 1
    """Threads of the runtime on the board."""
    widths: tuple[tuple[str, int], ...] = ()
    """(group name, kept channels) of the groups that are narrowed, in the order of the space."""
    recovery: Recovery = Recovery.NONE
    calibration: Calibration = Calibration.MIN_MAX
    """The first one where no layer has integer activations: it would change nothing."""
    clipping: Clipping = Clipping.NONE
    """The first one where no layer has integer weights."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads: expected at least 1, got {self.threads}")
        if self.recovery is Recovery.RECONSTRUCT and not self.widths:
            raise ValueError("recovery: nothing is pruned, so there is nothing to reconstruct; expected none")

    @classmethod
    def of(cls, space: SearchSpace, configs: Mapping[str, LayerConfig], threads: int = 1,
           widths: Mapping[str, int] | None = None, recovery: Recovery | None = None,
           calibration: Calibration = Calibration.MIN_MAX, clipping: Clipping = Clipping.NONE) -> Candidate:
        """Make a candidate of `space`.

        Args:
            space: what is legal.
            configs: layer name -> configuration, for every layer.
            threads: of the runtime on the board.
            widths: group name -> kept channels; a group that is not named stays as wide as it is.
            recovery: by default `reconstruct` where something is narrowed, else `none`.
            calibration: of integer activations; without any it is left at its first value.
            clipping: of integer weights; without any it is left at its first value.

        Raises ValueError for a missing, unknown or illegal layer, group, width or choice for all.
        """
        unknown = sorted(set(configs) - set(space.by_name))
        missing = sorted(set(space.by_name) - set(configs))
        if unknown or missing:
            raise ValueError(f"candidate does not fit its space: unknown {unknown}, missing {missing}")
        for layer in space.layers:
            if configs[layer.name] not in layer.choices:
                legal = ", ".join(choice.label for choice in layer.choices)
                raise ValueError(
                    f"layer {layer.name}: {configs[layer.name].label} is not legal; legal: {legal}")
        ordered = tuple((layer.name, configs[layer.name]) for layer in space.layers)
        narrowed = _narrowed(space, widths or {})
        if recovery is None:
            recovery = Recovery.RECONSTRUCT if narrowed else Recovery.NONE
        if calibration not in space.calibrations:
            raise ValueError(f"calibration: {calibration} is not legal; legal: {', '.join(space.calibrations)}")
        if clipping not in space.clippings:
            raise ValueError(f"clipping: {clipping} is not legal; legal: {', '.join(space.clippings)}")
        if not any(config.scheme is Scheme.STATIC for config in configs.values()):
            calibration = Calibration.MIN_MAX
        if not any(layer.weights and configs[layer.name].scheme is not Scheme.FLOAT for layer in space.layers):
            clipping = Clipping.NONE
        return cls(space.compiler, ordered, threads, narrowed, recovery, calibration, clipping)

    @cached_property
    def config_of(self) -> Mapping[str, LayerConfig]:
        return dict(self.layers)

    @cached_property
    def width_of(self) -> Mapping[str, int]:
        """Group name -> kept channels, of the groups that are narrowed."""
        return dict(self.widths)

    @property
    def for_all(self) -> Mapping[str, str]:
        """What was chosen for all layers together, where it is not the first: `calibration`, `clipping`."""
        chosen: Mapping[str, Calibration | Clipping] = {"calibration": self.calibration, "clipping": self.clipping}
        return {name: value.value for name, value in chosen.items() if value is not FOR_ALL[name]}

    @cached_property
    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces; what came after layers and threads only where it is set."""
        data: dict[str, object] = {"compiler": self.compiler, "layers": {n: c.label for n, c in self.layers},
                                   "threads": self.threads}
        if self.widths:
            data["widths"] = dict(self.widths)
        if self.recovery is not Recovery.NONE or self.widths:
            data["recovery"] = self.recovery.value
        return json.dumps({**data, **self.for_all}, sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical form."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:16]

    @classmethod
    def from_json(cls, space: SearchSpace, text: str) -> Candidate:
        """Read a canonical form back and check it against `space`. Raises ValueError."""
        data = json.loads(text)
        if data["compiler"] != space.compiler:
            raise ValueError(f"compiler: the space is of {space.compiler!r}, the candidate of {data['compiler']!r}")
        configs = {name: LayerConfig.from_label(label) for name, label in data["layers"].items()}
        return cls.of(space, configs, data["threads"], data.get("widths", {}),
                      Recovery(data.get("recovery", Recovery.NONE)),
                      Calibration(data.get("calibration", Calibration.MIN_MAX)),
                      Clipping(data.get("clipping", Clipping.NONE)))


def candidate_in(spaces: Mapping[str, SearchSpace], text: str) -> Candidate:
    """Read a canonical form back and check it against the space of its own compiler. Raises ValueError."""
    compiler = json.loads(text)["compiler"]
    if compiler not in spaces:
        raise ValueError(f"compiler: the spaces are of {', '.join(spaces)}, the candidate of {compiler!r}")
    return Candidate.from_json(spaces[compiler], text)


def _narrowed(space: SearchSpace, widths: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Check widths and return those below full, in the order of the space."""
    for name, width in widths.items():
        group = space.group_of.get(name)
        if group is None:
            known = ", ".join(space.group_of) or "none (pruning is off, or nothing can be pruned)"
            raise ValueError(f"no group is called {name!r}; groups of the space: {known}")
        if width not in group.widths:
            raise ValueError(f"group {name}: {width} channels are not legal; legal: "
                             f"{', '.join(map(str, group.widths))}")
    return tuple((group.name, widths[group.name]) for group in space.groups
                 if widths.get(group.name, group.channels) != group.channels)
