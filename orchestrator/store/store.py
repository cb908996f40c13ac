"""The store of studies: the single truth. Every method is one transaction."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import JsonValue
from sqlalchemy import Engine, func
from sqlmodel import col, select

from orchestrator.store import layer_rows, schedule_rows, step_rows, study_rows, trial_rows
from orchestrator.store.claims import this_process
from orchestrator.store.cleanup import remove_study
from orchestrator.store.database import BUSY_TIMEOUT_S, migrate, migrate_server, open_engine, reading, writing
from orchestrator.store.errors import StoreUnusable
from orchestrator.store.lasting import lasting
from orchestrator.store.lease_book import LeaseBook
from orchestrator.store.models import BoardDeath, StoreIdentity, Study, Trial
from orchestrator.store.places import DATABASE_NAME, StorePlace, store_at
from orchestrator.store.records import (
    CostModelRecord,
    Evaluation,
    Holder,
    KernelRecord,
    LayerRecord,
    MeasurementRecord,
    NewCostModel,
    NewStudy,
    Purpose,
    Removed,
    StepRecord,
    StudyRecord,
    StudyStatus,
    TrialHistory,
    TrialRecord,
    TrialRole,
    TrialState,
    digest_of,
)
from orchestrator.store.rows import trial_record
from profilers.measurement import Measurement
from recipes.artifact import Artifact
from recipes.blobs import BlobMissing, BlobStore
from search.candidate import Candidate

_LEFTOVER_S = 86400.0


def utc_now() -> datetime:
    return datetime.now(UTC)


@lasting
class Store:
    """A folder with the database (or one on a server), `blobs/`, `journals/` and `logs/`.

    Threads may share it; each of its methods uses a connection of its own. All of them raise
    StoreBusy, StoreUnreachable, DiskFull and StoreUnusable.
    """

    def __init__(self, folder: Path, engine: Engine, clock: Callable[[], datetime] = utc_now,
                 place: StorePlace | None = None) -> None:
        """Use a migrated database; `Store.open` is the usual way."""
        self.folder = folder
        self.place = place or StorePlace(folder)
        self.blobs = BlobStore(folder / "blobs")
        self._engine = engine
        self.leases = LeaseBook(engine)
        self._clock = clock
        self._token = uuid.uuid4()

    @classmethod
    def open(cls, at: StorePlace | Path | str, clock: Callable[[], datetime] = utc_now,
             busy_timeout_s: float = BUSY_TIMEOUT_S) -> Self:
        """Open the store in a folder or a database; create it, or bring its tables up to date, when needed.

        Raises StoreUnsupported, StoreTooNew, StoreUnusable, StoreUnreachable, StoreBusy.
        """
        place = at if isinstance(at, StorePlace) else store_at(str(at), Path.cwd(), "store")
        try:
            for name in ("blobs", "journals", "logs"):
                (place.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnusable(f"store {place.folder}: cannot be created ({error.strerror}); choose another with "
                                "--store") from error
        if place.url is not None:
            migrate_server(place)
        else:
            migrate(place.folder / DATABASE_NAME, busy_timeout_s)
        store = cls(place.folder, open_engine(place, busy_timeout_s), clock, place)
        store.blobs.remove_leftovers(_LEFTOVER_S)
        return store

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def identity(self) -> str:
        """What tokens of leases belong to: they rise within one database."""
        if self.place.url is None:  # a copy of the folder is another store, whatever is in it
            return f"{socket.gethostname()}:{self.folder}"
        with reading(self._engine) as session:
            return str(session.exec(select(StoreIdentity.id)).one())

    def journal_path(self, study_id: uuid.UUID) -> Path:
        """Return the file of the study's Optuna journal."""
        return self.folder / "journals" / f"{study_id}.log"

    def log_path(self, study_id: uuid.UUID) -> Path:
        """Return the file for the study's log."""
        return self.folder / "logs" / f"{study_id}.log"

    # Studies

    def create_study(self, new: NewStudy) -> StudyRecord:
        """Create a study and claim it. Raises StudyExists."""
        with writing(self._engine) as session:
            return study_rows.create(session, new, self._here())

    def study(self, name: str) -> StudyRecord:
        """Return a study. Raises StudyNotFound, naming the nearest ones."""
        with reading(self._engine) as session:
            return study_rows.record(study_rows.find(session, name), self._here())

    def studies(self) -> tuple[StudyRecord, ...]:
        """Return all studies, oldest first."""
        with reading(self._engine) as session:
            found = session.exec(select(Study).order_by(col(Study.created_at), col(Study.name)))
            return tuple(study_rows.record(row, self._here()) for row in found)

    def set_config(self, study_id: uuid.UUID, config: Mapping[str, JsonValue]) -> None:
        """Replace the configuration, e.g. for a resume with another budget; another one voids the final report.

        Raises StudyNotFound.
        """
        with writing(self._engine) as session:
            row, digest = study_rows.find(session, study_id), digest_of(dict(config))
            if row.config_digest != digest:
                row.config, row.config_digest, row.document = dict(config), digest, None

    def set_document(self, study_id: uuid.UUID, document: Mapping[str, JsonValue]) -> None:
        """Keep the final report, until new evidence or another configuration voids it.

        Raises StudyNotFound; ValueError for NaN or infinity in it.
        """
        digest_of(dict(document))
        with writing(self._engine) as session:
            study_rows.find(session, study_id).document = dict(document)

    def delete_study(self, name: str) -> Removed:
        """Delete a study, its files, and the blobs that no other study uses.

        Raises StudyNotFound; StudyInUse when another live controller works on it.
        """
        with writing(self._engine) as session:
            row = study_rows.find(session, name)
            study_rows.refuse_others(row, self._here())
            journal = self.journal_path(row.id)
            files = (journal, journal.with_name(f"{journal.name}.lock"), self.log_path(row.id))
            return remove_study(session, row, self.blobs, files)

    # Claims: one controller for each study

    def claim(self, study_id: uuid.UUID) -> StudyRecord:
        """Become the study's controller, e.g. to resume it. Raises StudyInUse, StudyNotFound."""
        with writing(self._engine) as session:
            return study_rows.claim(session, study_id, self._here())

    def heartbeat(self, study_id: uuid.UUID) -> None:
        """Renew our claim, every claims.HEARTBEAT_S. Raises StudyInUse when it is ours no more."""
        with writing(self._engine) as session:
            row = study_rows.find(session, study_id)
            study_rows.check_own(row, self._here())
            row.heartbeat_at = self._clock()

    def release(self, study_id: uuid.UUID, status: StudyStatus) -> None:
        """Give our claim back and say how the study stands. Raises StudyInUse when it is not ours."""
        if status is StudyStatus.RUNNING:
            raise ValueError("a released study is FINISHED, INTERRUPTED or FAILED, got RUNNING")
        with writing(self._engine) as session:
            row = study_rows.find(session, study_id)
            study_rows.release(row, self._here(), status)

    # Trials

    def add_trial(self, study_id: uuid.UUID, candidate: Candidate, role: TrialRole, label: str | None = None,
                  widened: Iterable[str] = ()) -> TrialRecord:
        """Start a trial. Raises CandidateExists, StudyNotFound."""
        with writing(self._engine) as session:
            study_rows.find(session, study_id)
            return trial_rows.add(session, study_id, candidate, role, label, widened, self._clock())

    def set_artifact(self, trial_id: uuid.UUID, artifact: Artifact) -> None:
        """Say what was built; from now on nobody's clean-up removes the blob. Raises BlobMissing."""
        with writing(self._engine) as session:
            row = trial_rows.find(session, trial_id)
            if not self.blobs.has(artifact.sha256):
                raise BlobMissing(f"trial {row.number}: artifact {artifact.sha256} is not in "
                                  f"{self.blobs.root}; put it there first")
            row.artifact_sha256, row.size_bytes = artifact.sha256, artifact.size_bytes

    def finish_trial(self, trial_id: uuid.UUID, state: TrialState, reason: str | None = None,
                     measurement: Measurement | None = None, evaluations: Iterable[Evaluation] = (),
                     repeats: Iterable[Measurement] = ()) -> TrialRecord:
        """End a trial, its measurements and evaluations with it: all of it is stored, or nothing.

        COMPLETE needs a measurement, INFEASIBLE and FAILED need a reason; a FAILED trial may be
        finished again. `repeats` are further readings, which do not count.

        Raises TrialFinished, TrialNotFound, ValueError.
        """
        with writing(self._engine) as session:
            row, now = trial_rows.find(session, trial_id), self._clock()
            if measurement is not None:
                trial_rows.put_measurement(session, row, measurement, Purpose.SEARCH, 0, now)
            for number, repeat in enumerate(repeats, 1):
                trial_rows.put_measurement(session, row, repeat, Purpose.REPEAT, number, now)
            trial_rows.put_evaluations(session, row, evaluations)
            study_rows.find(session, row.study_id).document = None
            return trial_rows.finish(session, row, state, reason, now)

    def add_evaluations(self, trial_id: uuid.UUID, evaluations: Iterable[Evaluation]) -> None:
        """Store evaluations; one of the same split, metric and place is replaced."""
        with writing(self._engine) as session:
            trial_rows.put_evaluations(session, trial_rows.find(session, trial_id), evaluations)

    def add_measurement(self, trial_id: uuid.UUID, measurement: Measurement, purpose: Purpose,
                        session: int) -> MeasurementRecord:
        """Store one more measurement of a trial; `session` is the confirmation round, from 1.

        Raises MeasurementExists, TrialNotFound, ValueError.
        """
        with writing(self._engine) as transaction:
            row = trial_rows.find(transaction, trial_id)
            study_rows.find(transaction, row.study_id).document = None
            return trial_rows.put_measurement(transaction, row, measurement, purpose, session, self._clock())

    def trials(self, study_id: uuid.UUID) -> tuple[TrialRecord, ...]:
        """Return the study's trials in order of their numbers."""
        with reading(self._engine) as session:
            found = session.exec(select(Trial).where(Trial.study_id == study_id).order_by(col(Trial.number)))
            return tuple(trial_record(row) for row in found)

    def history(self, trial_id: uuid.UUID) -> TrialHistory:
        """Return a trial with its measurements and evaluations. Raises TrialNotFound."""
        with reading(self._engine) as session:
            trial_rows.find(session, trial_id)
            return trial_rows.histories(session, col(Trial.id) == trial_id)[0]

    def histories(self, study_id: uuid.UUID) -> tuple[TrialHistory, ...]:
        """Return all trials of a study with their measurements and evaluations."""
        with reading(self._engine) as session:
            return trial_rows.histories(session, col(Trial.study_id) == study_id)

    # Boards that died

    def deaths(self, artifact_sha256: str, kind: str) -> int:
        """Return how many boards of a kind died under an artifact, in all studies."""
        with reading(self._engine) as session:
            return session.exec(select(func.count()).select_from(BoardDeath).where(
                BoardDeath.artifact_sha256 == artifact_sha256, BoardDeath.kind == kind)).one()

    def add_death(self, artifact_sha256: str, board: str, kind: str, what: str) -> None:
        """Keep that a board died while it ran an artifact."""
        with writing(self._engine) as session:
            session.add(BoardDeath(id=uuid.uuid4(), artifact_sha256=artifact_sha256, board=board, kind=kind, what=what,
                                   happened_at=self._clock()))

    # Measured layers and cost models

    def add_layer(self, record: LayerRecord) -> None:
        """Store a measured layer; the same point on the same board and runtime is replaced."""
        with writing(self._engine) as session:
            layer_rows.put(session, record, self._clock())

    def layers(self, board: str | None = None, kind: str | None = None) -> tuple[LayerRecord, ...]:
        """Return measured layers, oldest first: all, or of one board, or of one kind of board."""
        with reading(self._engine) as session:
            return layer_rows.find(session, board, kind)

    def add_kernel(self, record: KernelRecord) -> None:
        """Store a measured kernel; the same one on the same kind of board is replaced."""
        with writing(self._engine) as session:
            schedule_rows.put(session, record, self._clock())

    def kernels(self, kind: str, runtime_version: str, templates: str) -> tuple[KernelRecord, ...]:
        """Return the kernels that were measured on a kind of board, oldest first."""
        with reading(self._engine) as session:
            return schedule_rows.find(session, kind, runtime_version, templates)

    def add_cost_model(self, new: NewCostModel) -> CostModelRecord:
        """Keep a trained model under the next version of its scope. Raises BlobMissing."""
        with writing(self._engine) as session:
            return layer_rows.add_model(session, new, self.blobs, self._clock())

    def cost_models(self) -> tuple[CostModelRecord, ...]:
        """Return all trained models, oldest first."""
        with reading(self._engine) as session:
            return layer_rows.models(session)

    # Build steps

    def step(self, study_id: uuid.UUID, key: str) -> StepRecord | None:
        """Return a finished step, or None when it must be built; the study now keeps its blobs."""
        with reading(self._engine) as session:
            found = step_rows.get(session, key, self.blobs)
            if found is None or step_rows.is_used(session, key, study_id):
                return found
        with writing(self._engine) as session:
            found = step_rows.get(session, key, self.blobs)
            if found is not None:
                step_rows.use(session, key, study_id)
            return found

    def steps(self, study_id: uuid.UUID) -> tuple[StepRecord, ...]:
        """Return the finished steps of a study, oldest first."""
        with reading(self._engine) as session:
            return step_rows.of_study(session, study_id)

    def put_step(self, study_id: uuid.UUID, step: StepRecord) -> StepRecord:
        """Keep a finished step for this and other studies. Returns the stored one.

        When another builder was first, that is the other's. Raises BlobMissing, StudyNotFound.
        """
        with writing(self._engine) as session:
            study_rows.find(session, study_id)
            stored = step_rows.put(session, step, self.blobs, self._clock())
            step_rows.use(session, step.key, study_id)
            return stored

    def _here(self) -> Holder:
        return this_process(self._token, self._clock())
