"""What recipe.yaml holds: everything that decides the artifact's bytes, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from recipes.ports import Ports, PortSpec
from recipes.target import Target
from search.candidate import Candidate, Recovery
from search.space import Calibration, Clipping, LayerConfig

SCHEMA = 5
STATISTICS: Final = "calibration.json"
RULES: Final = "quantizer_recipe.json"
SCHEDULES: Final = "schedules.json"
RECIPE: Final = "recipe.yaml"
README: Final = "README.md"
SUMS: Final = "SHA256SUMS"
FileName = Literal["model.tflite", "float.tflite", "model.so", "float.json", "calibration.json",
                   "quantizer_recipe.json", "schedules.json"]
EVERY_NAME: frozenset[str] = frozenset({*get_args(FileName), RECIPE, README, SUMS})
"""What may lie in a bundle, whichever compiler made it."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a bundle of one compiler holds, beside what describes it."""

    model: FileName
    """The artifact."""
    float_model: FileName
    others: tuple[FileName, ...] = ()
    """What its tools need to rebuild the artifact without this program."""
    optional: tuple[FileName, ...] = ()
    """What is there where it decided the artifact's bytes."""

    @property
    def names(self) -> tuple[FileName, ...]:
        """Those that every such bundle has."""
        return (self.model, self.float_model, STATISTICS, *self.others)


FILES: Mapping[str, Files] = MappingProxyType({
    "tflite": Files("model.tflite", "float.tflite", (RULES,)),
    "tvm": Files("model.so", "float.json", (), (SCHEDULES,))})
"""Compiler -> what its bundles hold."""


class BundleError(Exception):
    """A bundle cannot be written, or what is there is no bundle that this version can read."""

    def __init__(self, what: str, where: Path, remedy: str) -> None:
        super().__init__(what, where, remedy)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


