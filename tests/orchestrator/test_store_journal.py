"""The Optuna journal, read back with Optuna and with optuna-dashboard."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna_dashboard import wsgi

from orchestrator.store.errors import StoreUnusable
from orchestrator.store.journal import OptunaJournal
from orchestrator.store.records import (
    Evaluation,
    NewStudy,
    Split,
    StudyRecord,
    TrialHistory,
    TrialRole,
    TrialState,
    Where,
)
from orchestrator.store.store import Store
from profilers.measurement import Measurement, Sensors
from search.candidate import Candidate
from search.space import FLOAT32, Calibration, Clipping, Layer, LayerConfig, Scheme, SearchSpace

INT8 = LayerConfig(8, 8, Scheme.STATIC)
SPACE = SearchSpace("tflite", tuple(Layer(name, "CONV_2D", (FLOAT32, INT8)) for name in ("stem", "body", "head")))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    return store.create_study(NewStudy("demo", 1, {}, "m" * 64, {"tflite": SPACE}, {}))


def run_trial(store: Store, study: StudyRecord, number: int, latency_ms: int, metric: str = "top1") -> None:
    configs = {layer.name: layer.choices[number >> i & 1] for i, layer in enumerate(SPACE.layers)}
    trial = store.add_trial(study.id, Candidate.of(SPACE, configs), TrialRole.SEARCH)
    measured = Measurement("a" * 64, "pi-a", "rpi4", "b", "litert", "2.3", "1", 4, (latency_ms * 10**6,) * 3, (1, 1, 1),
                           3, 0.1, Sensors(), Sensors(), None, False, 1.0)
    store.finish_trial(trial.id, TrialState.COMPLETE, measurement=measured, evaluations=[
        Evaluation(Split.VALIDATION, metric, 0.9 - number / 100, 1000, Where.HOST, "litert"),
        Evaluation(Split.VALIDATION, metric, 0.1, 1000, Where.BOARD, "litert")])


def within_4_ms(history: TrialHistory) -> dict[str, float]:
    return {"latency": (history.latency_s or 0.0) / 0.004 - 1}


def load(store: Store, study: StudyRecord) -> optuna.Study:
    backend = JournalFileBackend(str(store.journal_path(study.id)))
    return optuna.load_study(study_name="demo", storage=JournalStorage(backend))


def test_optuna_sees_what_the_store_knows(store: Store, study: StudyRecord) -> None:
    run_trial(store, study, 0, latency_ms=5)
    run_trial(store, study, 5, latency_ms=3)
    broken = store.add_trial(study.id, Candidate.of(SPACE, dict.fromkeys(SPACE.by_name, INT8)), TrialRole.SEED, "int8")
    store.finish_trial(broken.id, TrialState.INFEASIBLE, reason="crashes the runtime")
    done = OptunaJournal(store, study, "top1", within_4_ms).catch_up()
    assert (done.added, done.unvalued) == (3, ())
    found = load(store, study)
    assert found.metric_names == ["latency_s", "top1"]
    first, second, third = found.trials
    assert second.params == {"stem": "static_w8a8", "body": "float32", "head": "static_w8a8"}
    assert second.distributions["stem"] == optuna.distributions.CategoricalDistribution(["float32", "static_w8a8"])
    assert (first.values, second.values) == ([0.005, 0.9], [0.003, pytest.approx(0.85)])
    assert first.constraints == {"latency": pytest.approx(0.25)}
    assert second.constraints == {"latency": pytest.approx(-0.25)}
    assert (third.state, third.user_attrs["reason"]) == (optuna.trial.TrialState.FAIL, "crashes the runtime")
    assert third.user_attrs["label"] == "int8"
    assert [trial.number for trial in found.best_trials] == [1]
    figure = optuna.visualization.plot_pareto_front(found)
    assert len(figure.data) > 0


def test_what_is_chosen_for_all_layers_is_a_parameter(store: Store) -> None:
    layers = tuple(replace(layer, weights=100) for layer in SPACE.layers)
    space = replace(SPACE, layers=layers, calibrations=tuple(Calibration), clippings=tuple(Clipping))
    study = store.create_study(NewStudy("demo", 1, {}, "m" * 64, {"tflite": space}, {}))
    int8 = dict.fromkeys(space.by_name, INT8)
    for candidate in (Candidate.of(space, int8), Candidate.of(space, int8, calibration=Calibration.MSE,
                                                              clipping=Clipping.OCTAV)):
        trial = store.add_trial(study.id, candidate, TrialRole.SEED)
        store.finish_trial(trial.id, TrialState.INFEASIBLE, reason="crashes the runtime")
    OptunaJournal(store, study, "top1").catch_up()
    chosen = [{name: value for name, value in trial.params.items() if name.startswith("for_all:")}
              for trial in load(store, study).trials]
    assert chosen == [{"for_all:calibration": "min_max", "for_all:clipping": "none"},
                      {"for_all:calibration": "mse", "for_all:clipping": "octav"}]


def test_catching_up_never_adds_a_trial_twice(store: Store, study: StudyRecord) -> None:
    journal = OptunaJournal(store, study, "top1")
    for number in range(3):
        run_trial(store, study, number, latency_ms=5)
        assert journal.catch_up().added == 1
    failed = store.add_trial(study.id, Candidate.of(SPACE, dict.fromkeys(SPACE.by_name, INT8)), TrialRole.SEARCH)
    store.finish_trial(failed.id, TrialState.FAILED, reason="no route to pi-a")
    run_trial(store, study, 3, latency_ms=5)
    after_a_crash = OptunaJournal(store, study, "top1")
    assert after_a_crash.catch_up().added == 1
    assert after_a_crash.catch_up().added == 0
    assert [trial.user_attrs["number"] for trial in load(store, study).trials] == [0, 1, 2, 4]


def test_a_trial_waits_for_its_objective(store: Store, study: StudyRecord) -> None:
    run_trial(store, study, 0, latency_ms=5, metric="recall_6")
    journal = OptunaJournal(store, study, "top1")
    assert journal.catch_up().unvalued == (0,)
    (trial,) = store.trials(study.id)
    store.add_evaluations(trial.id, [Evaluation(Split.VALIDATION, "top1", 0.5, 10, Where.HOST, "litert")])
    assert journal.catch_up().added == 1


def test_what_a_killed_process_left_behind_is_no_hindrance(store: Store, study: StudyRecord) -> None:
    run_trial(store, study, 0, latency_ms=5)
    OptunaJournal(store, study, "top1").catch_up()
    path = store.journal_path(study.id)
    whole = path.read_bytes()
    run_trial(store, study, 1, latency_ms=5)
    OptunaJournal(store, study, "top1").catch_up()
    path.write_bytes(path.read_bytes()[:-20])
    assert path.read_bytes().startswith(whole)
    Path(f"{path}.lock").symlink_to(path)
    assert OptunaJournal(store, study, "top1").catch_up().added == 1
    assert len(load(store, study).trials) == 2


def test_a_damaged_journal_can_be_written_anew(store: Store, study: StudyRecord) -> None:
    run_trial(store, study, 0, latency_ms=5)
    OptunaJournal(store, study, "top1").catch_up()
    path = store.journal_path(study.id)
    path.write_bytes(b"{nonsense\n" + path.read_bytes())
    with pytest.raises(StoreUnusable, match="delete it, it is written anew"):
        OptunaJournal(store, study, "top1")
    path.unlink()
    assert OptunaJournal(store, study, "top1").catch_up().added == 1


def test_the_dashboard_shows_the_study(store: Store, study: StudyRecord) -> None:
    run_trial(store, study, 0, latency_ms=5)
    run_trial(store, study, 3, latency_ms=3)
    OptunaJournal(store, study, "top1", within_4_ms).catch_up()
    application = wsgi(JournalStorage(JournalFileBackend(str(store.journal_path(study.id)))))

    def get(path: str) -> object:
        environ: dict[str, object] = {"wsgi.input": io.BytesIO()}
        setup_testing_defaults(environ)
        environ["PATH_INFO"] = path
        seen: list[str] = []
        body = b"".join(application(environ, lambda status, headers, error=None: seen.append(status)))
        assert seen == ["200 OK"]
        return json.loads(body)

    listed = get("/api/studies")
    assert isinstance(listed, dict)
    (summary,) = listed["study_summaries"]
    assert (summary["study_name"], summary["directions"]) == ("demo", ["minimize", "maximize"])
    detail = get(f"/api/studies/{summary['study_id']}")
    assert isinstance(detail, dict)
    assert [trial["values"] for trial in detail["trials"]] == [[0.005, 0.9], [0.003, 0.87]]
