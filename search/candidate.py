"""A candidate: one configuration for every layer, and the choices that hold for all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from search.space import LayerConfig, SearchSpace


@dataclass(frozen=True)
class Candidate:
    """What a compiler turns into an artifact. Two with the same canonical form are one."""

    compiler: str
    layers: tuple[tuple[str, LayerConfig], ...]
    """(layer name, configuration), in the order of the space."""
    threads: int = 1
    """Threads of the runtime on the board."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads: expected at least 1, got {self.threads}")

    @classmethod
    def of(cls, space: SearchSpace, configs: Mapping[str, LayerConfig], threads: int = 1) -> Candidate:
        """Make a candidate of `space`. Raises ValueError for a missing, unknown or illegal layer."""
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
        return cls(space.compiler, ordered, threads)

    @cached_property
    def config_of(self) -> Mapping[str, LayerConfig]:
        return dict(self.layers)

    @cached_property
    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(
            {"compiler": self.compiler, "layers": {n: c.label for n, c in self.layers}, "threads": self.threads},
            sort_keys=True, separators=(",", ":"))

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
        return cls.of(space, configs, data["threads"])
