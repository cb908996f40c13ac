"""What `orchestrator search` prints, and the entries that other documents share with it."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from orchestrator.schemas.strict import strict

NO_ENERGY = "no meter is configured for this board"
CORNER = "the slowest and the least accurate of the uniform recipes"
NO_CORNER = "only one uniform recipe was measured, and its corner is that of all; see --baselines all"
NOT_EVALUATED = "only baselines and the winner are evaluated on the test split"


@strict
class Latency(TypedDict):
    """Wall time of one inference on the board, seconds."""

    median: float
    p90: float
    p99: float
    mean: float
    ci95: tuple[float, float]
    """95 % confidence interval of the statistic that the goal names (latency_stat)."""
    confirmed: bool
    """True: several fresh processes, in turn with the baselines; false: as read in the search."""


@strict
class WinnerLatency(Latency):
    """The winner's latency, with the probability that decides about the goal."""

    probability_met: float | None
    """P(latency <= budget)."""
    probability_absent_because: NotRequired[str]


@strict
class Accuracy(TypedDict):
    """The objective's value, higher is better."""

    validation: float
    """What the search saw."""
    test: float | None
    """What the search never saw."""


@strict
class Metrics(TypedDict):
    """Name -> value of every metric."""

    validation: dict[str, float]
    test: dict[str, float] | None


@strict
class PrunedGroup(TypedDict):
    """Coupled channels of which some were cut."""

    group: str
    """The first layer that produces them."""
    kept: int
    channels: int
    """Of the network as it was given."""


@strict
class Entry(TypedDict):
    """A candidate that was built and measured."""

    name: str | None
    """Of a uniform recipe or a seed."""
    compiler: str
    candidate_id: str
    latency_s: Latency
    accuracy: Accuracy
    metrics: Metrics
    size_bytes: int
    energy_j: float | None
    """Energy of one inference, joule."""
    energy_absent_because: NotRequired[str]
    test_absent_because: NotRequired[str]
    widened: list[str]
    """Layers that took the next wider format, because the one that was asked for is not legal there."""
    pruned: NotRequired[list[PrunedGroup]]
    """Absent where nothing is pruned."""
    recovery: NotRequired[Literal["none", "reconstruct"]]
    """How the accuracy was won back after pruning."""
    for_all: NotRequired[dict[str, str]]
    """What was chosen for all layers together: `calibration`, `clipping`; absent where both are as by default."""


@strict
class WinnerEntry(Entry):
    """The best candidate: feasible before nearest."""

    latency_s: WinnerLatency  # type: ignore[misc]  # narrower than in Entry, which only readers see
    trial: int
    role: Literal["baseline", "seed", "search"]
    layers: dict[str, str]
    """Layer -> configuration: float32, fp16, static_w8a8, dynamic_w8, weight_only_w8, ..."""


@strict
class Asked(TypedDict):
    """The budgets in the user's words."""

    latency: str | None
    size: str | None


@strict
class BudgetDocument(TypedDict):
    """The constraints, resolved."""

    latency_s: float | None
    latency_absent_because: NotRequired[str]
    latency_stat: Literal["median", "p90", "p99", "mean"]
    size_bytes: float | None
    size_absent_because: NotRequired[str]
    max_drop: float | None
    """Points of the objective that may be lost; 1 point is 0.01."""
    minimum: dict[str, float]
    """Metric -> its least allowed value."""
    asked: Asked


@strict
class RuntimeDocument(TypedDict):
    """What executes the artifacts on the board."""

    name: str
    version: str


@strict
class CompilerDocument(TypedDict):
    """One of several compilers of a search."""

    name: str
    runtime: RuntimeDocument
    measurements: int
    """Distinct candidates of it that were timed."""


@strict
class BoardDocument(TypedDict):
    """A board that measured."""

    name: str
    kind: str
    measurements: int


@strict
class AbsentBaseline(TypedDict):
    """A uniform recipe that was not measured."""

    name: str
    reason: str


@strict
class Infeasible(TypedDict):
    """A candidate that does not build or does not run."""

    trial: int
    candidate_id: str
    name: str | None
    reason: str | None


@strict
class Corner(TypedDict):
    """The reference point of a hypervolume."""

    latency_s: float
    accuracy: float
    of: str
    """What it is the latency and the accuracy of."""


@strict
class Hypervolume(TypedDict):
    """How good a front of the objective and latency is: larger is better."""

    value: float
    """The area that the front dominates, in the unit of the objective: latency in shares of the reference's."""
    reference: Corner


@strict
class Stopped(TypedDict):
    """Why nothing more was proposed."""

    why: Literal["allowance", "time", "interrupted", "outlook", "unreachable", "exhausted"]
    """outlook: hardly anything was expected of one more measurement; unreachable: no configuration keeps within the
    latency budget; exhausted: the sampler found nothing new."""
    message: str


@strict
class OutlookDocument(TypedDict):
    """What one more measurement is expected to bring, as of the last proposal."""

    improvement: str
    """What counts as an improvement."""
    probability: float
    """Of an improvement."""
    gain_points: NotRequired[float]
    """Expected gain in the objective; 1 point is 0.01."""
    gain_s: NotRequired[float]
    """Expected gain where the fastest is looked for."""


@strict
class SearchDocument(TypedDict):
    """What a search came to."""

    schema: Literal[1]
    study: str
    model: str
    objective: str
    """The metric that is maximised, or that --max-drop guards."""
    objectives: list[str]
    """What is looked for: the metric, latency, or of a front both, and size if that was asked for."""
    goal_met: bool
    """Every constraint holds and P(latency <= budget) >= confidence."""
    confidence: float
    budget: BudgetDocument
    compiler: str
    """What was asked for; several with commas between them. An entry says its own."""
    runtime: RuntimeDocument
    """Of several: the winner's."""
    compilers: NotRequired[list[CompilerDocument]]
    """Where several were searched: how the measurements were shared."""
    threads: int
    io: Literal["float", "int8"]
    boards: list[BoardDocument]
    baselines: list[Entry]
    baselines_absent: list[AbsentBaseline]
    seeds: list[Entry]
    """One scheme for all layers of some operator kinds: what the search started from."""
    winner: WinnerEntry | None
    """When goal_met is false: the nearest candidate. Null: nothing could be measured."""
    pareto: list[Entry]
    """Candidates that no other beats in latency and objective (and size, where that is an objective), fastest first;
    where a front is looked for, of those within the constraints."""
    hypervolume: Hypervolume | None
    hypervolume_absent_because: NotRequired[str]
    shipped_least: NotRequired[float]
    """Of a front: the winner is the fastest whose objective is at least this, else the most accurate."""
    infeasible: list[Infeasible]
    measurements: int
    """Distinct candidates that were timed."""
    stopped: Stopped
    stop_below: float
    """The search ends while an improvement is less likely than this; 0: never."""
    outlook: OutlookDocument | None
    outlook_absent_because: NotRequired[str]
    wall_s: float
    simulated: bool
    """True: latencies come from a model of a board, not from a clock."""
    interrupted: bool
    recipe: str | None
    """Folder of the winner's bundle."""
    recipe_absent_because: NotRequired[str]
