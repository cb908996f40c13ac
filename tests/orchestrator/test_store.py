"""The store against a real SQLite file, real processes and real signals."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect

import orchestrator
from orchestrator.store.claims import LAPSE_S, is_live, this_process
from orchestrator.store.database import HEAD, make_engine, open_engine
from orchestrator.store.errors import (
    CandidateExists,
    DiskFull,
    MeasurementExists,
    StoreBusy,
    StoreTooNew,
    StoreUnreachable,
    StoreUnusable,
    StudyExists,
    StudyInUse,
    StudyNotFound,
    TrialFinished,
    TrialNotFound,
)
from orchestrator.store.lasting import lasting
from orchestrator.store.migrations.config import migration_config
from orchestrator.store.models import MeasurementRow
from orchestrator.store.places import DATABASE_NAME, StorePlace, store_at
from orchestrator.store.records import (
    Evaluation,
    NewStudy,
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
from orchestrator.store.rows import space_to_json, spaces_from_json, spaces_to_json
from orchestrator.store.samples import pack, unpack
from orchestrator.store.store import Store
from profilers.measurement import Conditions, KernelTime, Measurement, Sensors
from recipes.blobs import BlobMissing
from search.candidate import Candidate
from search.space import FLOAT32, Layer, LayerConfig, Scheme, SearchSpace
from tests.postgres import address, running_postgres

INT8 = LayerConfig(8, 8, Scheme.STATIC)
W8 = LayerConfig(8, 32, Scheme.DYNAMIC)
SPACE = SearchSpace("tflite", tuple(
    Layer(f"block.{i}", "CONV_2D", (FLOAT32, W8, INT8), 10 * i, 2**40) for i in range(9)))


def new_study(name: str = "first", config: dict[str, float] | None = None) -> NewStudy:
    return NewStudy(name, 2**40, {"budget": "10ms", **(config or {})}, "m" * 64, {"tflite": SPACE}, {"litert": "2.3.0"})


def test_one_space_is_stored_as_it_always_was_and_several_with_a_version() -> None:
    other = replace(SPACE, compiler="tvm")
    assert spaces_to_json({"tflite": SPACE}) == space_to_json(SPACE)
    assert "schema" not in space_to_json(SPACE)
    assert spaces_from_json(space_to_json(SPACE)) == {"tflite": SPACE}, "a study from before there were several"
    both = {"tflite": SPACE, "tvm": other}
    written = json.loads(json.dumps(spaces_to_json(both)))
    assert written["schema"] == 2
    assert spaces_from_json(written) == both
    assert list(spaces_from_json(written)) == ["tflite", "tvm"]
    with pytest.raises(ValueError, match="reads the schemas 1 and 2, got 3; a newer orchestrator made this study"):
        spaces_from_json({**written, "schema": 3})


def candidate(number: int) -> Candidate:
    digits = (number // 3**i % 3 for i in range(9))
    return Candidate.of(SPACE, {layer.name: layer.choices[d] for layer, d in zip(SPACE.layers, digits, strict=True)})


def measurement(number: int = 0, board: str = "pi-a") -> Measurement:
    return Measurement(
        artifact_sha256=f"{number:064x}", board=board, kind="rpi4", boot_id="b", runtime="litert",
        runtime_version="2.3", agent_version="1", threads=4, wall_ns=(2_000_000 + number, 2**40, 7),
        cpu_ns=(1, 2, 3), warmup_runs=3, load_s=0.25, before=Sensors(51.5, 1.5e9, "performance", "0x0", 0.5),
        after=Sensors(temperature_c=52.0),
        peak_rss_bytes=2**33, simulated=False, session_s=1.5,
        kernels=(KernelTime("conv_2d_w8a8_0", "block.0", 2**40), KernelTime("mean", "", 0)), scale=1.25,
        conditions=Conditions((2, 3), 1.5, 7, ("CPU quota",), True, 0.75, "stress (pid 812)", 0.25))


def accuracy(value: float, where: Where = Where.HOST, split: Split = Split.VALIDATION) -> Evaluation:
    return Evaluation(split, "top1", value, 1000, where, "litert")


def run_trial(store: Store, study: StudyRecord, number: int) -> TrialRecord:
    trial = store.add_trial(study.id, candidate(number), TrialRole.SEARCH)
    return store.finish_trial(trial.id, TrialState.COMPLETE, measurement=measurement(number),
                              evaluations=[accuracy(0.9)])


@pytest.fixture
def store(store_place: StorePlace) -> Iterator[Store]:
    with Store.open(store_place) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    return store.create_study(new_study())


# Records


def test_a_study_comes_back_as_it_was_given(store: Store, study: StudyRecord) -> None:
    found = store.study("first")
    assert found == study
    assert (found.spaces, found.seed, found.config) == ({"tflite": SPACE}, 2**40, {"budget": "10ms"})
    assert (found.status, found.document) == (StudyStatus.RUNNING, None)
    store.set_document(study.id, {"winner": {"trial": 3}})
    store.set_config(study.id, {"budget": "10ms"})
    assert store.study("first").document == {"winner": {"trial": 3}}
    store.set_config(study.id, {"budget": "12ms"})
    changed = store.study("first")
    assert changed.document is None
    assert changed.config == {"budget": "12ms"}
    assert changed.config_digest != study.config_digest
    assert changed.space_digest == study.space_digest
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.set_document(study.id, {"latency_s": float("nan")})


def test_new_evidence_voids_the_final_report(store: Store, study: StudyRecord) -> None:
    trial = store.add_trial(study.id, candidate(5), TrialRole.SEARCH)
    artifact = store.blobs.put_bytes(b"model")
    store.set_artifact(trial.id, artifact)
    measured = dataclasses.replace(measurement(), artifact_sha256=artifact.sha256)
    steps: list[Callable[[], object]] = [
        lambda: store.finish_trial(trial.id, TrialState.COMPLETE, measurement=measured),
        lambda: store.add_measurement(trial.id, measured, Purpose.CONFIRM, session=1)]
    for step in steps:
        store.set_document(study.id, {"winner": None})
        assert store.study("first").document is not None
        step()
        assert store.study("first").document is None


def test_boards_that_died_are_counted_by_kind_and_outlive_the_study(store: Store, study: StudyRecord) -> None:
    store.add_death("a" * 64, "pi-a", "rpi4", "booted again")
    store.add_death("a" * 64, "pi-b", "rpi4", "did not come back")
    store.add_death("a" * 64, "nano", "jetson", "booted again")
    store.delete_study("first")
    assert (store.deaths("a" * 64, "rpi4"), store.deaths("a" * 64, "jetson"), store.deaths("b" * 64, "rpi4")) == (
        2, 1, 0)


def test_a_trial_comes_back_with_its_samples(store: Store, study: StudyRecord) -> None:
    trial = store.add_trial(study.id, candidate(5), TrialRole.BASELINE, "int8", widened=["block.1"])
    artifact = store.blobs.put_bytes(b"model")
    store.set_artifact(trial.id, artifact)
    measured = dataclasses.replace(measurement(), artifact_sha256=artifact.sha256)
    done = store.finish_trial(trial.id, TrialState.COMPLETE, measurement=measured, evaluations=[accuracy(0.875)])
    store.add_measurement(trial.id, measured, Purpose.CONFIRM, session=1)
    store.add_evaluations(trial.id, [accuracy(0.5, Where.BOARD), accuracy(0.85, split=Split.TEST), accuracy(0.88)])
    (found,) = store.histories(study.id)
    assert found == store.history(trial.id)
    assert found.trial == done
    assert (done.number, done.role, done.label, done.widened) == (0, TrialRole.BASELINE, "int8", ("block.1",))
    assert (done.artifact_sha256, done.size_bytes) == (artifact.sha256, 5)
    assert Candidate.from_json(SPACE, done.candidate) == candidate(5)
    assert [m.measurement for m in found.measurements] == [measured, measured]
    assert [(m.purpose, m.session) for m in found.measurements] == [(Purpose.SEARCH, 0), (Purpose.CONFIRM, 1)]
    assert found.latency_s == pytest.approx(0.002)
    assert (found.value("top1"), found.value("top1", Split.TEST), found.value("top5")) == (0.88, 0.85, None)
    assert len(found.evaluations) == 3


def test_readings_that_do_not_count_are_kept_beside_the_one_that_does(store: Store, study: StudyRecord) -> None:
    trial = store.add_trial(study.id, candidate(5), TrialRole.SEARCH)
    fast, slow = measurement(), dataclasses.replace(measurement(), wall_ns=(4_000_000,) * 3)
    store.finish_trial(trial.id, TrialState.COMPLETE, measurement=fast, repeats=[slow, fast])
    found = store.history(trial.id)
    assert [(m.purpose, m.session, m.measurement) for m in found.measurements] == [
        (Purpose.SEARCH, 0, fast), (Purpose.REPEAT, 1, slow), (Purpose.REPEAT, 2, fast)]
    assert found.latency_s == pytest.approx(0.002)


def test_every_field_of_a_measurement_has_a_column() -> None:
    assert {field.name for field in dataclasses.fields(Measurement)} <= set(MeasurementRow.model_fields)


def test_samples_are_exact_and_damage_is_seen() -> None:
    samples = (0, -1, 2**63 - 1, -(2**63), *range(500))
    assert unpack(pack(samples)) == samples
    with pytest.raises(ValueError, match="zlib"):
        unpack(b"nonsense")
    with pytest.raises(OverflowError):
        pack([2**63])


def test_times_are_utc_whatever_the_clock_says(tmp_path: Path) -> None:
    nepal = timezone(timedelta(hours=5, minutes=45))
    moment = datetime(2026, 3, 1, 4, 30, tzinfo=nepal)
    with Store.open(tmp_path, clock=lambda: moment) as store:
        store.create_study(new_study())
    with Store.open(tmp_path) as store:
        created = store.study("first").created_at
    assert created == moment
    assert created.tzinfo is UTC
    assert created.hour == 22


# Rules


def test_a_candidate_is_tried_once_in_a_study(store: Store, study: StudyRecord) -> None:
    run_trial(store, study, 1)
    with pytest.raises(CandidateExists, match="is trial 0 of this study already .COMPLETE"):
        store.add_trial(study.id, candidate(1), TrialRole.SEED)
    other = store.create_study(new_study("second"))
    assert run_trial(store, other, 1).number == 0
    assert run_trial(store, study, 2).number == 1


def test_a_result_is_stored_whole_or_not_at_all(store: Store, study: StudyRecord) -> None:
    trial = store.add_trial(study.id, candidate(1), TrialRole.SEARCH)
    with pytest.raises(ValueError, match="COMPLETE needs a measurement"):
        store.finish_trial(trial.id, TrialState.COMPLETE, evaluations=[accuracy(0.9)])
    with pytest.raises(ValueError, match="INFEASIBLE needs a reason"):
        store.finish_trial(trial.id, TrialState.INFEASIBLE, measurement=measurement(), evaluations=[accuracy(0.9)])
    untouched = store.history(trial.id)
    assert (untouched.trial.state, untouched.measurements, untouched.evaluations) == (TrialState.RUNNING, (), ())
    store.finish_trial(trial.id, TrialState.FAILED, reason="no route to pi-a")
    assert store.finish_trial(trial.id, TrialState.COMPLETE, measurement=measurement()).reason is None
    with pytest.raises(TrialFinished, match="is COMPLETE since"):
        store.finish_trial(trial.id, TrialState.INFEASIBLE, reason="late")
    with pytest.raises(MeasurementExists, match="search session 0 on pi-a"):
        store.add_measurement(trial.id, measurement(), Purpose.SEARCH, session=0)
    with pytest.raises(TrialNotFound):
        store.finish_trial(uuid.uuid4(), TrialState.COMPLETE, measurement=measurement())


def test_a_measurement_of_another_artifact_is_refused(store: Store, study: StudyRecord) -> None:
    trial = store.add_trial(study.id, candidate(1), TrialRole.SEARCH)
    store.set_artifact(trial.id, store.blobs.put_bytes(b"model"))
    with pytest.raises(ValueError, match="the measurement is of"):
        store.finish_trial(trial.id, TrialState.COMPLETE, measurement=measurement(1))
    with pytest.raises(ValueError, match="finite"):
        accuracy(float("nan"))


def test_names_of_studies_are_unique_and_helped_with(store: Store, study: StudyRecord) -> None:
    with pytest.raises(StudyExists, match="--resume"):
        store.create_study(new_study())
    with pytest.raises(StudyNotFound, match="did you mean 'first'"):
        store.study("frist")
    store.delete_study("first")
    with pytest.raises(StudyNotFound, match="the store is empty"):
        store.study("first")
    assert store.studies() == ()


def test_studies_are_listed_oldest_first(store: Store, study: StudyRecord) -> None:
    store.create_study(new_study("a later one"))
    assert [record.name for record in store.studies()] == ["first", "a later one"]


# Steps, blobs and deleting


def test_deleting_a_study_frees_what_no_other_needs(store: Store, study: StudyRecord) -> None:
    other = store.create_study(new_study("second"))
    shared, own, artifact = (store.blobs.put_bytes(text) for text in (b"shared import", b"own", b"the artifact"))
    theirs, built = store.blobs.put_bytes(b"built twice"), store.blobs.put_bytes(b"made by a step")
    store.put_step(study.id, StepRecord("k1", "import", {"model": shared.sha256}, {"litert": "2.3"}))
    store.put_step(study.id, StepRecord("k2", "convert", {"model": own.sha256}, {}))
    assert store.step(other.id, "k1") == StepRecord("k1", "import", {"model": shared.sha256}, {"litert": "2.3"})
    assert store.step(other.id, "k3") is None
    store.put_step(other.id, StepRecord("k4", "convert", {"model": built.sha256}, {}))
    for number, blob in enumerate((artifact, theirs, built)):
        store.set_artifact(store.add_trial(study.id, candidate(number), TrialRole.SEARCH).id, blob)
    store.set_artifact(store.add_trial(other.id, candidate(1), TrialRole.SEARCH).id, theirs)
    store.journal_path(study.id).write_bytes(b"{}\n")
    removed = store.delete_study("first")
    assert (removed.trials, removed.files) == (3, 3)
    assert removed.bytes_freed == len(b"own") + len(b"the artifact") + 3
    assert all(store.blobs.has(kept.sha256) for kept in (shared, theirs, built))
    assert not store.blobs.has(own.sha256)
    assert not store.blobs.has(artifact.sha256)
    assert not store.journal_path(study.id).exists()
    assert store.step(other.id, "k2") is None
    assert store.delete_study("second").bytes_freed == shared.size_bytes + theirs.size_bytes + built.size_bytes


def test_a_step_whose_blob_is_gone_is_built_again(store: Store, study: StudyRecord) -> None:
    with pytest.raises(BlobMissing, match="output model is not in"):
        store.put_step(study.id, StepRecord("k", "import", {"model": "0" * 64}, {}))
    first, second = store.blobs.put_bytes(b"1"), store.blobs.put_bytes(b"2")
    store.put_step(study.id, StepRecord("k", "import", {"model": first.sha256}, {}))
    again = store.put_step(study.id, StepRecord("k", "import", {"model": second.sha256}, {}))
    assert again.outputs == {"model": first.sha256}
    store.blobs.remove(first.sha256)
    assert store.step(study.id, "k") is None
    assert store.put_step(study.id, StepRecord("k", "import", {"model": second.sha256}, {})).outputs == {
        "model": second.sha256}


# The file


def test_migrations_go_up_and_down_and_equal_the_models(store_place: StorePlace) -> None:
    Store.open(store_place).close()
    engine = open_engine(store_place) if store_place.url else make_engine(store_place.folder / DATABASE_NAME,
                                                                          foreign_keys=False)
    with engine.connect() as connection, connection.begin():
        config = migration_config(connection)
        assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
        command.check(config)
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["orchestrator_version"]
        command.upgrade(config, "head")
        command.check(config)
        assert {"study", "trial", "evaluation", "measurement", "step"} < set(inspect(connection).get_table_names())
    engine.dispose()


def test_a_store_that_cannot_be_written_is_named_with_its_reason(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    (tmp_path / "open.lock").unlink()
    (tmp_path / "open.lock").mkdir()  # what a read-only file system does to it, but as root too
    with pytest.raises(StoreUnusable, match=f"^store {tmp_path}: cannot be written .*choose another with --store"):
        Store.open(tmp_path)


def tables(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as raw:
        return {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_migrations_work_away_from_the_checkout(tmp_path: Path) -> None:
    lines = "import sys; from orchestrator.store.store import Store; Store.open(sys.argv[1]).close()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", lines, "here"], cwd=tmp_path, env=environment(),
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "trial" in tables(tmp_path / "here" / DATABASE_NAME)


def test_other_files_are_refused(tmp_path: Path) -> None:
    Store.open(tmp_path / "new").close()
    with closing(sqlite3.connect(tmp_path / "new" / DATABASE_NAME)) as raw, raw:
        raw.execute("UPDATE orchestrator_version SET version_num = '9999'")
    with pytest.raises(StoreTooNew, match="revision 9999, this version of orchestrator knows up to"):
        Store.open(tmp_path / "new")
    (tmp_path / "foreign").mkdir()
    with closing(sqlite3.connect(tmp_path / "foreign" / DATABASE_NAME)) as raw:
        raw.execute("CREATE TABLE photos (id)")
    with pytest.raises(StoreUnusable, match="another program.*photos"):
        Store.open(tmp_path / "foreign")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / DATABASE_NAME).write_text("not a database, but long enough to be read as one" * 20)
    with pytest.raises(StoreUnusable, match="cannot be read"):
        Store.open(tmp_path / "text")


def test_a_locked_or_full_database_says_so(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with Store.open(tmp_path, busy_timeout_s=0.1) as store, closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as raw:
        raw.execute("BEGIN EXCLUSIVE")
        assert store.studies() == ()
        with pytest.raises(StoreBusy, match="another process kept it locked"):
            store.create_study(new_study())
    engine = make_engine(tmp_path / DATABASE_NAME)

    @event.listens_for(engine, "connect")
    def small_disk(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA max_page_count = 60").close()

    with Store(tmp_path, engine) as store:
        with pytest.raises(DiskFull, match="no space left"):
            store.create_study(new_study(config={str(i): i for i in range(100_000)}))
        assert store.studies() == ()


# A server


def test_a_server_that_is_restarted_is_waited_for(tmp_path: Path) -> None:
    with running_postgres() as server, Store.open(store_at(
            f"{server.new_database('store')}?folder={tmp_path}", Path("/"))) as store:
        study = store.create_study(new_study())
        run_trial(store, study, 0)
        for how in ("fast", "immediate"):
            server.stop(how)
            timer = threading.Timer(1.0, server.start)
            timer.start()
            began = time.monotonic()
            run_trial(store, study, len(store.trials(study.id)))
            assert time.monotonic() - began > 0.5
            timer.join()
        assert [trial.number for trial in store.trials(study.id)] == [0, 1, 2]


def test_a_commit_that_was_not_answered_is_not_repeated() -> None:
    calls: list[bool] = []

    @lasting
    class Book:
        def put(self, *uncertain: bool) -> int:
            calls.append(True)
            if len(calls) <= len(uncertain):
                raise StoreUnreachable("restarted", uncertain[len(calls) - 1])
            return len(calls)

    assert Book().put(False, False) == 3
    calls.clear()
    with pytest.raises(StoreUnreachable):
        Book().put(False, True)
    assert len(calls) == 2


def test_a_server_that_is_not_there_or_refuses_is_said_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnreachable, match="postgresql://me@127.0.0.1:1/db.*no connection.*see whether the server"):
        Store.open(store_at(f"postgresql://me@127.0.0.1:1/db?folder={tmp_path}", Path("/")))
    assert time.monotonic() - began < 5
    with running_postgres() as server:
        url = server.new_database("store")
        with pytest.raises(StoreUnreachable, match='database "nope" does not exist'):
            Store.open(store_at(f"{url.replace('/store', '/nope')}?folder={tmp_path}", Path("/")))
        place = store_at(f"{url}?folder={tmp_path}", Path("/"))
        engine = open_engine(place)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE photos (id int)")
        engine.dispose()
        with pytest.raises(StoreUnusable, match="another program.*photos"):
            Store.open(place)


def test_what_a_server_does_not_take_is_kept_all_the_same(store: Store, study: StudyRecord) -> None:
    """A crashed runtime's standard error may hold any byte."""
    trial = store.add_trial(study.id, candidate(0), TrialRole.SEARCH)
    store.finish_trial(trial.id, TrialState.INFEASIBLE, "SIGSEGV: \x00\x01")
    assert store.trials(study.id)[0].reason == "SIGSEGV: \ufffd\x01"


