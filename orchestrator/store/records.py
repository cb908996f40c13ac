"""What goes into the store and comes out of it: plain values, never database rows."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue

from profilers.cost_model_rows import Conditions
from profilers.measurement import Measurement
from recipes.compilers.shapes import LayerShape
from search.space import LayerConfig, SearchSpace

ALL_KINDS = "*"
"""Scope of a cost model that was trained with every measured row; no board's kind has this name."""
RESOLUTION_S = 1e-8
"""What the clock cannot tell from nothing: no layer is taken for cheaper."""


class StudyStatus(StrEnum):
    RUNNING = "RUNNING"
    """A live controller works on it."""
    FINISHED = "FINISHED"
    INTERRUPTED = "INTERRUPTED"
    """Stopped by the user, or its controller died; `--resume` continues it."""
    FAILED = "FAILED"
    """The farm gave up; `--resume` continues it."""


class TrialRole(StrEnum):
    BASELINE = "baseline"
    SEED = "seed"
    SEARCH = "search"


class TrialState(StrEnum):
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    INFEASIBLE = "INFEASIBLE"
    """The candidate's own fault."""
    FAILED = "FAILED"
    """The farm's fault: the trial may be tried again."""


class Split(StrEnum):
    VALIDATION = "validation"
    TEST = "test"


class Where(StrEnum):
    HOST = "host"
    BOARD = "board"


class Purpose(StrEnum):
    SEARCH = "search"
    """One measurement from which the proposer learns."""
    REPEAT = "repeat"
    """Another reading of a candidate that was read several times in the search: not the one that counts."""
    CONFIRM = "confirm"
    """One of the repeats that certify a finalist."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The controller that has claimed a study."""

    host: str
    boot: str
    """Identifies the boot and the process namespace: a process id means something only within it."""
    pid: int
    started: int | None
    """Start of the process in clock ticks since the boot; tells a reused process id apart."""
    token: uuid.UUID
    """Identifies the opened store within the process."""
    heartbeat_at: datetime


@dataclass(frozen=True, slots=True)
class NewStudy:
    """What a study is made of; everything but the budget in `config` stays as it is."""

    name: str
    seed: int
    config: Mapping[str, JsonValue]
    """The whole configuration as it was given."""
    model_digest: str
    spaces: Mapping[str, SearchSpace]
    """By the compiler's name: one for each."""
    tool_versions: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a study needs a name, got an empty one")


@dataclass(frozen=True, slots=True)
class StudyRecord:
    id: uuid.UUID
    name: str
    created_at: datetime
    status: StudyStatus
    """INTERRUPTED also when the database says RUNNING but the controller is gone."""
    seed: int
    config: Mapping[str, JsonValue]
    """The whole configuration as it was given."""
    config_digest: str
    model_digest: str
    spaces: Mapping[str, SearchSpace]
    """By the compiler's name: one for each."""
    space_digest: str
    tool_versions: Mapping[str, str]
    document: Mapping[str, JsonValue] | None
    """The final report, once there is one."""
    holder: Holder | None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    id: uuid.UUID
    study_id: uuid.UUID
    number: int
    candidate_id: str
    candidate: str
    """Canonical JSON text, see search.candidate.Candidate.from_json."""
    role: TrialRole
    label: str | None
    """The user's word for a baseline, e.g. `int8`."""
    state: TrialState
    reason: str | None
    """Why it is INFEASIBLE or FAILED."""
    artifact_sha256: str | None
    size_bytes: int | None
    created_at: datetime
    finished_at: datetime | None
    widened: tuple[str, ...]
    """Layers that got a wider configuration than was asked for, because that was not legal."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One metric of one artifact: higher is better, in the metric's own unit (0-1 for top-1)."""

    split: Split
    metric: str
    value: float
    examples: int
    where: Where
    runtime: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.metric} ({self.split}): expected a finite value, got {self.value}; "
                             "an artifact that returns NaN is infeasible, not bad")


@dataclass(frozen=True, slots=True)
class MeasurementRecord:
    id: uuid.UUID
    trial_id: uuid.UUID
    purpose: Purpose
    session: int
    """Round of the confirmation or number of the repeat, from 1; 0 for the search's own measurement."""
    measurement: Measurement
    finished_at: datetime


