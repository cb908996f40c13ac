"""What one timed session of one artifact on one board brought home."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """How long to warm up and to sample. Times in seconds."""

    threads: int = 1
    min_runs: int = 20
    max_runs: int = 2000
    max_sampling_s: float = 1.0
    """Sampling ends here even when the confidence interval is still wide."""
    target_ci: float = 0.01
    """Sampling ends when the 95 % interval of the median is within +- this share of it."""
    max_warmup_s: float = 0.5
    max_profile_s: float = 0.1
    """Runs after the timed ones, in which a runtime that can times its kernels one by one."""
    timeout_s: float = 60.0
    """An artifact whose session takes longer is hung: the candidate's fault."""


@dataclass(frozen=True, slots=True)
class Sensors:
    """What the board said of itself at one moment; None where it has no such sensor."""

    temperature_c: float | None = None
    frequency_hz: float | None = None
    governor: str | None = None
    throttled: str | None = None
    """The board's own word for it, e.g. `0x50000`; None when it has none."""
    load_1m: float | None = None


@dataclass(frozen=True, slots=True)
class Care:
    """What a board's sessions wait for, and where they run."""

    cores: Literal["fastest"] | tuple[int, ...] | None = None
    """Cores that a session is pinned to; `fastest`: as many as it has threads; None: not pinned."""
    cool_below_c: float | None = None
    """A session begins when the processor is at or below that, in degrees Celsius."""
    cool_down_s: float = 300.0
    """It waits for so long at most."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What else happened while it was measured; None where the board does not say."""

    cores: tuple[int, ...] | None = None
    """That the session was pinned to."""
    cooled_s: float = 0.0
    """It waited for the processor to cool."""
    discarded_runs: int = 0
    """Thrown away and repeated, because the clock was taken away meanwhile."""
    throttled: tuple[str, ...] = ()
    """By what, e.g. `temperature limit`, `CPU quota`."""
    still_throttled: bool = False
    """No other runs could be had: the samples are throttled ones."""
    others_cores: float | None = None
    """Cores that other processes used meanwhile."""
    hog: str | None = None
    """The one that used most: `stress (pid 812)`."""
    waited_s: float | None = None
    """The session's threads waited for a core; of warm-up and timed runs."""


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One call of a kernel within a run."""

    kernel: str
    layer: str
    """Module path of the PyTorch network; empty where the compiler does not say."""
    ns: int
    """Median over the profiled runs."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """All raw samples of one artifact, with what is needed to believe them."""

    artifact_sha256: str
    board: str
    kind: str
    boot_id: str
    runtime: str
    runtime_version: str
    agent_version: str
    threads: int
    wall_ns: tuple[int, ...]
    """Wall time of every timed run, nanoseconds, in order."""
    cpu_ns: tuple[int, ...]
    """CPU time of the process in every timed run, nanoseconds."""
    warmup_runs: int
    load_s: float
    """Reading the artifact and preparing the interpreter."""
    before: Sensors
    after: Sensors
    peak_rss_bytes: int | None
    simulated: bool
    """True when the times come from a model and not from a clock."""
    session_s: float
    """Warm-up, timed, profiled and golden runs, as the agent saw them: overhead is what the controller adds."""
    kernels: tuple[KernelTime, ...] = ()
    """In the order of their calls; none where the runtime does not time them."""
    conditions: Conditions = Conditions()
    scale: float = 1.0
    """What the times are multiplied by before those of the study's other boards stand beside them: the reference
    artifact's latency in the study, over that on this board."""

    @property
    def median_s(self) -> float:
        """Median wall time of a run, in seconds."""
        return statistics.median(self.wall_ns) * 1e-9

    @property
    def comparable_ns(self) -> tuple[int, ...]:
        """The wall times as the board that the study compares by would have had them."""
        return self.wall_ns if self.scale == 1.0 else tuple(round(value * self.scale) for value in self.wall_ns)
