"""Database rows to records and back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from pydantic import JsonValue, TypeAdapter

from orchestrator.store.models import EvaluationRow, MeasurementRow, Step, Study, Trial
from orchestrator.store.records import (
    Evaluation,
    Holder,
    MeasurementRecord,
    Purpose,
    Split,
    StepRecord,
    StudyRecord,
    StudyStatus,
    TrialRecord,
    TrialRole,
    TrialState,
    Where,
)
from orchestrator.store.samples import pack, unpack
from profilers.measurement import Conditions, KernelTime, Measurement, Sensors
from search.space import FOR_ALL, Calibration, Clipping, Layer, LayerConfig, PruneGroup, SearchSpace

SPACES_SCHEMA = 2
"""Of several spaces; what names no version is one space."""


def spaces_to_json(spaces: Mapping[str, SearchSpace]) -> dict[str, JsonValue]:
    """Write a study's spaces so that `spaces_from_json` gives equal ones; one is written as it always was."""
    written: list[JsonValue] = [space_to_json(space) for space in spaces.values()]
    if len(written) == 1:
        return space_to_json(next(iter(spaces.values())))
    return {"schema": SPACES_SCHEMA, "spaces": written}


def spaces_from_json(data: Mapping[str, JsonValue]) -> dict[str, SearchSpace]:
    """Read what `spaces_to_json` wrote. Raises ValueError."""
    schema = data.get("schema", 1)
    if schema not in (1, SPACES_SCHEMA):
        raise ValueError(f"space: this version reads the schemas 1 and {SPACES_SCHEMA}, got {schema!r}; a newer "
                         "orchestrator made this study")
    found = [data] if schema == 1 else [item for item in _listed(data["spaces"], "spaces") if isinstance(item, dict)]
    spaces = [space_from_json(item) for item in found]
    return {space.compiler: space for space in spaces}


def space_to_json(space: SearchSpace) -> dict[str, JsonValue]:
    """Write a space so that `space_from_json` gives an equal one."""
    layers: list[JsonValue] = [
        {"name": layer.name, "kind": layer.kind, "weights": layer.weights, "macs": layer.macs,
         "choices": [choice.label for choice in layer.choices]} for layer in space.layers]
    groups: list[JsonValue] = [
        {"name": group.name, "channels": group.channels, "widths": list(group.widths),
         "produced_by": list(group.produced_by), "read_by": list(group.read_by)} for group in space.groups]
    for_all: dict[str, Sequence[str]] = {"calibration": space.calibrations, "clipping": space.clippings}
    return {"compiler": space.compiler, "layers": layers, **({"groups": groups} if groups else {}),
            **{f"{name}s": list(values) for name, values in for_all.items() if values != (FOR_ALL[name],)}}


def space_from_json(data: Mapping[str, JsonValue]) -> SearchSpace:
    """Read what `space_to_json` wrote. Raises ValueError."""
    return SearchSpace(str(data["compiler"]), tuple(_layer(item) for item in _listed(data["layers"], "layers")),
                       tuple(_group(item) for item in _listed(data.get("groups", []), "groups")),
                       tuple(Calibration(str(name)) for name in _choices(data, "calibration")),
                       tuple(Clipping(str(name)) for name in _choices(data, "clipping")))


def _choices(data: Mapping[str, JsonValue], name: str) -> list[JsonValue]:
    return _listed(data.get(f"{name}s", [FOR_ALL[name]]), f"{name}s")


def _listed(found: JsonValue, what: str) -> list[JsonValue]:
    if not isinstance(found, list):
        raise ValueError(f"space: expected a list of {what}, got {type(found).__name__}")
    return found


def _layer(item: JsonValue) -> Layer:
    match item:
        case {"name": str(name), "kind": str(kind), "weights": int(weights), "macs": int(macs),
              "choices": list(labels)}:
            choices = tuple(LayerConfig.from_label(str(label)) for label in labels)
            return Layer(name, kind, choices, weights, macs)
    raise ValueError(f"space: expected a layer with name, kind, weights, macs and choices, got {item!r}")


def _group(item: JsonValue) -> PruneGroup:
    match item:
        case {"name": str(name), "channels": int(channels), "widths": list(widths), "produced_by": list(produced),
              "read_by": list(read)}:
            return PruneGroup(name, channels, tuple(int(str(width)) for width in widths), tuple(map(str, produced)),
                              tuple(map(str, read)))
    raise ValueError(f"space: expected a group with name, channels, widths, produced_by and read_by, got {item!r}")


def holder_of(row: Study) -> Holder | None:
    """Return who holds the study, dead or alive."""
    if (row.holder_token is None or row.heartbeat_at is None or row.holder_pid is None
            or row.holder_host is None or row.holder_boot is None):
        return None
    return Holder(row.holder_host, row.holder_boot, row.holder_pid, row.holder_started, row.holder_token,
                  row.heartbeat_at)


def set_holder(row: Study, holder: Holder | None) -> None:
    """Write or clear who holds the study."""
    row.holder_host = holder.host if holder else None
    row.holder_boot = holder.boot if holder else None
    row.holder_pid = holder.pid if holder else None
    row.holder_started = holder.started if holder else None
    row.holder_token = holder.token if holder else None
    row.heartbeat_at = holder.heartbeat_at if holder else None