def counting(readings: Sequence[Measurement]) -> Measurement:
    """Return the reading that counts: the middle one, and the faster of two, for interference only slows."""
    return sorted(readings, key=median_s)[(len(readings) - 1) // 2]


def median_s(reading: Measurement) -> float:
    """Return the median wall time, seconds."""
    return statistics.median(reading.wall_ns) * 1e-9


@dataclass(frozen=True, slots=True)
class TrialHistory:
    """A trial with everything that was found out about it, oldest first."""

    trial: TrialRecord
    measurements: tuple[MeasurementRecord, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def readings(self) -> tuple[Measurement, ...]:
        """What the search read, repeats too, oldest first."""
        return tuple(r.measurement for r in self.measurements if r.purpose in (Purpose.SEARCH, Purpose.REPEAT))

    @property
    def latency_s(self) -> float | None:
        """Median wall time of the search's reading that counts, seconds; None when there is none."""
        taken = [reading for reading in self.readings if reading.wall_ns]
        return median_s(counting(taken)) if taken else None

    def value(self, metric: str, split: Split = Split.VALIDATION) -> float | None:
        """Return the metric's value, the host's before the board's; None when there is none."""
        found = {e.where: e.value for e in self.evaluations if e.metric == metric and e.split is split}
        return found.get(Where.HOST, found.get(Where.BOARD))


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A finished step of a build: what went in is the key, what came out are blobs."""

    key: str
    """Digest over the inputs' digests, the parameters and the tools' versions."""
    name: str
    """import, convert, calibrate, ..."""
    outputs: Mapping[str, str]
    """Output's name -> SHA-256 of its blob."""
    tool_versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """Which tile of a kernel is the fastest on a kind of board, or why the kernel does not run there."""

    kernel: str
    """Digest of its shape, scheme and instructions."""
    title: str
    kind: str
    """Of the board."""
    board: str
    runtime_version: str
    templates: str
    """Digest of what kernels are written by."""
    tile: tuple[int, int, int]
    """Pixels, vectors, whether the weights stay."""
    default_ns: int
    """With the tile that is taken where nothing was measured."""
    best_ns: int
    tiles: int
    """How many were measured."""
    code_bytes: int
    """Of the kernel with the fastest tile."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What one layer took on one board, or why it does not run there."""

    shape: LayerShape
    config: LayerConfig
    copies: int
    """Of the layer in the artifact that was timed."""
    board: str
    where: Conditions
    simulated: bool
    boot_id: str | None = None
    agent_version: str | None = None
    artifact_sha256: str | None = None
    wall_ns: tuple[int, ...] | None = None
    """Wall time of every timed run, of all copies together."""
    fixed_s: float | None = None
    """What an inference costs in any case, as measured last before."""
    reason: str | None = None
    """Why it is infeasible; then nothing was measured."""

    def __post_init__(self) -> None:
        if (self.reason is None) != (self.wall_ns is not None and self.fixed_s is not None):
            raise ValueError(f"{self.shape.kind} {self.config.label}: expected samples or a reason, got "
                             f"{'both' if self.reason else 'neither'}")

    @property
    def point(self) -> str:
        """Digest of what was measured; where and when is not in it."""
        return point_of(self.shape, self.config)

    @property
    def latency_s(self) -> float | None:
        """Median of one copy, without what an inference costs in any case; None when it is infeasible."""
        if self.wall_ns is None or self.fixed_s is None:
            return None
        return max(RESOLUTION_S, (statistics.median(self.wall_ns) * 1e-9 - self.fixed_s) / self.copies)


@dataclass(frozen=True, slots=True)
class NewCostModel:
    """A trained cost model."""

    scope: str
    """The kind of board whose rows it was trained with, or `ALL_KINDS`."""
    blob_sha256: str
    rows: int
    features_version: int
    library: str
    chosen: str
    """The prior with the least held-out error: roofline, xgboost or both."""
    board_kinds: tuple[str, ...]
    errors: Mapping[str, float]
    """Prior -> median relative error on held-out families of shapes."""


@dataclass(frozen=True, slots=True)
class CostModelRecord:
    """A trained cost model as the store knows it."""

    model: NewCostModel
    version: int
    """Rises within a scope, from 1."""
    created_at: datetime

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"version {self.version} of {'all kinds' if self.model.scope == ALL_KINDS else self.model.scope}"


@dataclass(frozen=True, slots=True)
class Removed:
    """What deleting a study freed."""

    trials: int
    files: int
    bytes_freed: int


def digest_of(value: JsonValue) -> str:
    """Return the SHA-256 of a JSON value, independent of the order of keys.

    Raises ValueError for NaN and infinity, TypeError for what JSON cannot hold.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def point_of(shape: LayerShape, config: LayerConfig) -> str:
    """Return the digest of a layer's shape and format."""
    return digest_of([shape.key, config.label])
