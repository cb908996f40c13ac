"""Cost models from the board to the prior: the verbs as a user runs them, on the simulated board."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic import command
from filelock import FileLock
from jsonschema import Draft202012Validator

from orchestrator.costmodel import (
    evaluate_costmodel,
    load_model,
    observations,
    prior_for,
    refuse_prior,
    train_costmodel,
)
from orchestrator.errors import UsageError
from orchestrator.schemas.files import schema_of
from orchestrator.store.database import make_engine
from orchestrator.store.migrations.config import migration_config
from orchestrator.store.places import DATABASE_NAME
from orchestrator.store.records import (
    ALL_KINDS,
    LayerRecord,
    NewStudy,
    StepRecord,
    StudyStatus,
    TrialRole,
    TrialState,
)
from orchestrator.store.store import Store
from profilers.cost_model_errors import PRIORS
from profilers.cost_model_features import roofline_s
from profilers.cost_model_rows import Conditions
from profilers.cost_model_sweep import COPIES, sweep
from profilers.prior import roofline_prior
from profilers.simulation import CORTEX_A72, Roofline
from profilers.sites import sites_of
from recipes.blobs import BlobMissing
from recipes.compilers.shapes import CONVERSIONS
from recipes.compilers.tflite.graph import read_graph
from recipes.compilers.tflite.layers import map_layers
from recipes.compilers.tflite.single_layer import float_model
from recipes.target import Target
from tests.orchestrator.made import measured as made_measurement
from tests.orchestrator.made import run
from tests.orchestrator.processes import MARK, end_family, wait_until_gone
from tests.profilers.test_cost_model import CONVOLUTION, OTHER, network

POINTS = 110
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q"
RPI = Conditions("rpi4", "litert", "2.3.0", 1)
LAYERS = map_layers(network(), Target("aarch64", "litert", "2.3.0"))
SITES = sites_of(LAYERS)


def document(verb: str, *arguments: str | Path, cwd: Path, code: int = 0) -> Any:
    """Run a verb with --format json, and hold what it prints against its schema."""
    done = run(*verb.split("-"), *arguments, "--format", "json", cwd=cwd, timeout_s=200)
    assert done.returncode == code, done.stderr
    printed = json.loads(done.stdout)
    Draft202012Validator(schema_of(verb)).validate(printed)
    return printed


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Sweep the simulated board once; return the store and what was printed."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "swept"
    place.mkdir(exist_ok=True)
    with FileLock(place / "lock"):
        if not (place / "printed.json").exists():
            found = document("costmodel-collect", "--device", "sim", "--measurements", str(POINTS), "--store",
                             place / "store", cwd=place)
            (place / "printed.json").write_text(json.dumps(found))
    return place / "store", json.loads((place / "printed.json").read_text())


@pytest.fixture
def own(swept: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the store that a test may change; others may look at it meanwhile."""
    copy = Path(shutil.copytree(swept[0], tmp_path / "own", ignore=shutil.ignore_patterns(f"{DATABASE_NAME}*")))
    given, made = (sqlite3.connect(folder / DATABASE_NAME) for folder in (swept[0], copy))
    with closing(given), closing(made):
        given.backup(made)
    return copy


def measured(physics: Roofline, where: Conditions, board: str, count: int = 300, simulated: bool = False,
             ) -> Iterator[LayerRecord]:
    """Make up what a sweep of a board with such physics would bring."""
    for shape, config in islice(sweep(3, where.runtime), count):
        total_ns = round(1e9 * (COPIES * roofline_s(shape, config, physics, where.threads) + 5e-7))
        yield LayerRecord(shape, config, COPIES, board, where, simulated, "boot", "agent", "a" * 64,
                          (total_ns, total_ns, total_ns), 5e-7)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Store]:
    """A store with a board of which the roofline knows little."""
    with Store.open(tmp_path / "filled") as store:
        for record in measured(OTHER, RPI, "pi-a"):
            store.add_layer(record)
        yield store