def study_record(row: Study, held: bool) -> StudyRecord:
    """Make a record; `held` says whether a live controller holds the study."""
    status = StudyStatus(row.status)
    if status is StudyStatus.RUNNING and not held:
        status = StudyStatus.INTERRUPTED
    return StudyRecord(
        id=row.id, name=row.name, created_at=row.created_at, status=status, seed=row.seed, config=row.config,
        config_digest=row.config_digest, model_digest=row.model_digest, spaces=spaces_from_json(row.space),
        space_digest=row.space_digest, tool_versions=_texts(row.tool_versions), document=row.document,
        holder=holder_of(row))


def trial_record(row: Trial) -> TrialRecord:
    return TrialRecord(
        id=row.id, study_id=row.study_id, number=row.number, candidate_id=row.candidate_id,
        candidate=row.candidate, role=TrialRole(row.role), label=row.label, state=TrialState(row.state),
        reason=row.reason, artifact_sha256=row.artifact_sha256, size_bytes=row.size_bytes,
        created_at=row.created_at, finished_at=row.finished_at, widened=tuple(row.widened))


def evaluation_row(trial_id: uuid.UUID, evaluation: Evaluation) -> EvaluationRow:
    return EvaluationRow(
        id=uuid.uuid4(), trial_id=trial_id, split=evaluation.split.value, metric=evaluation.metric,
        value=evaluation.value, examples=evaluation.examples, where=evaluation.where.value,
        runtime=evaluation.runtime)


def evaluation_record(row: EvaluationRow) -> Evaluation:
    return Evaluation(split=Split(row.split), metric=row.metric, value=row.value, examples=row.examples,
                      where=Where(row.where), runtime=row.runtime)


def measurement_row(trial_id: uuid.UUID, measurement: Measurement, purpose: Purpose, session: int,
                    finished_at: datetime) -> MeasurementRow:
    return MeasurementRow(
        id=uuid.uuid4(), trial_id=trial_id, purpose=purpose.value, session=session, finished_at=finished_at,
        artifact_sha256=measurement.artifact_sha256, board=measurement.board, kind=measurement.kind,
        boot_id=measurement.boot_id, runtime=measurement.runtime, runtime_version=measurement.runtime_version,
        agent_version=measurement.agent_version, threads=measurement.threads,
        wall_ns=pack(measurement.wall_ns), cpu_ns=pack(measurement.cpu_ns),
        warmup_runs=measurement.warmup_runs, load_s=measurement.load_s, before=asdict(measurement.before),
        after=asdict(measurement.after), peak_rss_bytes=measurement.peak_rss_bytes,
        simulated=measurement.simulated, session_s=measurement.session_s,
        kernels=[[call.kernel, call.layer, call.ns] for call in measurement.kernels],
        conditions=asdict(measurement.conditions), scale=measurement.scale)


def measurement_record(row: MeasurementRow) -> MeasurementRecord:
    """Read a measurement back. Raises ValueError for damaged samples."""
    measurement = Measurement(
        artifact_sha256=row.artifact_sha256, board=row.board, kind=row.kind, boot_id=row.boot_id,
        runtime=row.runtime, runtime_version=row.runtime_version, agent_version=row.agent_version,
        threads=row.threads, wall_ns=unpack(row.wall_ns), cpu_ns=unpack(row.cpu_ns),
        warmup_runs=row.warmup_runs, load_s=row.load_s, before=_sensors(row.before),
        after=_sensors(row.after), peak_rss_bytes=row.peak_rss_bytes, simulated=row.simulated,
        session_s=row.session_s, kernels=tuple(_kernel(call) for call in row.kernels),
        conditions=_conditions(row.conditions), scale=row.scale)
    return MeasurementRecord(row.id, row.trial_id, Purpose(row.purpose), row.session, measurement,
                             row.finished_at)


def _kernel(call: JsonValue) -> KernelTime:
    if not isinstance(call, list) or len(call) != 3:
        raise ValueError(f"kernels: expected [kernel, layer, nanoseconds], got {call!r}")
    return KernelTime(str(call[0]), str(call[1]), int(_number(call[2]) or 0))


_CONDITIONS = TypeAdapter(Conditions)


def _conditions(data: Mapping[str, JsonValue]) -> Conditions:
    return _CONDITIONS.validate_python(data)


def step_record(row: Step) -> StepRecord:
    return StepRecord(row.key, row.name, _texts(row.outputs), _texts(row.tool_versions))


def _sensors(data: Mapping[str, JsonValue]) -> Sensors:
    return Sensors(
        temperature_c=_number(data.get("temperature_c")), frequency_hz=_number(data.get("frequency_hz")),
        governor=_text(data.get("governor")), throttled=_text(data.get("throttled")),
        load_1m=_number(data.get("load_1m")))


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None


def _texts(data: Mapping[str, JsonValue]) -> dict[str, str]:
    return {name: str(value) for name, value in data.items()}