# Several processes


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(orchestrator.__file__).parents[1])}


def helper(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], env=environment(), text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_second_controller_is_refused_until_the_first_is_dead(store: Store) -> None:
    with helper("hold", address(store.place)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        study = store.study("first")
        assert study.status is StudyStatus.RUNNING
        with pytest.raises(StudyInUse, match=f"in use by process {other.pid} on "):
            store.claim(study.id)
        with pytest.raises(StudyInUse):
            store.delete_study("first")
        other.kill()
        other.wait()
        assert store.study("first").status is StudyStatus.INTERRUPTED
        assert store.claim(study.id).status is StudyStatus.RUNNING
    with Store.open(store.place) as twin:
        with pytest.raises(StudyInUse, match=f"process {os.getpid()} "):
            twin.claim(study.id)
        with pytest.raises(StudyInUse, match="took it over"):
            twin.release(study.id, StudyStatus.FINISHED)
    store.heartbeat(study.id)
    store.release(study.id, StudyStatus.FINISHED)
    assert store.study("first").status is StudyStatus.FINISHED
    with pytest.raises(StudyInUse, match="nobody holds it"):
        store.heartbeat(study.id)


def test_a_claim_from_elsewhere_lapses_with_its_heartbeat() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    here = this_process(uuid.uuid4(), now)
    ours = dataclasses.replace(here, token=uuid.uuid4())
    assert is_live(ours, here)
    assert not is_live(dataclasses.replace(ours, started=1), here), "a reused process id is another process"
    elsewhere = dataclasses.replace(ours, host="elsewhere", started=1)
    assert is_live(elsewhere, here)
    late = dataclasses.replace(elsewhere, heartbeat_at=now - timedelta(seconds=LAPSE_S + 1))
    assert not is_live(late, here)


def test_readers_see_whole_trials_while_another_process_writes(store: Store) -> None:
    with helper("write", address(store.place), "first", 40) as writer:
        seen = 0
        while writer.poll() is None:
            for study in store.studies():
                histories = store.histories(study.id)
                whole = [h for h in histories if h.trial.state is TrialState.COMPLETE]
                assert all(len(h.measurements) == 1 and len(h.evaluations) == 1 for h in whole)
                assert all(not h.measurements for h in histories if h.trial.state is TrialState.RUNNING)
                assert seen <= len(whole)
                seen = len(whole)
        assert writer.returncode == 0
    assert len(store.trials(store.study("first").id)) == 40


def test_writers_of_two_studies_wait_for_each_other(store: Store) -> None:
    place = address(store.place)
    with helper("write", place, "first", 60) as one, helper("write", place, "second", 60) as two:
        assert (one.wait(), two.wait()) == (0, 0)
    assert [len(store.trials(study.id)) for study in store.studies()] == [60, 60]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_killed_writer_loses_no_trial_that_it_reported(tmp_path: Path, fresh: bool) -> None:
    with helper("killed", tmp_path, int(fresh)) as done:
        output, _ = done.communicate(timeout=120)
    assert done.returncode == 0, output
    rounds, reported = map(int, output.split()[-2:])
    assert rounds == 10
    assert fresh or reported >= 55


def test_many_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    with helper("together", tmp_path) as done:
        output, _ = done.communicate(timeout=120)
    assert done.returncode == 0, output


def write_trials(folder: Path | str, name: str, count: int, report: int | None = None) -> None:
    with Store.open(folder) as store:
        try:
            study = store.study(name)
            store.claim(study.id)
        except StudyNotFound:
            study = store.create_study(new_study(name))
        for trial in store.trials(study.id):
            if trial.state is TrialState.RUNNING:
                store.finish_trial(trial.id, TrialState.INFEASIBLE, reason="left over")
        start = len(store.trials(study.id))
        for number in range(start, start + count):
            done = run_trial(store, study, number)
            if report is not None:
                os.write(report, f"{done.number}\n".encode())


def kill_writers(root: Path, fresh: bool) -> None:
    """Fork a writer ten times, kill it at a random moment, and look for what it had reported.

    Fresh: each has a new store and dies while it creates it, or soon after. Otherwise they follow each other in
    one store, and each dies soon after its turn's number of reports: 1, 2, ... 10.
    """
    moments = secrets.SystemRandom()
    total = 0
    known: set[int] = set()
    for turn in range(10):
        folder = root / (str(turn) if fresh else "one")
        source, report = os.pipe()
        child = os.fork()
        if child == 0:
            write_trials(folder, "first", 10_000, report)
            os._exit(0)
        os.close(report)
        with os.fdopen(source) as lines:
            reported = set() if fresh else {int(lines.readline()) for _ in range(turn + 1)}
            time.sleep(moments.uniform(0.0, 0.2 if fresh else 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            reported |= {int(line) for line in lines}
        total += len(reported)
        with Store.open(folder) as store:
            known = (set() if fresh else known) | reported
            histories = [h for study in store.studies() for h in store.histories(study.id)]
            complete = {h.trial.number for h in histories if h.trial.state is TrialState.COMPLETE}
            lost = known - complete
            torn = [h.trial.number for h in histories
                    if bool(h.measurements) != (h.trial.state is TrialState.COMPLETE)]
            if lost or torn:
                sys.exit(f"turn {turn}: lost {sorted(lost)}, torn {torn}")
    sys.stdout.write(f"{turn + 1} {total}\n")


def open_together(root: Path) -> None:
    """Open ten new stores, each from six processes at the same moment."""
    for turn in range(10):
        children = []
        gate, opener = os.pipe()
        for _ in range(6):
            child = os.fork()
            if child == 0:
                os.close(opener)
                os.read(gate, 1)
                Store.open(root / str(turn)).close()
                os._exit(0)
            children.append(child)
        os.close(opener)
        os.close(gate)
        if any([os.waitpid(child, 0)[1] for child in children]):
            sys.exit(f"turn {turn}: a process could not open the store")


def hold(folder: str) -> None:
    with Store.open(folder) as store:
        store.create_study(new_study())
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hold", place]:
            hold(place)
        case ["write", place, name, how_many]:
            write_trials(place, name, int(how_many))
        case ["together", place]:
            open_together(Path(place))
        case ["killed", place, flag]:
            kill_writers(Path(place), bool(int(flag)))
