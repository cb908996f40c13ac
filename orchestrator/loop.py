"""The loop: ask, build, measure, store, tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from orchestrator.bench import Bench, Job, Suspicion
from orchestrator.crew import Crew, waited
from orchestrator.executor import HostPool
from orchestrator.progress import Progress
from orchestrator.provenance import keep_origin
from orchestrator.store.records import (
    Evaluation,
    Purpose,
    Split,
    StepRecord,
    StudyRecord,
    TrialHistory,
    TrialRecord,
    TrialRole,
    TrialState,
    Where,
    counting,
    digest_of,
)
from orchestrator.store.store import Store
from orchestrator.toolchain import Toolchain
from profilers.accuracy import EvaluationInputs, HostReport, Score, build_and_evaluate, encode_split, score
from profilers.golden import tolerance
from profilers.measurement import Measurement
from profilers.statistics import LatencySummary, summarise
from recipes.artifact import Artifact
from search.candidate import Candidate
from search.errors import InfeasibleCandidate
from search.goal import Evidence
from search.recipes import Named

log = logging.getLogger(__name__)
APART_S = 1.0
"""Between two readings of one candidate: what slows a machine for a moment must not slow all of them."""


@dataclass(slots=True)
class Found:
    """A candidate, and what is known of it."""

    name: str | None
    """Of a baseline or a seed."""
    candidate: Candidate
    role: TrialRole
    widened: tuple[str, ...]
    trial: TrialRecord
    runtime: str | None = None
    """What executes its artifact; None: the board's only one."""
    title: str = ""
    """What people are told it is; empty: its name or id."""
    report: HostReport | None = None
    measurement: Measurement | None = None
    latency: LatencySummary | None = None
    evidence: Evidence | None = None
    infeasible: str | None = None
    readings: list[Measurement] = field(default_factory=list)
    """In the search; `measurement` is the one that counts."""

    def job(self) -> Job:
        """Return what a bench needs. Raises ValueError before the candidate is built."""
        if self.report is None:
            raise ValueError(f"candidate {self.candidate.id} is not built")
        configs = list(self.candidate.config_of.values())
        return Job(self.report.built.artifact, self.report.golden_inputs, self.report.golden_outputs,
                   tolerance(configs), self.runtime)


class Stage(Enum):
    """What is done with a candidate now."""

    BUILD = "build"
    """Built, and evaluated on the host."""
    READ = "read"
    """Timed on a board."""
    SCORE = "score"
    """Evaluated on a board."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A candidate that is not finished."""

    entry: Found
    stage: Stage


