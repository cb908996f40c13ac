"""What a cost model learns from: one layer in one format, where it ran, what it took."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recipes.compilers.shapes import LayerShape
from search.space import LayerConfig


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where a layer runs."""

    board_kind: str
    runtime: str
    runtime_version: str
    threads: int

    @property
    def software(self) -> str:
        """The runtime with its version."""
        return f"{self.runtime} {self.runtime_version}"


@dataclass(frozen=True, slots=True)
class Observation:
    """What one layer took."""

    shape: LayerShape
    config: LayerConfig
    where: Conditions
    latency_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_s) and self.latency_s > 0):
            raise ValueError(f"{self.shape.kind}: expected a latency above 0 s, got {self.latency_s}")

    @property
    def family(self) -> tuple[str, int, int, int]:
        """Operator, kernel, stride and order of magnitude of the work (in powers of four): held out together."""
        return self.shape.kind, self.shape.kernel, self.shape.stride, int(math.log2(self.shape.work) // 2)
