"""What a compiler must know of the machine that will run an artifact."""

from __future__ import annotations

from dataclasses import dataclass

RUNTIMES = ("litert", "tflite-runtime", "tvm")


@dataclass(frozen=True, slots=True)
class Target:
    """Made from a board's facts by the orchestrator's wiring."""

    machine: str
    """As `uname -m` prints it: `aarch64`, `x86_64`, `armv7l`."""
    runtime: str
    """`litert` (ai-edge-litert), `tflite-runtime` or `tvm` (apache-tvm)."""
    runtime_version: str
    cpu_features: tuple[str, ...] = ()
    """Sorted flags of /proc/cpuinfo, e.g. `asimddp`."""

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise ValueError(f"runtime: expected one of {RUNTIMES}, got {self.runtime!r}")
