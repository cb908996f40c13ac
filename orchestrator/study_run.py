"""The main job on one screen: open the study, measure baselines, search, confirm."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from types import FrameType

from device_farm.inventory import Inventory
from orchestrator.conclude import conclude
from orchestrator.config import CHANGEABLE, StudyConfig
from orchestrator.contradictions import refuse_hopeless
from orchestrator.costmodel import refuse_prior
from orchestrator.document import Document
from orchestrator.errors import UsageError
from orchestrator.finish import confirm_finalists, evaluate_on_test
from orchestrator.goals import resolve_goal
from orchestrator.leasing import UNHURRIED, Waiting
from orchestrator.loop import Found, Loop
from orchestrator.objectives import parse_objectives
from orchestrator.outcome import Outcome
from orchestrator.phases import (
    baseline_evidence,
    float32_evidence,
    measure_baselines,
    measure_seeds,
    search_proposals,
)
from orchestrator.progress import Progress
from orchestrator.provenance import keep_facts, keep_prepared
from orchestrator.signals import handled
from orchestrator.store.claims import HEARTBEAT_S
from orchestrator.store.errors import StudyInUse
from orchestrator.store.journal import OptunaJournal
from orchestrator.store.records import (
    NewStudy,
    StudyRecord,
    StudyStatus,
    TrialHistory,
    TrialRole,
)
from orchestrator.store.store import Store
from orchestrator.toolchain import model_digest
from orchestrator.units import counted, parse_budget, parse_seconds
from orchestrator.workbench import Workbench, open_workbench, with_spaces
from search.candidate import candidate_in
from search.goal import Goal, Requirement
from search.proposers.stopping import Why

log = logging.getLogger(__name__)
AHEAD = 2
"""Candidates for each board: one that it measures, one that the host has prepared by then."""
SEARCHES = 3
"""At most, in one run: where the confirmation says that nothing meets the goal after all, the search goes on."""


class StudyRun:
    """One controller's work on one study.

    Args:
        store: an open store.
        inventory: the boards.
        config: the study.
        base: the folder from which relative paths of the configuration count.
        progress: takes events.
        resume: continue a study that exists.
        waiting: how long for a board that is another's.
    """

    def __init__(self, store: Store, inventory: Inventory, config: StudyConfig, base: Path, progress: Progress,
                 resume: bool = False, waiting: Waiting = UNHURRIED) -> None:
        self._store, self._inventory, self._config, self._base = store, inventory, config, base
        self._progress, self._resume, self._waiting = progress, resume, waiting
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._limit_s = parse_seconds(config.time) if config.time else None
        self._proposing = False
        self._measuring = False
        self._told_late = False

    def run(self) -> tuple[Outcome, Document]:
        """Do the whole job; the document and the winner's bundle are in the store then.

        Raises:
            UsageError, ModelError, DataError, InventoryError, StoreError: what the user gave is wrong.
            NothingRan: no candidate could be built and measured.
            FarmError: the board is lost; the study can be resumed.
            BundleError: the winner's bundle cannot be written.
            KeyboardInterrupt: Ctrl-C before there was anything to report, or twice.
        """
        if self._resume:
            self._refuse_changes()
        else:
            self._refuse_existing()
        workbench = open_workbench(self._store, self._inventory, self._config, self._base, self._progress, self._stop,
                                   self._store.study(self._config.study) if self._resume else None, self._waiting)
        with handled(self._interrupt), workbench as bench:
            self._check_metrics(bench)
            refuse_prior(self._store, bench.board.kind, [own.runtime for own in bench.toolchains.values()],
                         self._config.prior)
            earlier = self._store.study(self._config.study) if self._resume else None
            study = self._open_study(bench)
            status = StudyStatus.FAILED
            try:
                with _Heartbeat(self._store, study):
                    outcome = self._search(with_spaces(bench, study.spaces), study)
                    document = conclude(self._store, outcome)
                status = StudyStatus.INTERRUPTED if outcome.interrupted else StudyStatus.FINISHED
                return outcome, document
            except KeyboardInterrupt:
                status = StudyStatus.INTERRUPTED
                raise
            except UsageError:
                status = self._refused(earlier)
                raise
            finally:
                with contextlib.suppress(StudyInUse):
                    self._store.release(study.id, status)

    def _search(self, bench: Workbench, study: StudyRecord) -> Outcome:
        loop = Loop(self._store, study, bench.crew, bench.pool, bench.toolchains,
                    self._config.latency_stat, bench.exclusive, AHEAD, self._progress, self._enough)
        loop.resume(self._store.histories(study.id), lambda trial: candidate_in(bench.spaces, trial.candidate))
        self._progress.plan(self._config.measurements, loop.measured)
        self._measuring = True
        absent = measure_baselines(bench, loop, lambda found: None)
        self._proposing = True
        known = baseline_evidence(loop)
        goal = resolve_goal(self._config, bench.objective, known)
        refuse_hopeless(self._config, bench.objective, bench.spaces, float32_evidence(bench, loop),
                        goal.size_budget_bytes)
        self._take_changes(study)
        self._progress.goal(goal, self._config.latency_stat)

        leader: str | None = None

        def tell(found: Found | None) -> None:
            nonlocal leader
            best = goal.best((i, f.evidence) for i, f in loop.found.items() if f.evidence is not None)
            if best is not None and best != leader:
                leader, evidence = best, loop.found[best].evidence
                self._progress.best(loop.found[best], evidence is not None and goal.feasible(evidence))

        tell(None)
        measure_seeds(bench, loop, tell)
        budget = parse_budget(self._config.budget) if self._config.budget else None
        for left in reversed(range(SEARCHES)):
            ending = search_proposals(bench, loop, goal, tell, self._stop.is_set)
            verdict = confirm_finalists(bench, loop, goal, budget, self._stop.is_set)
            if not left or verdict.goal_met or verdict.probability is None or ending.why is not Why.OUTLOOK:
                break
            loop.believe(verdict.sessions)
            goal = resolve_goal(self._config, bench.objective, baseline_evidence(loop))
            rest = counted(self._config.measurements - loop.measured, "measurement")
            self._progress.note(f"nothing meets the goal when it is confirmed: searching on with {rest}")
            self._progress.goal(goal, self._config.latency_stat)
            tell(None)
        baselines = [f for f in loop.found.values() if f.role is TrialRole.BASELINE and f.evidence is not None]
        test = evaluate_on_test(bench, loop, [*([verdict.winner] if verdict.winner else []), *baselines])
        self._project(loop, goal)
        return Outcome(bench, study, loop, goal, budget, verdict, absent, test, ending,
                       time.monotonic() - self._started, self._stop.is_set())

    def _refuse_existing(self) -> None:
        if self._config.study in [study.name for study in self._store.studies()]:
            raise UsageError(f"--study {self._config.study!r} exists in {self._store.folder}; continue it with "
                             "--resume, or choose another --study NAME")

    def _refuse_changes(self) -> None:
        """Refuse what a resume may not change, before anything is prepared. Raises UsageError, StudyNotFound."""
        study = self._store.study(self._config.study)
        config = self._config.model_dump(mode="json", by_alias=True)
        defaults = StudyConfig.model_validate({}).model_dump(mode="json", by_alias=True)
        stored = {**defaults, **study.config}  # an older study has fewer keys
        changed = [f"{key} (it has {stored[key]}, asked for is {value})" for key, value in config.items()
                   if stored[key] != value and key not in CHANGEABLE]
        if changed:
            raise UsageError(f"study {study.name!r} cannot be continued with another {', '.join(changed)}; on resume "
                             f"only {', '.join(CHANGEABLE)} may change; start a new --study")
        board = self._inventory.matching(self._config.device)[0]
        kinds = {m.measurement.kind for h in self._store.histories(study.id) for m in h.measurements} - {board.kind}
        if kinds:
            raise UsageError(f"study {study.name!r} was measured on {', '.join(sorted(kinds))}; --device "
                             f"{self._config.device} is of kind {board.kind}, and latencies of two kinds cannot be "
                             "compared; start a new --study")

    def _check_metrics(self, bench: Workbench) -> None:
        """Refuse metrics that nobody measures and sizes that nothing has, before a study begins. Raises UsageError."""
        asked = parse_objectives(self._config.objective).metric if self._config.objective else None
        names = bench.first.prepared.metric_names
        if asked is not None and asked not in names:
            raise UsageError(f"--objective {self._config.objective!r}: no board of this study measures {asked}; "
                             f"measured are latency, size and the quality metrics "
                             f"{', '.join(names)} (accuracy: the first of them)")
        for requirement in (Requirement.parse(text) for text in self._config.require):
            if requirement.metric not in names:
                raise UsageError(f"--require {requirement.metric!r}: no such metric; measured are "
                                 f"{', '.join(names)}")
        refuse_hopeless(self._config, bench.objective, bench.spaces, {})

    def _open_study(self, bench: Workbench) -> StudyRecord:
        """Create the study, or claim it and refuse what a resume may not change. Raises UsageError."""
        digest = model_digest({name: own.prepared for name, own in bench.toolchains.items()})
        versions = {tool: version for own in bench.toolchains.values()
                    for tool, version in own.prepared.versions.items()}
        if self._resume:
            study = self._store.study(self._config.study)
            if study.model_digest != digest:
                raise UsageError(f"study {study.name!r} was made with another model (digest {study.model_digest[:12]}, "
                                 f"now {digest[:12]}); start a new --study")
            if not all(study.spaces[name].part_of(space) for name, space in bench.spaces.items()):
                raise UsageError(f"study {study.name!r} has another search space: the board's runtime or the compiler "
                                 "has changed; start a new --study")
            study = self._store.claim(study.id)
        else:
            study = self._store.create_study(NewStudy(
                name=self._config.study, seed=self._config.seed,
                config=self._config.model_dump(mode="json", by_alias=True), model_digest=digest,
                spaces=bench.spaces, tool_versions=versions))
        for own in bench.toolchains.values():
            keep_prepared(self._store, study, own)
        if len(bench.toolchains) > 1:
            keep_facts(self._store, study, bench.toolchains.values())
        return study

    def _take_changes(self, study: StudyRecord) -> None:
        """Keep what a resumed study was given anew; until it is known to be possible, the study stays as it was."""
        config = self._config.model_dump(mode="json", by_alias=True)
        for key in CHANGEABLE:
            if study.config.get(key) != config[key]:
                self._progress.note(f"{key} was {study.config.get(key)}, now {config[key]}"
                                    + ("; the earlier result is replaced" if study.document else ""))
        self._store.set_config(study.id, config)

    def _refused(self, earlier: StudyRecord | None) -> StudyStatus:
        """Return how a study stands that was refused: as before, unless baselines were measured meanwhile."""
        if earlier is None or earlier.status is StudyStatus.RUNNING:  # by a controller that has let go of it since
            return StudyStatus.INTERRUPTED
        unchanged = self._store.study(earlier.name).document == earlier.document
        return earlier.status if unchanged else StudyStatus.INTERRUPTED

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

    def _enough(self) -> bool:
        late = self._limit_s is not None and time.monotonic() - self._started > self._limit_s
        if late and self._proposing and not self._told_late:
            self._told_late = True
            self._progress.note(f"--time {self._config.time} is over: nothing more is proposed")
        return (late and self._proposing) or self._stop.is_set()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """First Ctrl-C: finish what is being measured, then stop. Second, or while nothing is measured: at once."""
        if self._stop.is_set() or not self._measuring:
            raise KeyboardInterrupt
        self._stop.set()
        self._progress.note("stopping after the measurement under way; Ctrl-C again stops at once")


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
