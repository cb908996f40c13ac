"""What a study is: the keys of `study.yaml`, which the command line overrides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    field_validator,
)

from device_farm.inventory_file import yaml_problem
from orchestrator.errors import UsageError
from orchestrator.objectives import check_objectives, parse_objectives
from orchestrator.units import parse_budget, parse_seconds, parse_size_budget
from search.goal import Requirement
from search.recipes import UNIFORM

STUDY_SCHEMA = 1
DEFAULT_FILE = "study.yaml"
COMPILERS = ("tflite", "tvm")
"""In the order in which a study of several has them, whatever the order in which they are given."""


def parse_compilers(value: object) -> tuple[str, ...]:
    """Read `tvm`, `tflite,tvm` or a list of names. Raises ValueError that does not say where they stand."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(f"expected tflite or tvm, got {value!r}; several have commas between them: tflite,tvm")
    for name in names:
        if name not in COMPILERS:
            raise ValueError(f"expected tflite or tvm, got {name!r}; several have commas between them: tflite,tvm")
        if names.count(name) > 1:
            raise ValueError(f"expected every compiler once, got {name} {names.count(name)} times; for one search over "
                             "both: tflite,tvm")
    return tuple(name for name in COMPILERS if name in names)


def _one_or_list(names: tuple[str, ...]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


_NAMES = {"type": "string", "enum": list(COMPILERS)}
Compilers = Annotated[
    tuple[str, ...], BeforeValidator(parse_compilers), PlainSerializer(_one_or_list, when_used="json"),
    WithJsonSchema({"anyOf": [_NAMES, {"type": "array", "items": _NAMES, "minItems": 1, "uniqueItems": True}]})]


class StudyConfig(BaseModel):
    """A study's whole configuration; every key may stand in study.yaml and on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = Field(1, alias="schema", description="Version of this format: 1.")
    study: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="Name in the store.")
    model: str = Field("demo:residual", description="demo:NAME, FILE.py:FACTORY, PACKAGE.MODULE:FACTORY, or the path "
                                                    "of a .pt2, of an .onnx or of a float .tflite.")
    data: str = Field("demo:fashion_mnist", description="FILE.py:FACTORY or PACKAGE.MODULE:FACTORY.")
    device: str = Field("local", description="A board's name or a kind in the inventory; or local, sim.")
    budget: str | None = Field(None, description="Latency: 10ms, 0.5x (of float32) or 0.6x:int8.")
    size_budget: str | None = Field(None, description="Artifact size: 80KB or 0.8x:int8.")
    max_drop: float | None = Field(None, ge=0, strict=True, allow_inf_nan=False,
                                   description="Points of the objective that may be lost; 1 point is 0.01.")
    objective: str | None = Field(None, description="Several objectives for the Pareto front, e.g. accuracy,latency; "
                                                    "without it budgets and drops say what is looked for.")
    require: tuple[str, ...] = Field((), description="Constraints on metrics, e.g. 'recall_6 >= -0.01'.")
    measurements: int = Field(48, ge=1, strict=True, description="Distinct candidates to time, baselines included.")
    time: str | None = Field(None, description="Stop proposing after this time, e.g. 30m.")
    stop_below: float = Field(0.05, ge=0, lt=1, strict=True,
                              description="Stop when one more measurement improves the result with less than this "
                                          "probability; 0: never.")
    compiler: Compilers = Field(("tflite",), description="What makes the artifacts: tflite, tvm with kernels of our "
                                                         "own, or a list of both: one search over both.")
    sampler: Literal["adaptive", "tpe", "nsga2", "gp", "random", "quantune", "hawq", "ohq", "ase", "fedspine",
                     "mixdq"] = Field("adaptive", description="What proposes candidates.")
    prior: Literal["auto", "roofline", "xgboost", "both"] = Field(
        "auto", description="What is believed of latencies before the first measurement: a cost model where it is "
                            "better than the roofline, or one of them.")
    prune: bool = Field(False, strict=True, description="Also prune channels of the network.")
    prune_criterion: Literal["obs", "magnitude", "bn_scale", "taylor", "activation"] = Field(
        "obs", description="In which order channels are pruned.")
    seed: int = Field(0, ge=0, strict=True, description="Seed of the proposer.")
    threads: int = Field(1, ge=1, le=64, strict=True, description="Threads of the runtime on the board.")
    io: Literal["float", "int8"] = Field("float", description="Type of the artifact's inputs and outputs.")
    accuracy: str = Field("host", description="Where accuracy is evaluated: host, or board:N (N examples).")
    baselines: Literal["all", "needed"] = Field("all", description="Uniform recipes to measure first.")
    latency_stat: Literal["median", "p90", "p99", "mean"] = Field("median", description="What the budget limits.")
    confidence: float = Field(0.95, gt=0.5, lt=1, strict=True,
                              description="Probability with which the budget must be met.")

    @field_validator("budget")
    @classmethod
    def _budget(cls, value: str | None) -> str | None:
        if value is not None:
            parse_budget(value)
        return value

    @field_validator("size_budget")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None:
            parse_size_budget(value)
        return value

    @field_validator("objective")
    @classmethod
    def _objective(cls, value: str | None) -> str | None:
        if value is not None:
            parse_objectives(value)
        return value

    @field_validator("time")
    @classmethod
    def _time(cls, value: str | None) -> str | None:
        if value is not None:
            parse_seconds(value)
        return value

    @field_validator("accuracy")
    @classmethod
    def _accuracy(cls, value: str) -> str:
        parse_accuracy(value)
        return value

    @field_validator("require")
    @classmethod
    def _require(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            Requirement.parse(text)
        return value

    def needed_baselines(self) -> tuple[str, ...]:
        """Return the uniform recipes to measure: all, or float32 and those that a budget names."""
        if self.baselines == "all":
            return tuple(UNIFORM)
        named = {"float32"}
        if self.budget is not None:
            named.add(parse_budget(self.budget).needs or "float32")
        if self.size_budget is not None:
            named.add(parse_size_budget(self.size_budget).needs or "float32")
        return tuple(name for name in UNIFORM if name in named)


def parse_accuracy(text: str) -> int | None:
    """Read `host` (None) or `board:500` (500 examples). Raises UsageError."""
    where, _, count = text.partition(":")
    if text == "host":
        return None
    if where == "board" and count.isdigit() and int(count) > 0:
        return int(count)
    raise UsageError(f"expected host, or board:N with the number of examples, e.g. board:500, got {text!r}")


CHANGEABLE = ("budget", "size_budget", "max_drop", "require", "measurements", "time", "stop_below",
              "confidence", "device")
"""Keys that may differ when a study is resumed; another model, data or space is another study."""


EXPECTED = {
    "schema": f"{STUDY_SCHEMA}, the version of this format",
    "study": "a name (in quotes if it is a number) of at most 80 letters, digits, '.', '_' and '-' that begins with "
             "a letter or digit",
    "model": "demo:NAME, FILE.py:FACTORY, PACKAGE.MODULE:FACTORY, or the path of a .pt2, .onnx or .tflite file",
    "data": "FILE.py:FACTORY or PACKAGE.MODULE:FACTORY",
    "device": "a board's name or kind, or local, sim",
    "budget": 'a latency with its unit, e.g. "10ms" or "0.5x"',
    "size_budget": 'a size with its unit, e.g. "80KB" or "0.8x:int8"',
    "compiler": "tflite or tvm",
    "max_drop": "a number of points that is 0 or more (1 point is 0.01)",
    "objective": "objectives with commas between them, e.g. accuracy,latency",
    "require": "a list of constraints, e.g. ['recall_6 >= -0.01']",
    "measurements": "a whole number that is 1 or more",
    "time": 'a time with its unit, e.g. "30m"',
    "stop_below": "a probability from 0 (never stop early) to below 1, e.g. 0.05",
    "prune": "true or false",
    "seed": "a whole number that is 0 or more",
    "threads": "a whole number from 1 to 64",
    "accuracy": "host, or board:N with the number of examples, e.g. board:500",
    "confidence": "a probability above 0.5 and below 1, e.g. 0.95",
}
"""What may stand at a key that is no choice, for messages."""


def load_config(file: Path | None, overrides: Mapping[str, Any]) -> StudyConfig:
    """Merge a study file and the command line. Raises UsageError naming file, key and the nearest valid key.

    Args:
        file: a study.yaml, or None.
        overrides: values of the command line; None means not given.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values = _read(file)
    given = {key: value for key, value in overrides.items() if value is not None and value != ()}
    where = "--model" if "model" in given else f"{file}: model"
    values.update(given)
    if "data" not in values and not str(values.get("model", "demo:")).startswith("demo:"):
        raise UsageError(f"{where} {values['model']}: its data are missing; give --data FILE.py:FACTORY, or the key "
                         "data in study.yaml ('orchestrator init' writes a template)")
    try:
        found = StudyConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError("\n".join(dict.fromkeys(_problem(e, file, given) for e in error.errors()))) from error
    if "tvm" in found.compiler and (found.threads != 1 or found.io != "float"):
        whose, instead = ("its", "") if len(found.compiler) == 1 else ("tvm's", ", or --compiler tflite alone")
        raise UsageError(f"{_place('compiler', file, given)} {','.join(found.compiler)}: {whose} kernels have one "
                         "thread, and inputs and outputs are float; expected threads 1 and io float, got "
                         f"{found.threads} and {found.io}{instead}")
    if found.objective is None:
        return found
    try:
        check_objectives(str(found.objective), found.sampler, found.budget is not None or found.size_budget is not None)
    except UsageError as error:
        raise UsageError(f"{_place('objective', file, given)} {found.objective}: {error}") from error
    return found


def constraints_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Check constraints of the command line; return those that were given. Raises UsageError."""
    given = {key: value for key, value in asked.items() if value is not None and value != ()}
    load_config(None, given)
    return given


def differing(file: Path | None, stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Say which keys of a study file a resumed study does not take: it keeps what it was started with."""
    if file is None:
        return []
    found = StudyConfig.model_validate(_read(file) | {"study": stored["study"]}).model_dump(mode="json", by_alias=True)
    written = {key: value for key, value in found.items() if key in _read(file)}
    return [f"{file}: {key} is {value} there, but the study was started with {stored.get(key)}, which stays; "
            f"--{key.replace('_', '-')} changes it" if key in CHANGEABLE else
            f"{file}: {key} is {value} there, but the study was started with {stored.get(key)}, which cannot change"
            for key, value in written.items() if key not in given and key != "study" and stored.get(key) != value]


class _OneOfEach(yaml.SafeLoader):
    """Refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands there twice",
                                                        key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = yaml.load(file.read_text("utf-8"), _OneOfEach)  # noqa: S506 - a SafeLoader
    except FileNotFoundError as error:
        raise UsageError(f"--config {file}: no such file; 'orchestrator init' writes a study.yaml to start "
                         "from") from error
    except IsADirectoryError as error:
        raise UsageError(f"--config {file}: expected a file, this is a folder; give --config "
                         f"{file / DEFAULT_FILE}") from error
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}); see its owner and permissions") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: expected text in UTF-8, got other bytes (at byte {error.start}); is it a "
                         "study.yaml?") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file}{yaml_problem(error)}") from error
    if not isinstance(found, dict):
        got = {list: "a list", type(None): "an empty file"}.get(type(found), "a single value")
        raise UsageError(f"{file}: expected keys with their values, such as 'model: net.py:make', got {got}")
    if "schema" not in found:
        raise UsageError(f"{file}: the key 'schema' is missing; write 'schema: {STUDY_SCHEMA}'")
    return found


def _problem(error: Any, file: Path | None, given: Mapping[str, Any]) -> str:
    key = str(error["loc"][0]) if error["loc"] else "?"
    where = _place(key, file, given)
    if error["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in StudyConfig.model_fields.items()]
        near = get_close_matches(key, known, n=1)
        return f"{where}: no such key" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    return f"{where}: expected {expected(key)}, got {error['input']!r}"


def _place(key: str, file: Path | None, given: Mapping[str, Any]) -> str:
    """Say where a key stands."""
    return f"--{key.replace('_', '-')}" if key in given else f"{file}: {key}"


def expected(key: str) -> str:
    """Say what may stand at a key."""
    if key in EXPECTED:
        return EXPECTED[key]
    *choices, last = get_args(StudyConfig.model_fields[key].annotation)
    return f"{', '.join(choices)} or {last}" if choices else str(last)


def study_schema() -> dict[str, Any]:
    """Return the JSON schema of study.yaml, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "study.yaml",
            **StudyConfig.model_json_schema(by_alias=True)}