@dataclass(slots=True)
class Loop:
    """Runs candidates on whichever board is free; everything it learns is in the store before anyone is told."""

    store: Store
    study: StudyRecord
    crew: Crew
    pool: HostPool
    toolchains: Mapping[str, Toolchain]
    """By the compiler's name: a candidate says whose it is."""
    statistic: str
    exclusive: bool
    """The board is this machine: it never measures while host work runs."""
    ahead: int
    """Candidates for each board, in work or prepared: what the host prepares before a board asks."""
    progress: Progress
    stop: Callable[[], bool]
    """True when the user or the clock says enough."""
    found: dict[str, Found] = field(default_factory=dict)
    """Candidate id -> what is known, in order of trial numbers."""
    by_artifact: dict[str, Found] = field(default_factory=dict)
    orphans: dict[str, Found] = field(default_factory=dict)
    """Candidate id -> a trial that an earlier controller started and never ended."""
    golden: set[Path] = field(default_factory=set)
    """Files of golden inputs that the store knows."""
    again: Callable[[Found, Sequence[float]], bool] = lambda entry, latencies_s: False
    """Whether a candidate is read once more, after these latencies."""

    @property
    def measured(self) -> int:
        """Distinct candidates timed on a board."""
        return sum(1 for f in self.found.values() if f.measurement is not None)

    def resume(self, histories: Iterable[TrialHistory], candidate_of: Callable[[TrialRecord], Candidate]) -> None:
        """Take up what an earlier controller stored; a trial that it did not finish is run again."""
        for history in histories:
            trial = history.trial
            entry = self._entry(trial.label, candidate_of(trial), trial)
            self.found[entry.candidate.id] = entry
            if trial.state is TrialState.INFEASIBLE:
                entry.infeasible = trial.reason
            elif trial.state is TrialState.COMPLETE:
                metrics = {e.metric: e.value for e in history.evaluations if e.split is Split.VALIDATION}
                entry.readings = list(history.readings)
                self._learn(entry, metrics, trial.size_bytes or 0)
            else:
                self.orphans[entry.candidate.id] = entry

    def unfinished(self) -> list[Named]:
        """Return the candidates whose trials an earlier controller started and never ended."""
        return [Named(f.name or "", f.candidate, f.widened) for f in self.orphans.values()]

    def run(self, candidates: Iterator[tuple[Named, TrialRole]], allowance: int,
            tell: Callable[[Found], None]) -> None:
        """Build, evaluate, measure and store candidates until there are no more, or `stop` says so.

        Args:
            candidates: asked lazily, `ahead` of the boards.
            allowance: distinct candidates that may be timed in the whole study.
            tell: called with every finished candidate, after it is stored.

        Raises:
            FarmError: no board is left; what was finished is in the store.
        """
        flights: dict[Future[Any], Flight] = {}
        exhausted = False
        while True:
            while (not exhausted and len(flights) < self.ahead * max(1, self.crew.size)
                   and self.measured + len(flights) < allowance and not self._resting(flights)):
                picked = None if self.stop() else next(candidates, None)
                if picked is None:
                    exhausted = True
                    break
                entry = self._start(*picked)
                if entry is not None:
                    flights[self.build(entry)] = Flight(entry, Stage.BUILD)
            if not flights:
                return
            done = self._wait(flights)
            for future in sorted(done, key=lambda f: flights[f].entry.trial.number):
                flight = flights.pop(future)
                if flight.stage is Stage.BUILD and self.stop() and self.measured:
                    continue
                again = self._advance(flight, future, tell)
                if again is not None:
                    flights[again[0]] = again[1]
            if self.stop():
                exhausted = True

    def build(self, entry: Found) -> Future[HostReport]:
        """Have a candidate built and evaluated by its own compiler's tools."""
        own = self.toolchains[entry.candidate.compiler]
        return self.pool.submit(build_and_evaluate, own.builder, own.evaluator, entry.candidate)

    def _resting(self, flights: Mapping[Future[Any], Flight]) -> bool:
        """Tell whether the host must rest, because a board that is this machine measures."""
        return self.exclusive and any(flight.stage is not Stage.BUILD for flight in flights.values())

    def _wait(self, flights: dict[Future[Any], Flight]) -> set[Future[Any]]:
        """Wait for one result, or for all builds where the board is this machine."""
        while True:
            done, _ = wait(flights, timeout=0.2, return_when=FIRST_COMPLETED)
            building = {future for future, flight in flights.items() if flight.stage is Stage.BUILD}
            if done and not (self.exclusive and building - done):
                return done
            if self.stop() and not self.exclusive:
                return done

    def _start(self, named: Named, role: TrialRole) -> Found | None:
        """Open a trial; None when the candidate is known already."""
        if named.candidate.id in self.orphans:
            return self.orphans.pop(named.candidate.id)
        if named.candidate.id in self.found:
            return None
        trial = self.store.add_trial(self.study.id, named.candidate, role, named.name or None, named.widened)
        entry = self._entry(named.name or None, named.candidate, trial)
        self.found[named.candidate.id] = entry
        return entry

    def _entry(self, name: str | None, candidate: Candidate, trial: TrialRecord) -> Found:
        title = name or (f"{candidate.compiler}:{candidate.id}" if len(self.toolchains) > 1 else candidate.id)
        return Found(name, candidate, trial.role, trial.widened, trial, self.toolchains[candidate.compiler].runtime,
                     title)

    def _advance(self, flight: Flight, future: Future[Any],
                 tell: Callable[[Found], None]) -> tuple[Future[Any], Flight] | None:
        """Take what came of a candidate's stage and begin its next one; None when the candidate is finished."""
        entry = flight.entry
        try:
            if flight.stage is Stage.BUILD:
                self._built(entry, future.result())
                return self._reading(entry)
            if flight.stage is Stage.READ:
                entry.readings.append(future.result())
                if self._more(entry):
                    return self._reading(entry)
                if self._evaluator(entry).board_examples is not None:
                    return self._scoring(entry, "validation"), Flight(entry, Stage.SCORE)
            found: Score = future.result() if flight.stage is Stage.SCORE else self._report(entry).score
        except InfeasibleCandidate as error:
            if flight.stage is Stage.READ and entry.readings and entry.role is TrialRole.BASELINE:
                raise self.crew.ill(str(entry.name), error) from error
            entry.infeasible = error.reason
            self.store.finish_trial(entry.trial.id, TrialState.INFEASIBLE, error.reason)
        else:
            self._keep(entry, found)
        self.progress.trial(entry)
        tell(entry)
        return None

    def _built(self, entry: Found, report: HostReport) -> None:
        """Store an artifact. Raises InfeasibleCandidate for one that another trial has."""
        entry.report, built = report, report.built
        twin = self.by_artifact.setdefault(built.artifact.sha256, entry)
        if twin is not entry:
            raise InfeasibleCandidate(f"its artifact is byte for byte that of trial {twin.trial.number}")
        self.store.set_artifact(entry.trial.id, built.artifact)
        keep_origin(self.store, self.study, built)
        self._keep_golden(report)

    def _reading(self, entry: Found) -> tuple[Future[Any], Flight]:
        real = bool(entry.readings) and not entry.readings[-1].simulated
        future = self.crew.measured(entry.job(), delay_s=APART_S if real else 0.0)
        return future, Flight(entry, Stage.READ)

    def _more(self, entry: Found) -> bool:
        """Tell whether a candidate is read once more."""
        if self.again(entry, [self._seconds(reading) for reading in entry.readings]):
            return True
        if len(entry.readings) > 1:
            log.info("trial %d: read %s us", entry.trial.number,
                     ", ".join(f"{1e6 * self._seconds(reading):.1f}" for reading in entry.readings))
        return False

    def _keep(self, entry: Found, found: Score) -> None:
        """Store a finished trial."""
        counts = counting(entry.readings)
        self.store.finish_trial(entry.trial.id, TrialState.COMPLETE, measurement=counts,
                                evaluations=self.evaluations(entry, Split.VALIDATION, found),
                                repeats=[reading for reading in entry.readings if reading is not counts])
        self._learn(entry, found.metrics, self._report(entry).built.artifact.size_bytes)

    def read_again(self, entry: Found) -> None:
        """Read a candidate of an earlier controller as often as is asked for now, and keep that."""
        before = len(entry.readings)
        self._read(entry)
        for number, reading in enumerate(entry.readings[before:], before):
            self.store.add_measurement(entry.trial.id, reading, Purpose.REPEAT, number)
        if entry.evidence is not None:
            self._learn(entry, entry.evidence.metrics, entry.evidence.size_bytes)

    def believe(self, sessions: Mapping[str, Sequence[tuple[int, ...]]]) -> None:
        """Take what was read in turn, session by session (ns), for more than what the search read once."""
        for identity, rounds in sessions.items():
            entry = self.found[identity]
            if entry.evidence is not None and any(rounds):
                entry.latency = summarise(rounds, self.statistic)
                entry.evidence = replace(entry.evidence, latency_s=entry.latency.value(self.statistic))

    def _read(self, entry: Found) -> None:
        """Take readings until no more is asked for. Raises InfeasibleCandidate, FarmError."""
        while self._more(entry):
            future, _ = self._reading(entry)
            try:
                entry.readings.append(waited(future))
            except InfeasibleCandidate as error:
                if entry.role is TrialRole.BASELINE:
                    raise self.crew.ill(str(entry.name), error) from error
                raise

    def _seconds(self, reading: Measurement) -> float:
        return summarise([reading.comparable_ns], self.statistic).value(self.statistic)

    def _learn(self, entry: Found, metrics: Mapping[str, float], size: int) -> None:
        measurement = counting(entry.readings)
        entry.measurement = measurement
        entry.latency = summarise([measurement.comparable_ns], self.statistic)
        entry.evidence = Evidence(entry.latency.value(self.statistic), size, dict(metrics))
        self.by_artifact[measurement.artifact_sha256] = entry

    def _keep_golden(self, report: HostReport) -> None:
        """Tell the store that the study uses the golden inputs, so that its clean-up knows them."""
        if report.golden_inputs not in self.golden:
            self.golden.add(report.golden_inputs)
            digest = Artifact.of(report.golden_inputs).sha256
            step = StepRecord(digest_of({"golden": digest}), "golden", {"inputs": digest}, {})
            self.store.put_step(self.study.id, step)

    def evaluate_on_board(self, entry: Found, split: str) -> Score:
        """Run a split's first examples on a board; the metrics are computed in a worker.

        Raises InfeasibleCandidate or FarmError.
        """
        return waited(self._scoring(entry, split))

    def _scoring(self, entry: Found, split: str) -> Future[Score]:
        built, evaluator, job = self._report(entry).built, self._evaluator(entry), entry.job()
        inputs = waited(self.pool.submit(encode_split, evaluator, built.ports, split))
        outputs = self.store.folder / "boards" / f"outputs-{entry.trial.id}.npz"
        outputs.parent.mkdir(parents=True, exist_ok=True)

        def run(bench: Bench, suspicion: Suspicion) -> Score:
            try:
                bench.run(job, inputs, outputs, suspicion)
                return self.pool.submit(score, evaluator, built.ports, outputs, split).result()
            finally:
                outputs.unlink(missing_ok=True)

        return self.crew.submit(run)

    @staticmethod
    def _report(entry: Found) -> HostReport:
        if entry.report is None:
            raise ValueError(f"candidate {entry.candidate.id} is not built")
        return entry.report

    def evaluations(self, entry: Found, split: Split, score: Score) -> list[Evaluation]:
        """Return a score as the store keeps it."""
        evaluator = self._evaluator(entry)
        where = Where.HOST if evaluator.board_examples is None else Where.BOARD
        return [Evaluation(split, name, value, score.examples, where, evaluator.runtime.name)
                for name, value in score.metrics.items()]

    def _evaluator(self, entry: Found) -> EvaluationInputs:
        return self.toolchains[entry.candidate.compiler].evaluator