class TestCollect:
    def test_every_point_is_stored_with_its_samples(self, swept: tuple[Path, Any]) -> None:
        folder, printed = swept
        assert printed["board"]["kind"] == "sim" and printed["simulated"] is True
        assert (printed["known"], printed["measured"] + printed["infeasible"], printed["rows"]) == (0, POINTS, POINTS)
        with Store.open(folder) as store:
            rows = store.layers(board="sim")
        assert {(row.shape, row.config) for row in rows} == set(islice(sweep(0, "litert"), POINTS))
        for row in rows:
            assert row.wall_ns is not None and row.fixed_s is not None and len(row.wall_ns) >= 5
            assert row.simulated and row.artifact_sha256 is not None
            assert row.fixed_s < 1e-6, "the simulated board has no fixed cost"

    def test_the_latency_is_that_of_one_layer(self, swept: tuple[Path, Any]) -> None:
        with Store.open(swept[0]) as store:
            rows = [row for row in store.layers(board="sim") if row.config.label != "fp16"]
        ratios = [row.latency_s / roofline_s(row.shape, row.config, CORTEX_A72, 1) for row in rows
                  if row.latency_s is not None]
        assert len(ratios) > POINTS / 2
        assert 0.95 < min(ratios) <= max(ratios) < 1.05

    def test_this_machine_is_measured_and_its_fixed_cost_set_apart(self, tmp_path: Path) -> None:
        printed = document("costmodel-collect", "--device", "local", "--measurements", "10", "--seed", "5", "--store",
                           tmp_path / "s", cwd=tmp_path)
        assert (printed["measured"], printed["simulated"]) == (10, False)
        with Store.open(tmp_path / "s") as store:
            rows = store.layers()
        for row in rows:
            assert row.fixed_s is not None and row.wall_ns is not None and row.latency_s is not None
            assert 1e-8 < row.fixed_s < 1e-4
            assert row.latency_s == pytest.approx((np.median(row.wall_ns) * 1e-9 - row.fixed_s) / COPIES)
        assert len({row.latency_s for row in rows}) > 5

    def test_it_goes_on_where_it_stopped(self, own: Path, tmp_path: Path) -> None:
        again = document("costmodel-collect", "--device", "sim", "--measurements", str(POINTS + 8), "--store", own,
                         cwd=tmp_path)
        assert (again["known"], again["measured"] + again["infeasible"], again["rows"]) == (POINTS, 8, POINTS + 8)

    def test_a_dry_run_counts_and_measures_nothing(self, own: Path, tmp_path: Path) -> None:
        printed = document("costmodel-collect", "--device", "sim", "--measurements", "150", "--dry-run", "--store", own,
                           cwd=tmp_path)
        assert (printed["points"], printed["known"], printed["measured"], printed["rows"]) == (150, POINTS, 0, POINTS)
        done = run("costmodel", "collect", "--device", "sim", "--dry-run", "--store", own, cwd=tmp_path)
        assert done.stdout == f"sim (litert 2.3.0): {2000 - POINTS} of 2000 layers are left to measure\n"

    def test_the_layers_of_a_model_are_measured_instead(self, tmp_path: Path) -> None:
        (tmp_path / "mine.tflite").write_bytes(float_model(CONVOLUTION, 3))
        printed = document("costmodel-collect", "--device", "sim", "--shapes", "mine.tflite", "--store", tmp_path / "s",
                           cwd=tmp_path)
        assert (printed["points"], printed["measured"]) == (10, 10), "eight formats of one shape, two conversions"
        with Store.open(tmp_path / "s") as store:
            assert {row.shape.kind for row in store.layers()} == {"CONV_2D", *CONVERSIONS}
            assert CONVOLUTION in {row.shape for row in store.layers()}

    def test_the_time_ends_it(self, tmp_path: Path) -> None:
        printed = document("costmodel-collect", "--device", "sim", "--time", "8s", "--store", tmp_path / "s",
                           cwd=tmp_path)
        assert printed["points"] is None and printed["points_absent_because"]
        assert printed["wall_s"] < 30
        assert printed["rows"] == printed["measured"] + printed["infeasible"]

    def test_ctrl_c_keeps_what_was_measured(self, tmp_path: Path) -> None:
        mark = f"costmodel-{tmp_path}"
        folder = tmp_path / "temporary"
        folder.mkdir()
        argv = [sys.executable, "-m", "orchestrator.cli.app", "costmodel", "collect", "--device", "sim", "--format",
                "json", "--store", str(tmp_path / "s")]
        environment = {**os.environ, MARK: mark, "TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
        with subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as child:
            try:
                deadline = time.monotonic() + 100
                while count_rows(tmp_path / "s") < 5 and time.monotonic() < deadline:
                    time.sleep(0.1)
                child.send_signal(signal.SIGINT)
                stdout, stderr = child.communicate(timeout=60)
                assert child.returncode == 130, stderr
                assert stderr.splitlines()[-1] == ("interrupted; what was measured is kept; continue with: the same "
                                                   "command")
                printed = json.loads(stdout)
                assert printed["interrupted"] is True and printed["rows"] >= 5
                assert wait_until_gone(mark, 10) == {}
                assert list(folder.iterdir()) == []
            finally:
                end_family(mark)

    @pytest.mark.parametrize(("options", "code", "message"), [
        (("--device", "nowhere"), 2, "no board and no kind 'nowhere'"),
        (("--device", "sim", "--measurements", "0"), 2, "--measurements: expected at least 1, got 0"),
        (("--device", "sim", "--threads", "0"), 2, "--threads: expected at least 1, got 0"),
        (("--device", "sim", "--seed", "-1"), 2, "--seed: expected at least 0, got -1"),
        (("--device", "sim", "--time", "soon"), 2, "--time: expected a positive time such as 90s, 30m or 2h, got "
                                                   "'soon'"),
        (("--device", "sim", "--shapes", "none.tflite"), 2, "--shapes none.tflite: cannot be read (No such file or "
                                                            "directory)"),
        (("--device", "sim", "--shapes", "boards.yaml"), 2, "--shapes boards.yaml: not a .tflite file"),
        (("--device", "gone", "--inventory", "boards.yaml"), 3, "pi@127.0.0.1:9: connection refused"),
    ])
    def test_what_is_wrong_is_named(self, tmp_path: Path, options: tuple[str, ...], code: int, message: str) -> None:
        (tmp_path / "boards.yaml").write_text(
            f"schema: 1\nboards:\n  gone: {{kind: rpi4, host: 127.0.0.1, port: 9, user: pi, host_key: '{KEY}'}}\n")
        done = run("costmodel", "collect", *options, "--store", tmp_path / "s", cwd=tmp_path, timeout_s=100)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert message in done.stderr and "Traceback" not in done.stderr


def count_rows(store: Path) -> int:
    """Count measured layers while another process writes; 0 before there is a table."""
    try:
        with closing(sqlite3.connect(store / DATABASE_NAME, timeout=5)) as raw:
            return int(raw.execute("SELECT count(*) FROM layer_measurement").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


class TestTrain:
    def test_versions_rise_and_say_what_they_are(self, own: Path, tmp_path: Path) -> None:
        first, second = (document("costmodel-train", "--kind", "sim", "--store", own, cwd=tmp_path) for _ in range(2))
        assert (first["version"], second["version"]) == (1, 2)
        assert first["sha256"] == second["sha256"], "the same rows make the same model"
        assert first["library"].startswith("xgboost ")
        evaluation = first["evaluation"]
        assert evaluation == document("costmodel-evaluate", "--kind", "sim", "--store", own, cwd=tmp_path)
        assert (evaluation["scope"], evaluation["board_kinds"]) == ("sim", ["sim"])
        assert set(evaluation["held_out_families"]) == set(PRIORS)
        assert evaluation["chosen"] == "roofline", "the simulated board is the roofline"
        with Store.open(own) as store:
            one, two = store.cost_models()
            assert (one.version, two.version, one.model.rows) == (1, 2, evaluation["rows"])
            assert load_model(store, one).rows == evaluation["rows"]

    def test_a_person_reads_a_table(self, own: Path, tmp_path: Path) -> None:
        done = run("costmodel", "train", "--kind", "sim", "--store", own, cwd=tmp_path)
        lines = done.stdout.splitlines()
        assert done.returncode == 0 and max(map(len, lines)) <= 80
        assert lines[-1].startswith("kept as version 1 of sim (xgboost ")
        assert [line.split()[0] for line in lines if "%" in line] == list(PRIORS)

    def test_simulated_rows_count_only_when_they_are_named(self, own: Path, tmp_path: Path) -> None:
        done = run("costmodel", "train", "--store", own, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("orchestrator: all layers in the store are simulated; to train with those, name "
                                      "their kind: --kind sim")
        with Store.open(own) as store:
            for record in measured(OTHER, RPI, "pi-a", 120):
                store.add_layer(record)
            assert {row.where.board_kind for row in observations(store, None)} == {"rpi4"}

    def test_several_kinds_are_held_out_in_turn(self, filled: Store, tmp_path: Path) -> None:
        for record in measured(CORTEX_A72, replace(RPI, board_kind="rpi5"), "pi-b", 200):
            filled.add_layer(record)
        printed = document("costmodel-evaluate", "--store", filled.folder, cwd=tmp_path)
        assert (printed["scope"], printed["board_kinds"], printed["rows"]) == (ALL_KINDS, ["rpi4", "rpi5"], 500)
        assert set(printed["held_out_board_kinds"]) == set(PRIORS)

    @pytest.mark.parametrize("verb", ["train", "evaluate"])
    def test_without_rows_it_says_how_to_get_some(self, verb: str, filled: Store, tmp_path: Path) -> None:
        def refused(*options: str | Path) -> str:
            done = run("costmodel", verb, *options, cwd=tmp_path)
            assert (done.returncode, done.stdout) == (2, "")
            return done.stderr

        Store.open(tmp_path / "empty").close()
        assert refused("--store", tmp_path / "empty") == (
            "orchestrator: the store holds no measured layers; measure some first: orchestrator costmodel collect "
            "--device NAME\n")
        assert "--kind rpi3: the store holds no measured layers of this kind of board, only of rpi4" in refused(
            "--kind", "rpi3", "--store", filled.folder)
        assert "there is no store in" in refused("--store", tmp_path / "none")
        with Store.open(tmp_path / "few") as few:
            for record in measured(OTHER, RPI, "pi-a", 20):
                few.add_layer(record)
        assert "20 measured layers are too few" in refused("--store", tmp_path / "few")


class TestNetworks:
    def study(self, store: Store, name: str, count: int) -> None:
        """Store a study of a network of three convolutions on a board with other physics than the roofline's."""
        model = float_model(CONVOLUTION, 3)
        layers = map_layers(read_graph(model), Target("aarch64", "litert", "2.3"))
        sites = sites_of(layers)
        truth = roofline_prior(layers, sites, OTHER, 1)
        study = store.create_study(NewStudy(name, 0, {"model": "mine.py:net"}, "m" * 64, {"tflite": layers.space}, {}))
        store.put_step(study.id, StepRecord(name, "prepare", {"float_model": store.blobs.put_bytes(model).sha256}, {}))
        dice = np.random.default_rng(0)
        for number in range(count):
            picks = np.array([int(dice.integers(len(site.options))) for site in sites.graph.sites])
            candidate = sites.candidate(picks, 1)
            row = store.add_trial(study.id, candidate, TrialRole.SEARCH)
            artifact = store.blobs.put_bytes(f"{name} {number}".encode())
            store.set_artifact(row.id, artifact)
            store.finish_trial(row.id, TrialState.COMPLETE, measurement=made_measurement(
                artifact, 1e6 * float(truth.total(picks[None])[0])))
        store.release(study.id, StudyStatus.FINISHED)

    def test_the_priors_are_held_against_what_studies_measured(self, filled: Store, tmp_path: Path) -> None:
        self.study(filled, "enough", 20)
        self.study(filled, "few", 7)
        printed = document("costmodel-evaluate", "--kind", "rpi4", "--store", filled.folder, cwd=tmp_path)
        (found,) = printed["networks"]
        assert (found["study"], found["model"], found["board_kind"], found["candidates"]) == (
            "enough", "mine.py:net", "rpi4", 20)
        errors = {name: error["median_relative_error"] for name, error in found["priors"].items()}
        assert set(errors) == set(PRIORS) and errors["both"] < errors["roofline"]
        assert found["priors"]["both"]["rank_correlation"] > 0.9
        done = run("costmodel", "evaluate", "--store", filled.folder, cwd=tmp_path)
        assert "whole networks, as studies measured them" in done.stdout
        assert [line.split()[0] for line in done.stdout.splitlines() if "20" in line.split()] == ["enough"] * 3

    def test_a_study_on_another_board_or_without_its_model_is_left_out(self, filled: Store) -> None:
        self.study(filled, "enough", 8)
        assert len(evaluate_costmodel(filled, None)["networks"]) == 1
        (step,) = filled.steps(filled.study("enough").id)
        filled.blobs.remove(step.outputs["float_model"])
        assert evaluate_costmodel(filled, None)["networks"] == []
        self.study(filled, "again", 8)
        for record in measured(OTHER, replace(RPI, board_kind="rpi5"), "pi-b", 120):
            filled.add_layer(record)
        assert evaluate_costmodel(filled, "rpi5")["networks"] == []


class TestPrior:
    def test_a_better_model_is_used_and_says_so(self, filled: Store) -> None:
        trained = train_costmodel(filled, "rpi4")
        found = prior_for(filled, LAYERS, SITES, RPI)
        errors = trained["evaluation"]["held_out_families"]
        assert trained["evaluation"]["chosen"] == "both"
        assert found.why == (f"prior: the cost model, version 1 of rpi4 (both): "
                             f"{errors['both']['median_relative_error']:.0%} off on held-out layers, the roofline "
                             f"{errors['roofline']['median_relative_error']:.0%}")
        truth = roofline_prior(LAYERS, SITES, OTHER, 1)
        analytic = roofline_prior(LAYERS, SITES, CORTEX_A72, 1)
        real = truth.sites > 0
        ours, its = (abs(np.log(tables.sites[real] / truth.sites[real])).mean() for tables in (found.tables, analytic))
        assert ours < 0.6 * its

    def test_the_newest_model_of_the_kind_counts(self, filled: Store) -> None:
        train_costmodel(filled, "rpi4")
        train_costmodel(filled, None)
        assert "version 1 of all kinds" in prior_for(filled, LAYERS, SITES, RPI).why
        train_costmodel(filled, "rpi4")
        assert "version 2 of rpi4" in prior_for(filled, LAYERS, SITES, RPI).why

    def test_without_a_model_of_the_kind_it_is_the_roofline(self, filled: Store) -> None:
        train_costmodel(filled, None)
        found = prior_for(filled, LAYERS, SITES, replace(RPI, board_kind="jetson"))
        assert found.why.startswith("prior: the roofline model; no cost model knows boards of kind jetson")
        assert (found.tables.sites == roofline_prior(LAYERS, SITES, CORTEX_A72, 1).sites).all()

    def test_kernels_of_tvm_have_a_roofline_of_their_own(self, filled: Store) -> None:
        train_costmodel(filled, "rpi4")
        tvm = replace(RPI, runtime="tvm")
        found = prior_for(filled, LAYERS, SITES, tvm)
        assert found.why == "prior: the roofline model; cost models know LiteRT's kernels alone"
        litert = prior_for(filled, LAYERS, SITES, RPI, "roofline").tables.sites
        assert (found.tables.sites <= litert).all() and (found.tables.sites < litert).any(), "4 bits are not slower"
        with pytest.raises(UsageError, match="cost models know LiteRT's kernels alone; use --prior auto"):
            refuse_prior(filled, "rpi4", ["tvm"], "both")
        refuse_prior(filled, "rpi4", ["litert", "tvm"], "both")

    def test_a_model_that_is_no_better_is_not_used(self, own: Path) -> None:
        with Store.open(own) as store:
            train_costmodel(store, "sim")
            found = prior_for(store, LAYERS, SITES, replace(RPI, board_kind="sim"))
        assert found.why == ("prior: the roofline model; on layers held out from training, the cost model (version 1 "
                             "of sim) is no better")

    def test_what_is_asked_for_is_taken(self, filled: Store) -> None:
        for variant in ("xgboost", "both"):
            with pytest.raises(UsageError, match=f"--prior {variant}: no cost model knows boards of kind rpi4; make "
                                                 "one: orchestrator costmodel collect --device rpi4"):
                prior_for(filled, LAYERS, SITES, RPI, variant)
        train_costmodel(filled, "rpi4")
        assert prior_for(filled, LAYERS, SITES, RPI, "roofline").why == "prior: the roofline model; it was asked for"
        found = {variant: prior_for(filled, LAYERS, SITES, RPI, variant) for variant in ("xgboost", "both", "auto")}
        assert "version 1 of rpi4 (xgboost)" in found["xgboost"].why
        assert (found["both"].tables.sites == found["auto"].tables.sites).all()
        assert (found["both"].tables.sites != found["xgboost"].tables.sites).any()

    def test_a_model_of_other_features_or_without_its_file_is_not_used(self, filled: Store) -> None:
        train_costmodel(filled, "rpi4")
        (record,) = filled.cost_models()
        file = filled.blobs.path(record.model.blob_sha256)
        old = file.read_bytes().replace(b'"features": 1', b'"features": 0')
        file.chmod(0o644)
        file.write_bytes(old)
        with pytest.raises(UsageError, match="cost model, version 1 of rpi4: the model was trained with version 0 of "
                                             "the features, this program has version 1; train it anew"):
            load_model(filled, record)
        assert "trained with version 0 of the features" in prior_for(filled, LAYERS, SITES, RPI).why
        filled.blobs.remove(record.model.blob_sha256)
        assert prior_for(filled, LAYERS, SITES, RPI).why.startswith("prior: the roofline model; cost model, version 1")


class TestStore:
    def test_a_layer_comes_back_as_it_went_in(self, filled: Store) -> None:
        expected = {record.point: record for record in measured(OTHER, RPI, "pi-a")}
        found = {record.point: record for record in filled.layers()}
        assert found == expected
        assert filled.layers(board="pi-b") == () == filled.layers(kind="rpi5")
        assert len(filled.layers(kind="rpi4")) == 300

    def test_a_point_is_kept_once_for_a_board_and_runtime(self, filled: Store) -> None:
        record = filled.layers()[0]
        filled.add_layer(replace(record, fixed_s=1e-9))
        other = replace(record.where, runtime_version="2.4.0")
        filled.add_layer(replace(record, where=other))
        filled.add_layer(replace(record, board="pi-b"))
        same = [row for row in filled.layers() if row.point == record.point]
        assert sorted((row.board, row.where.runtime_version, row.fixed_s) for row in same) == [
            ("pi-a", "2.3.0", 1e-9), ("pi-a", "2.4.0", 5e-7), ("pi-b", "2.3.0", 5e-7)]

    def test_an_infeasible_point_has_a_reason_and_no_latency(self, filled: Store) -> None:
        shape, config = next(sweep(9, "litert"))
        filled.add_layer(LayerRecord(shape, config, COPIES, "pi-a", RPI, False, reason="the runtime refuses it"))
        refused = next(row for row in filled.layers() if row.reason)
        assert (refused.latency_s, refused.wall_ns) == (None, None)
        assert len(observations(filled, "rpi4")) == 300
        with pytest.raises(ValueError, match="expected samples or a reason, got neither"):
            LayerRecord(shape, config, COPIES, "pi-a", RPI, False)

    def test_a_model_needs_its_file(self, filled: Store) -> None:
        train_costmodel(filled, "rpi4")
        (record,) = filled.cost_models()
        with pytest.raises(BlobMissing):
            filled.add_cost_model(replace(record.model, blob_sha256="0" * 64))

    def test_a_store_of_the_version_before_is_brought_up_to_date(self, filled: Store) -> None:
        filled.close()
        engine = make_engine(filled.folder / DATABASE_NAME, foreign_keys=False)
        with engine.connect() as connection, connection.begin():
            command.downgrade(migration_config(connection), "0002")
        engine.dispose()
        with closing(sqlite3.connect(filled.folder / DATABASE_NAME)) as raw:
            assert not raw.execute("SELECT name FROM sqlite_master WHERE name LIKE '%cost_model%'").fetchall()
        with Store.open(filled.folder) as store:
            assert store.layers() == ()
            for record in measured(OTHER, RPI, "pi-a", 2):
                store.add_layer(record)
            assert len(store.layers()) == 2
