"""Studies made up through the store's own methods, and one that a real search made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from orchestrator.store.records import (
    Evaluation,
    NewStudy,
    Split,
    StudyRecord,
    StudyStatus,
    TrialRole,
    TrialState,
    Where,
)
from orchestrator.store.store import Store
from profilers.measurement import Measurement, Sensors
from recipes.artifact import Artifact
from search.candidate import Candidate
from search.space import FLOAT32, Layer, LayerConfig, Scheme, SearchSpace

INT8 = LayerConfig(8, 8, Scheme.STATIC)
W8 = LayerConfig(8, 32, Scheme.DYNAMIC)


@dataclass(frozen=True, slots=True)
class Made:
    """A trial to make up."""

    latency_us: float
    metrics: Mapping[str, float]
    role: TrialRole = TrialRole.SEARCH
    label: str | None = None
    infeasible: str | None = None


def space(layers: int) -> SearchSpace:
    """Return a space whose third layers have no weights."""
    return SearchSpace("tflite", tuple(
        Layer(f"encoder.blocks.{i}.attention.projection", "CONV_2D", (FLOAT32, W8, INT8), 100 * (i % 3 != 2), 1000)
        for i in range(layers)))


def make_study(store: Store, name: str, trials: Sequence[Made], config: Mapping[str, JsonValue] | None = None,
               layers: int = 9, status: StudyStatus = StudyStatus.INTERRUPTED) -> StudyRecord:
    """Store a study whose controller is gone."""
    made = space(layers)
    settings: dict[str, JsonValue] = {"schema": 1, "study": name, "model": "demo:made", "device": "rpi4"}
    settings.update(config or {})
    study = store.create_study(NewStudy(name, 0, settings, "m" * 64, {made.compiler: made}, {"litert": "2.3.0"}))
    for number, trial in enumerate(trials):
        digits = [number // 3**i % 3 for i in range(layers)]
        candidate = Candidate.of(made, {layer.name: layer.choices[d] for layer, d in
                                        zip(made.layers, digits, strict=True)})
        row = store.add_trial(study.id, candidate, trial.role, trial.label)
        if trial.infeasible is not None:
            store.finish_trial(row.id, TrialState.INFEASIBLE, trial.infeasible)
            continue
        artifact = store.blobs.put_bytes(f"{name} {number}".encode() * 100)
        store.set_artifact(row.id, artifact)
        store.finish_trial(row.id, TrialState.COMPLETE, measurement=measured(artifact, trial.latency_us), evaluations=[
            Evaluation(Split.VALIDATION, metric, value, 1000, Where.HOST, "litert")
            for metric, value in trial.metrics.items()])
    store.release(study.id, status)
    return store.study(name)


def measured(artifact: Artifact, latency_us: float) -> Measurement:
    """Return a measurement whose median is `latency_us`."""
    samples = tuple(round(latency_us * 1000 * share) for share in (0.98, 0.99, 1.0, 1.01, 1.02))
    return Measurement(
        artifact_sha256=artifact.sha256, board="pi-a", kind="rpi4", boot_id="b", runtime="litert",
        runtime_version="2.3", agent_version="1", threads=1, wall_ns=samples, cpu_ns=samples, warmup_runs=3,
        load_s=0.25, before=Sensors(),
        after=Sensors(), peak_rss_bytes=None, simulated=False, session_s=1.5)


def baselines(accuracy: float = 0.9) -> list[Made]:
    """Return the uniform recipes as trials."""
    return [Made(100.0, {"top1": accuracy}, TrialRole.BASELINE, "float32"),
            Made(101.0, {"top1": accuracy}, TrialRole.BASELINE, "fp16"),
            Made(50.0, {"top1": accuracy - 0.01}, TrialRole.BASELINE, "int8")]


def run(*arguments: str | Path, cwd: Path, answer: str | None = None, environ: Mapping[str, str] | None = None,
        timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `orchestrator` as a user does, on a terminal of 80 columns."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ORCHESTRATOR_", "SSH_"))}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.app", *map(str, arguments)], cwd=cwd, input=answer or "", text=True,
        capture_output=True, timeout=timeout_s, check=False,
        env={**clean, "COLUMNS": "80", "HOME": str(cwd), **(environ or {})})
