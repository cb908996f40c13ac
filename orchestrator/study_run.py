"""The main job, whole: prepare, measure baselines, search, confirm, report."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from device_farm.errors import FarmError
from device_farm.inventory import BoardEntry, Inventory
from orchestrator import wiring
from orchestrator.bench import Bench
from orchestrator.config import CHANGEABLE, StudyConfig
from orchestrator.confirm import Sessions, confirm, is_clear, probability_met
from orchestrator.errors import NothingRan, UsageError
from orchestrator.executor import HostPool
from orchestrator.loop import Found, Loop
from orchestrator.progress import Progress
from orchestrator.store.claims import HEARTBEAT_S
from orchestrator.store.errors import StudyInUse
from orchestrator.store.journal import OptunaJournal
from orchestrator.store.records import (
    Evaluation,
    Split,
    StepRecord,
    StudyRecord,
    StudyStatus,
    TrialHistory,
    TrialRecord,
    TrialRole,
    Where,
    digest_of,
)
from orchestrator.store.store import Store
from orchestrator.store.study_rows import NewStudy
from orchestrator.units import Budget, parse_budget, parse_seconds, parse_size_budget, show_bytes, show_seconds
from profilers.accuracy import EvaluationInputs, build_and_evaluate, evaluate, run_reference
from profilers.golden import Array
from profilers.measurement import MeasureSettings
from recipes.artifact import Artifact
from recipes.compilers.tflite.build import BuildInputs
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import LayerMap, map_layers
from recipes.errors import ConversionMismatch
from recipes.models.prepare import Prepared, prepare
from recipes.models.source import parse_data, parse_model
from search.candidate import Candidate
from search.goal import Evidence, Goal, Requirement, pareto_front, resolve_minimum
from search.proposers.base import Proposer
from search.proposers.ordinal import OrdinalProposer, reduced_choices
from search.recipes import UNIFORM, Named, seeds, uniform, weightless_seed
from search.space import LayerConfig

log = logging.getLogger(__name__)
FINALISTS = 3
SETTLED = 1e-4
"""Largest difference, as a share of the output's range, between PyTorch and the converted float32 model."""
POINT = 0.01


@dataclass(slots=True)
class Outcome:
    """Everything that a report needs."""

    config: StudyConfig
    study: StudyRecord
    board: BoardEntry
    prepared: Prepared
    layers: LayerMap
    loop: Loop
    goal: Goal
    budget: Budget | None
    winner: Found | None
    goal_met: bool
    probability: float | None
    sessions: Sessions
    absent: dict[str, str]
    test: dict[str, dict[str, float]]
    """Candidate id -> metrics on the test split."""
    runtime_version: str
    simulated: bool
    wall_s: float
    interrupted: bool


