"""What `orchestrator studies` prints."""

from __future__ import annotations

from typing import Literal, NotRequired

from pydantic import JsonValue
from typing_extensions import TypedDict

from orchestrator.schemas.search import BudgetDocument, Entry, SearchDocument, WinnerEntry
from orchestrator.schemas.strict import strict


@strict
class TrialCounts(TypedDict):
    """How many trials are in which state."""

    complete: int
    infeasible: int
    """The candidate's fault."""
    failed: int
    """The board's or the network's fault: tried again by --resume."""
    running: int


@strict
class Result(TypedDict):
    """The winner in short."""

    name: str | None
    candidate_id: str
    latency_s: float
    """The statistic that the goal names."""
    accuracy: float
    """The objective on the validation split."""
    size_bytes: int


@strict
class StudySummary(TypedDict):
    """A study in a list."""

    name: str
    status: Literal["RUNNING", "FINISHED", "INTERRUPTED", "FAILED"]
    created_at: str
    """ISO 8601, UTC."""
    model: str | None
    device: str | None
    budget: str | None
    """As it was asked for."""
    size_budget: str | None
    max_drop: float | None
    trials: TrialCounts
    goal_met: bool | None
    winner: Result | None
    result_absent_because: NotRequired[str]
    """Why goal_met and winner are null."""
    simulated: bool | None
    recipe: str | None
    """Folder of the winner's bundle."""


@strict
class StudiesList(TypedDict):
    """`orchestrator studies list`: oldest first."""

    schema: Literal[1]
    store: str
    studies: list[StudySummary]


@strict
class TrialDocument(TypedDict):
    """A trial, whatever became of it."""

    trial: int
    name: str | None
    candidate_id: str
    compiler: str
    role: Literal["baseline", "seed", "search"]
    state: Literal["RUNNING", "COMPLETE", "INFEASIBLE", "FAILED"]
    reason: str | None
    """Why it is INFEASIBLE or FAILED."""
    result: Entry | None
    """Null unless it is COMPLETE."""
    feasible: bool | None
    """Whether every constraint holds; null while a baseline that the budget needs is missing."""
    layers: dict[str, str]
    """Layer -> configuration."""
    widths: NotRequired[dict[str, int]]
    """Group of channels -> how many are kept; absent where nothing is pruned."""
    for_all: NotRequired[dict[str, str]]
    """What is chosen for all layers together: `calibration`, `clipping`; absent where both are as by default."""


@strict
class StudyShow(TypedDict):
    """`orchestrator studies show NAME`."""

    schema: Literal[1]
    study: StudySummary
    config: dict[str, JsonValue]
    """As in study.yaml."""
    model_digest: str
    tool_versions: dict[str, str]
    search_space: dict[str, JsonValue]
    """compiler, layers (name, kind, choices, weights, macs), log10_size: the number of candidates; where channels
    may be pruned: groups (name, channels, widths, produced_by, read_by). Of several compilers: `spaces`, a list of
    these."""
    objective: str
    trials: list[TrialDocument]
    search: SearchDocument | None
    """What `orchestrator search` printed at the end."""
    search_absent_because: NotRequired[str]


@strict
class StudyPareto(TypedDict):
    """`orchestrator studies pareto NAME`."""

    schema: Literal[1]
    study: str
    metric: str
    latency_stat: Literal["median", "p90", "p99", "mean"]
    simulated: bool
    compilers: NotRequired[list[str]]
    """Where the study has several."""
    pareto: list[Entry]
    """Fastest first; `accuracy` is the metric's."""


@strict
class LayerTime(TypedDict):
    """What one layer takes of an inference."""

    layer: str | None
    """Module path; null: operators between layers."""
    config: str | None
    """Null for what is no variable of the search."""
    latency_s: float
    share: float
    """Of the sum of all layers."""
    beside_s: float | None
    """The same layer in `beside`."""


@strict
class StudyLayers(TypedDict):
    """`orchestrator studies layers NAME`."""

    schema: Literal[1]
    study: str
    candidate_id: str
    name: str | None
    latency_s: float
    """Sum of the layers: the median latency of the sessions in which they were timed."""
    beside: str | None
    """The uniform recipe in `beside_s`: int8, else float32."""
    layers: list[LayerTime]
    """In the order of their first calls."""


@strict
class StudyPick(TypedDict):
    """`orchestrator studies pick NAME`."""

    schema: Literal[1]
    study: str
    objective: str
    simulated: bool
    compilers: NotRequired[list[str]]
    """Where the study has several."""
    budget: BudgetDocument
    """The constraints that were asked for, resolved with the study's baselines."""
    confidence: float
    goal_met: bool
    """Every constraint holds in what was measured and, where that can be said, with the confidence."""
    violations: dict[str, float]
    """Constraint -> by what share it is violated; of quality: by how much."""
    baselines: list[Entry]
    """float32, and those of which a budget is a share."""
    picked: WinnerEntry
    """When goal_met is false: the nearest."""
    recipe: str | None
    """Folder of its bundle."""
    recipe_absent_because: NotRequired[str]


@strict
class PlotFile(TypedDict):
    """A picture."""

    kind: Literal["pareto", "progress", "layers", "all"]
    format: Literal["png", "html"]
    path: str


@strict
class StudyPlot(TypedDict):
    """`orchestrator studies plot NAME`."""

    schema: Literal[1]
    study: str
    files: list[PlotFile]
    absent: dict[str, str]
    """Kind of picture -> why there is none."""


@strict
class StudyRemoved(TypedDict):
    """`orchestrator studies remove NAME`."""

    schema: Literal[1]
    study: str
    trials: int
    files: int
    bytes_freed: int