class PlaceTaken(BundleError):
    """What is at a bundle's destination is in its way."""


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _label(value: str) -> str:
    LayerConfig.from_label(value)
    return value


Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, AfterValidator(_label)]
Seconds = Annotated[float, Field(gt=0)]
Statistic = Literal["median", "p90", "p99", "mean"]
Layout = Literal["NWC", "NHWC", "NDHWC", "model"]
_CHANNELS_LAST: Mapping[int, Layout] = MappingProxyType({3: "NWC", 4: "NHWC", 5: "NDHWC"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False,
                              use_attribute_docstrings=True, json_schema_serialization_defaults_required=True)


class TargetEntry(_Strict):
    """The machine and the runtime that the candidate is legal for."""

    machine: Text
    """As `uname -m` prints it."""
    runtime: Literal["litert", "tflite-runtime", "tvm"]
    runtime_version: Text
    cpu_features: tuple[str, ...]
    """Sorted flags of /proc/cpuinfo."""

    @classmethod
    def of(cls, target: Target) -> Self:
        return cls.model_validate({"machine": target.machine, "runtime": target.runtime,
                                   "runtime_version": target.runtime_version, "cpu_features": target.cpu_features})

    def to_target(self) -> Target:
        return Target(self.machine, self.runtime, self.runtime_version, self.cpu_features)


class CandidateEntry(_Strict):
    """One configuration for every layer, the widths of what was pruned, and what was chosen for all layers."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """First digits of the SHA-256 of the canonical form of everything else here and of the compiler."""
    threads: Annotated[int, Field(ge=1)]
    """Threads of the runtime on the board."""
    layers: Annotated[dict[str, Label], Field(min_length=1)]
    """Layer name -> configuration, e.g. `static_w8a8`."""
    widths: dict[str, Annotated[int, Field(ge=1)]]
    """Group of coupled channels -> how many were kept; groups that were not narrowed are not named."""
    recovery: Literal["none", "reconstruct"]
    """How the accuracy was won back after pruning."""
    calibration: Literal["min_max", "percentile", "mse"]
    """How the ranges of integer activations were found."""
    clipping: Literal["none", "octav"]
    """How the scales of integer weights were found."""

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        return cls.model_validate({
            "id": candidate.id, "threads": candidate.threads, "widths": dict(candidate.widths),
            "recovery": candidate.recovery.value, "calibration": candidate.calibration.value,
            "clipping": candidate.clipping.value,
            "layers": {name: config.label for name, config in candidate.layers}})


class ModelEntry(_Strict):
    """The trained network."""

    name: Text
    """As the user wrote it, e.g. `demo:residual` or `net.py:make`."""
    sha256: Sha256
    """Tells networks apart: the digest of the network as it was imported."""


class DataEntry(_Strict):
    """The data that calibrated and evaluated the artifact."""

    name: Text
    """As the user wrote it."""
    sha256: dict[str, Sha256]
    """Split name -> digest."""


def _layout(port: PortSpec) -> Layout:
    return _CHANNELS_LAST[len(port.shape)] if port.channels_last else "model"


class PortEntry(_Strict):
    """One input or output of the artifact."""

    name: Text
    """In the artifact's signature."""
    position: Annotated[int, Field(ge=0)]
    """Among the interpreter's inputs or outputs."""
    source: str
    """In the given model: the argument's name, or the output's position."""
    shape: tuple[int, ...]
    dtype: Text
    """numpy's name."""
    layout: Layout
    """`NHWC` and the like: channels last, where the given model has them second; `model`: the same axes as there."""
    scale: float | None
    """real = (integer - zero_point) * scale; null for a port that is not quantised."""
    zero_point: int | None

    @classmethod
    def of(cls, port: PortSpec) -> Self:
        return cls(name=port.name, position=port.position, source=port.source, shape=port.shape, dtype=port.dtype,
                   layout=_layout(port), scale=port.scale, zero_point=port.zero_point)

    def to_spec(self) -> PortSpec:
        return PortSpec(self.name, self.position, self.source, self.shape, self.dtype, self.layout != "model",
                        self.scale, self.zero_point)


class Latency(_Strict):
    """Wall time of one inference, in seconds."""

    median_s: Seconds
    p90_s: Seconds
    ci95_s: tuple[float, float]
    """95 % confidence interval of `statistic`."""
    statistic: Statistic
    """What the budget limits."""
    budget_s: Seconds | None
    """null where no latency budget was given."""
    probability: Annotated[float, Field(ge=0, le=1)] | None
    """P(statistic <= budget_s); null where there is no budget."""


class Measured(_Strict):
    """What one board measured."""

    board: Text
    kind: Text
    runtime: Text
    runtime_version: Text
    threads: Annotated[int, Field(ge=1)]
    latency: Latency
    simulated: bool
    """True when the times come from a model and not from a clock."""


class FileFacts(_Strict):
    """One file of the bundle."""

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class RecipeFacts(_Strict):
    """All of a recipe but its files, which the export describes."""

    schema_version: Literal[5] = Field(default=5, alias="schema")
    """Version of this format. A reader refuses a newer one."""
    study: Text
    """The study that found the candidate."""
    created: Annotated[AwareDatetime, AfterValidator(_utc)]
    """UTC."""
    seed: Annotated[int, Field(ge=0)]
    """Of the proposer."""
    compiler: Literal["tflite", "tvm"]
    io: Literal["float", "int8"]
    """Type of the artifact's inputs and outputs."""
    target: TargetEntry
    candidate: CandidateEntry
    prune_criterion: Literal["obs", "magnitude", "bn_scale", "taylor", "activation"] | None
    """In which order channels were pruned; null where the study did not prune."""
    model: ModelEntry
    data: DataEntry
    tools: dict[str, str]
    """Distribution -> version: what converted, calibrated and quantised."""
    inputs: Annotated[tuple[PortEntry, ...], Field(min_length=1)]
    outputs: Annotated[tuple[PortEntry, ...], Field(min_length=1)]
    measured: tuple[Measured, ...]
    """Latency of this very artifact, board by board."""
    accuracy: dict[str, dict[str, float]]
    """Split -> metric -> value of this very artifact; higher is better."""

    @property
    def kept(self) -> Files:
        """What the bundle holds."""
        return FILES[self.compiler]

    @model_validator(mode="after")
    def _check_candidate(self) -> Self:
        found = self.to_candidate().id
        if self.candidate.id != found:
            raise ValueError(f"candidate.id: the rest of it gives {found}, the file says {self.candidate.id}: "
                             "it was changed by hand")
        return self

    def to_candidate(self) -> Candidate:
        """Return the candidate, not yet checked against a search space."""
        layers = tuple((name, LayerConfig.from_label(label)) for name, label in self.candidate.layers.items())
        return Candidate(self.compiler, layers, self.candidate.threads, tuple(self.candidate.widths.items()),
                         Recovery(self.candidate.recovery), Calibration(self.candidate.calibration),
                         Clipping(self.candidate.clipping))

    def to_ports(self) -> Ports:
        """Return how to feed the artifact."""
        return Ports(tuple(p.to_spec() for p in self.inputs), tuple(p.to_spec() for p in self.outputs))


class Recipe(RecipeFacts):
    """The whole of recipe.yaml."""

    files: dict[FileName, FileFacts]
    """File name -> size and digest. Last in the file, so that no cut-off file passes for a whole one."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        names, optional = self.kept.names, self.kept.optional
        if set(self.files) - set(optional) != set(names):
            raise ValueError(f"files: a bundle of the compiler {self.compiler} has {', '.join(names)}, the file names "
                             f"{', '.join(self.files) or 'none'}")
        return self

    @classmethod
    def of(cls, facts: RecipeFacts, files: dict[FileName, FileFacts]) -> Self:
        """Complete a recipe."""
        return cls.model_validate({**{name: getattr(facts, name) for name in RecipeFacts.model_fields
                                      if name != "schema_version"}, "files": files})


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipe.yaml."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema",
            **Recipe.model_json_schema(by_alias=True, mode="serialization"), "title": RECIPE}