class StudyRun:
    """One controller's work on one study.

    Args:
        store: an open store.
        inventory: the boards.
        config: the study.
        base: the folder from which relative paths of the configuration count.
        progress: takes events.
        resume: continue a study that exists.
    """

    def __init__(self, store: Store, inventory: Inventory, config: StudyConfig, base: Path, progress: Progress,
                 resume: bool = False) -> None:
        self._store, self._config, self._base, self._progress = store, config, base, progress
        self._resume = resume
        self._board = inventory.find(config.device)
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._limit_s = parse_seconds(config.time, "--time") if config.time else None

    def run(self) -> Outcome:
        """Do the whole job.

        Raises:
            UsageError, recipes.errors.ModelError, DataError: what the user gave is wrong.
            NothingRan: no candidate could be built and measured.
            FarmError: the board is lost; the study can be resumed.
            KeyboardInterrupt: a second Ctrl-C.
        """
        config = self._config
        model, data = parse_model(config.model, self._base), parse_data(config.data, self._base)
        if not self._resume:
            self._refuse_existing()
        agent = wiring.agent_file(self._store.folder)
        log_file = self._store.folder / "logs" / f"workers-{os.getpid()}.log"
        pool = HostPool(max(1, min(2, os.cpu_count() or 1)), log_file)
        bench = Bench(config.device, wiring.connector(self._board, self._store.folder, agent),
                      f"study {config.study} on {socket.gethostname()} (pid {os.getpid()})",
                      MeasureSettings(threads=config.threads))
        try:
            with self._graceful(), bench:
                self._progress.phase(f"importing {config.model}")
                prepared: Prepared = self._result(pool.submit(prepare, model, data, self._store.blobs.root))
                runner = bench.runner
                target = wiring.target_of(runner.facts, runner.runtime_name, runner.runtime_version)
                place = wiring.host_runtime_place(runner.runtime_name, self._store.folder, runner.runtime_version)
                builder = BuildInputs(self._store.blobs.root, prepared.float_model, prepared.statistics,
                                      prepared.ports, target, config.io)
                evaluator = EvaluationInputs(self._store.blobs.root, prepared.splits, data,
                                             tuple(prepared.reference_metrics), place, agent)
                layers = map_layers(read_graph(self._store.blobs.path(prepared.float_model)), target)
                self._check_conversion(pool, prepared, evaluator)
                study = self._open_study(prepared, layers)
                exclusive = wiring.same_machine(runner.facts) and self._board.shares_host == "forbidden"
                loop = Loop(self._store, study, bench, pool, builder, evaluator, config.latency_stat, exclusive,
                            2, self._progress, self._enough)
                return self._search(loop, prepared, layers, bench)
        finally:
            pool.shutdown()

    # Parts of the job, in order

    def _refuse_existing(self) -> None:
        names = [study.name for study in self._store.studies()]
        if self._config.study in names:
            raise UsageError(f"--study {self._config.study!r} exists in {self._store.folder}; continue it with "
                             "--resume, or choose another --study NAME")

    def _check_conversion(self, pool: HostPool, prepared: Prepared, evaluator: EvaluationInputs) -> None:
        """Compare the converted float32 model with PyTorch on the calibration inputs. Raises ConversionMismatch."""
        self._progress.phase("comparing the converted model with PyTorch")
        artifact = Artifact.of(self._store.blobs.path(prepared.float_model))
        outputs: tuple[Array, ...] = self._result(
            pool.submit(run_reference, evaluator, artifact, prepared.ports, "calibration"))
        with np.load(self._store.blobs.path(prepared.reference_outputs)) as expected:
            for index, got in enumerate(outputs):
                wanted = expected[f"o{index}"]
                span = float(wanted.max() - wanted.min()) or 1.0
                worst = float(np.abs(got - wanted).max()) / span
                if not worst <= SETTLED:
                    raise ConversionMismatch(
                        f"{self._config.model}: the converted float32 model differs from PyTorch in output {index} "
                        f"by {worst:.2g} of its range on the calibration inputs; at most {SETTLED:g} is allowed")

    def _open_study(self, prepared: Prepared, layers: LayerMap) -> StudyRecord:
        config = self._config.model_dump(mode="json", by_alias=True)
        if self._resume:
            study = self._store.study(self._config.study)
            if study.model_digest != prepared.model_digest:
                raise UsageError(f"study {study.name!r} was made with another model (digest {study.model_digest[:12]}, "
                                 f"now {prepared.model_digest[:12]}); start a new --study")
            if study.space != layers.space:
                raise UsageError(f"study {study.name!r} has another search space: the board's runtime or the compiler "
                                 "has changed; start a new --study")
            changed = [k for k, v in config.items() if study.config.get(k) != v and k not in CHANGEABLE]
            if changed:
                raise UsageError(f"study {study.name!r} was started with another {', '.join(changed)}; on resume only "
                                 f"{', '.join(CHANGEABLE)} may change")
            study = self._store.claim(study.id)
            self._store.set_config(study.id, config)
        else:
            study = self._store.create_study(NewStudy(
                name=self._config.study, seed=self._config.seed, config=config, model_digest=prepared.model_digest,
                space=layers.space, tool_versions=dict(prepared.versions)))
        outputs = {"float_model": prepared.float_model, "statistics": prepared.statistics,
                   "reference_outputs": prepared.reference_outputs,
                   **{f"split:{name}": blob for name, blob in prepared.splits.items()}}
        key = digest_of({"model": prepared.model_digest, "outputs": dict(outputs), "tools": dict(prepared.versions)})
        self._store.put_step(study.id, StepRecord(key, "prepare", outputs, dict(prepared.versions)))
        return study

    def _search(self, loop: Loop, prepared: Prepared, layers: LayerMap, bench: Bench) -> Outcome:
        config, study = self._config, loop.study
        objective = next(iter(prepared.reference_metrics))
        heartbeat = _Heartbeat(self._store, study)
        status = StudyStatus.FAILED
        try:
            with heartbeat:
                def candidate_of(trial: TrialRecord) -> Candidate:
                    return Candidate.from_json(layers.space, trial.candidate)

                histories: tuple[TrialHistory, ...] = self._store.histories(study.id)
                loop.resume(histories, candidate_of)
                self._progress.plan(config.measurements)
                absent = self._baselines(loop, layers, bench)
                goal = self._goal(loop, objective)
                told = self._seeds_and_proposals(loop, layers, goal)
                log.info("%d candidates were told to the proposer", told)
                outcome = self._conclude(loop, prepared, layers, bench, goal, absent)
                self._project(loop, goal)
            status = StudyStatus.INTERRUPTED if outcome.interrupted else StudyStatus.FINISHED
            return outcome
        except (KeyboardInterrupt, UsageError):
            status = StudyStatus.INTERRUPTED
            raise
        finally:
            with contextlib.suppress(StudyInUse):
                self._store.release(study.id, status)

    def _baselines(self, loop: Loop, layers: LayerMap, bench: Bench) -> dict[str, str]:
        """Measure the uniform recipes; return why others are absent."""
        config = self._config
        needed = config.needed_baselines()
        absent = {name: "not asked for (--baselines needed)" for name in UNIFORM if name not in needed}
        named: list[Named] = []
        for name in needed:
            made = uniform(layers.space, name, config.threads)
            if isinstance(made, str):
                absent[name] = made
            else:
                named.append(made)
        self._progress.phase("measuring the baselines")
        reference = next((n for n in named if n.name == "float32"), None)
        if reference is None:
            raise UsageError("the float32 baseline cannot be built")

        def tell(found: Found) -> None:
            if found.name == "float32" and found.report is not None and found.evidence is not None:
                bench.set_reference(found.job())

        loop.run(iter([(n, TrialRole.BASELINE) for n in named]), max(config.measurements, len(named)), tell)
        float32 = loop.found.get(reference.candidate.id)
        if float32 is None or float32.evidence is None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            raise NothingRan("float32 does not run on this board: "
                             f"{float32.infeasible if float32 else 'it was not measured'}")
        for baseline in named:
            entry = loop.found.get(baseline.candidate.id)
            if entry is None or entry.evidence is None:
                absent[baseline.name] = (entry.infeasible if entry else None) or "not measured: interrupted"
        return absent

    def _goal(self, loop: Loop, objective: str) -> Goal:
        """Resolve relative budgets and drops with the measured baselines. Raises UsageError."""
        config = self._config
        by_name = {f.name: f.evidence for f in loop.found.values()
                   if f.role is TrialRole.BASELINE and f.evidence is not None}

        def limit(budget: Budget | None, pick: str) -> float | None:
            if budget is None:
                return None
            if budget.needs is None:
                return budget.absolute
            evidence = by_name.get(budget.needs)
            if evidence is None:
                raise UsageError(f"budget {budget.text}: the baseline {budget.needs} could not be measured here")
            return budget.resolve(float(getattr(evidence, pick)))

        drop = None if config.max_drop is None else config.max_drop * POINT
        try:
            minimum = resolve_minimum(objective, drop, [Requirement.parse(t) for t in config.require],
                                      by_name["float32"].metrics)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return Goal(objective, limit(parse_budget(config.budget) if config.budget else None, "latency_s"),
                    limit(parse_size_budget(config.size_budget) if config.size_budget else None, "size_bytes"), minimum)

    def _seeds_and_proposals(self, loop: Loop, layers: LayerMap, goal: Goal) -> int:
        config = self._config
        told = 0

        def ignore(found: Found) -> None:
            log.debug("seed %s is finished", found.name)

        self._progress.phase("measuring the per-operator-kind seeds")
        planned = [n for n in seeds(layers.space, config.threads)
                   if n.candidate.id not in loop.found or n.candidate.id in loop.orphans]
        room = max(0, (config.measurements - loop.measured + 1) // 2)
        loop.run(iter([(n, TrialRole.SEED) for n in planned[:room]]), config.measurements, ignore)
        proposer = self._proposer(loop, layers, goal)
        for found in loop.found.values():
            if found.evidence is not None or found.infeasible is not None:
                proposer.tell(found.candidate, found.evidence)

        def tell(found: Found) -> None:
            nonlocal told
            told += 1
            proposer.tell(found.candidate, found.evidence)

        def proposals() -> Iterator[tuple[Named, TrialRole]]:
            for left in loop.unfinished():
                yield left, TrialRole.SEARCH
            while (candidate := proposer.propose()) is not None:
                yield Named("", candidate), TrialRole.SEARCH

        self._progress.phase(f"searching ({config.sampler})")
        loop.run(proposals(), config.measurements, tell)
        return told

    def _proposer(self, loop: Loop, layers: LayerMap, goal: Goal) -> Proposer:
        """Make the proposer on the choices that the measured recipes do not rule out."""
        known = {f.name: f.evidence for f in loop.found.values() if f.name and f.evidence is not None}
        weighted: dict[LayerConfig, Evidence] = {}
        for name, config in UNIFORM.items():
            evidence = known.get(f"{name}:weighted") or known.get(name)
            if evidence is not None:
                weighted[config] = evidence
        kinds = {layer.kind for layer in layers.space.layers if not layer.weights}
        weightless = {kind: known[name] for kind in kinds if (name := weightless_seed(kind)) in known}
        choices = reduced_choices(layers.space, weighted, weightless, goal.objective)
        return OrdinalProposer(layers.space, choices, goal, self._config.sampler, self._config.seed,
                               self._config.threads)

    def _conclude(self, loop: Loop, prepared: Prepared, layers: LayerMap, bench: Bench, goal: Goal,
                  absent: dict[str, str]) -> Outcome:
        """Confirm finalists in turn until one meets the goal; evaluate on the test split."""
        config = self._config
        budget = parse_budget(config.budget) if config.budget else None
        known = {i: f for i, f in loop.found.items() if f.evidence is not None}
        sessions: Sessions = {}
        winner, probability, met = None, None, False
        nearest: tuple[Found, float | None] | None = None
        baselines = {f.name: f for f in known.values() if f.role is TrialRole.BASELINE}
        fastest = min(baselines.values(), key=lambda f: _latency(f))
        anchors = {f.candidate.id: f for f in (baselines["float32"], fastest,
                                               baselines.get((budget.needs if budget else None) or "float32"))
                   if f is not None}
        remaining = dict(known)
        self._progress.phase("confirming the result")
        for _ in range(FINALISTS):
            best = goal.best((i, f.evidence) for i, f in remaining.items() if f.evidence is not None)
            if best is None:
                break
            finalist = remaining.pop(best)
            feasible = finalist.evidence is not None and goal.feasible(finalist.evidence)
            if nearest is not None and not feasible:
                break
            for entry in (finalist, *anchors.values()):
                self._rebuild(loop, entry)
            base = baselines.get(budget.needs) if budget and budget.needs else None

            def chance(found: Sessions, candidate: str = best, base: Found | None = base) -> float:
                if budget is None:
                    return float("nan")
                return probability_met(found, candidate, config.latency_stat, budget.absolute,
                                       base.candidate.id if base else None, budget.factor)

            confirm(self._store, bench, {best: finalist, **anchors}, sessions,
                    lambda s: is_clear(chance(s), config.confidence), self._stop.is_set)
            if not sessions.get(best):
                continue
            probability = chance(sessions) if budget is not None else None
            if nearest is None:
                nearest = (finalist, probability)
            if feasible and (probability is None or probability >= config.confidence):
                winner, met = finalist, True
                break
            if self._stop.is_set() or not feasible:
                break
        if winner is None and nearest is not None:
            winner, probability = nearest
        test = self._test(loop, [f for f in (winner, *baselines.values()) if f is not None])
        return Outcome(config, loop.study, self._board, prepared, layers, loop, goal, budget, winner, met, probability,
                       sessions, absent, test, bench.runner.runtime_version, _simulated(known),
                       time.monotonic() - self._started, self._stop.is_set())

    def _rebuild(self, loop: Loop, entry: Found) -> None:
        """Build again what an earlier controller built (after --resume): same bytes, from the cache of steps."""
        if entry.report is None:
            entry.report = self._result(loop.pool.submit(build_and_evaluate, loop.builder, loop.evaluator,
                                                         entry.candidate))

    def _test(self, loop: Loop, entries: list[Found]) -> dict[str, dict[str, float]]:
        """Evaluate winner and baselines on the test split, which the search never saw."""
        self._progress.phase("evaluating on the test split")
        waiting: dict[str, Future[tuple[dict[str, float], int]]] = {}
        for entry in entries:
            self._rebuild(loop, entry)
            if entry.report is not None and entry.candidate.id not in waiting:
                built = entry.report.built
                waiting[entry.candidate.id] = loop.pool.submit(
                    evaluate, loop.evaluator, built.artifact, built.ports, "test")
        found: dict[str, dict[str, float]] = {}
        for entry in entries:
            if entry.candidate.id not in found:
                metrics, examples = self._result(waiting[entry.candidate.id])
                found[entry.candidate.id] = metrics
                self._store.add_evaluations(entry.trial.id, [
                    Evaluation(Split.TEST, name, value, examples, Where.HOST, loop.evaluator.runtime.name)
                    for name, value in metrics.items()])
        return found

    def _project(self, loop: Loop, goal: Goal) -> None:
        """Bring the Optuna journal up to date, so that Optuna's tools see this study."""
        by_trial = {f.trial.id: f for f in loop.found.values()}

        def constraints(history: TrialHistory) -> dict[str, float]:
            found = by_trial.get(history.trial.id)
            return goal.constraints(found.evidence) if found and found.evidence else {}

        try:
            OptunaJournal(self._store, loop.study, goal.objective, constraints).catch_up()
        except OSError as error:
            self._progress.note(f"the Optuna journal could not be written: {error}")

    # Small things

    def _enough(self) -> bool:
        late = self._limit_s is not None and time.monotonic() - self._started > self._limit_s
        return late or self._stop.is_set()

    def _result(self, future: Future[Any]) -> Any:  # noqa: ANN401 - whatever the task returns
        while True:
            try:
                return future.result(timeout=0.5)
            except TimeoutError:
                if future.done():
                    raise

    @contextlib.contextmanager
    def _graceful(self) -> Iterator[None]:
        """First Ctrl-C: finish what is being measured, then stop. Second: at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handler(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()
            self._progress.note("stopping after the measurement under way; Ctrl-C again stops at once")

        previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, old in previous.items():
                signal.signal(number, old)


class _Heartbeat:
    """Renews our claim on the study from a thread of its own."""

    def __init__(self, store: Store, study: StudyRecord) -> None:
        self._store, self._study = store, study
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join(5)

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_S):
            try:
                self._store.heartbeat(self._study.id)
            except StudyInUse:
                log.exception("another controller has taken the study")
                return


def _latency(found: Found) -> float:
    if found.evidence is None:
        raise ValueError(f"{found.name} has no latency")
    return found.evidence.latency_s


def _simulated(known: dict[str, Found]) -> bool:
    return any(f.measurement is not None and f.measurement.simulated for f in known.values())


def describe_goal(goal: Goal, config: StudyConfig) -> str:
    """Say in one line what is looked for."""
    parts = []
    if goal.latency_budget_s is not None:
        parts.append(f"{config.latency_stat} latency <= {show_seconds(goal.latency_budget_s)}")
    if goal.size_budget_bytes is not None:
        parts.append(f"size <= {show_bytes(goal.size_budget_bytes)}")
    parts += [f"{metric} >= {least:.4f}" for metric, least in (goal.minimum or {}).items()]
    aim = f"best {goal.objective}" if goal.maximises_quality else "least latency"
    return f"{aim}" + (f" with {', '.join(parts)}" if parts else "")


def front_of(outcome: Outcome) -> list[Found]:
    """Return the candidates that no other beats in latency and objective, fastest first."""
    known = {i: f.evidence for i, f in outcome.loop.found.items() if f.evidence is not None}
    return [outcome.loop.found[i] for i in pareto_front(known.items(), outcome.goal.objective)]


__all__ = ["FarmError", "Outcome", "StudyRun", "describe_goal", "front_of"]
