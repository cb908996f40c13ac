"""Whole searches on this computer, as a user runs them: exit codes, documents, and what the store then holds."""

from __future__ import annotations

import getpass
import hashlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ai_edge_litert.interpreter import Interpreter

from orchestrator.exports import recipes_document
from orchestrator.schemas.files import schema_of
from orchestrator.store.records import Purpose, Split, StudyStatus, TrialHistory, TrialRole, TrialState
from orchestrator.store.store import Store
from orchestrator.studies import show_document
from orchestrator.study_view import view_of
from profilers.statistics import summarise
from search.candidate import candidate_in
from search.recipes import UNIFORM
from tests.orchestrator.processes import end_family, wait_until_gone
from tests.orchestrator.searches import (
    Quick,
    Ran,
    command,
    complete,
    demo_search,
    environment,
    quick_model,
    run,
)

POINT = 0.01


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    return demo_search(tmp_path_factory)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return quick_model(tmp_path_factory, tmp_path_factory.mktemp("quick"))


def searched(history: TrialHistory) -> tuple[int, ...]:
    """Return the raw samples from which the search learnt."""
    (found,) = [m.measurement.wall_ns for m in history.measurements if m.purpose is Purpose.SEARCH]
    return found


def confirmed(history: TrialHistory) -> list[tuple[int, ...]]:
    return [m.measurement.wall_ns for m in history.measurements if m.purpose is Purpose.CONFIRM]


# The demo network, from PyTorch


def test_the_document_is_complete_and_holds_its_promises(demo: tuple[Path, Ran]) -> None:
    folder, ran = demo
    assert ran.code == 0, ran.stderr
    document = ran.document
    jsonschema.validate(document, schema_of("search"))
    assert (document["study"], document["model"], document["objective"]) == ("demo", "demo:separable", "top1")
    assert document["goal_met"] is True
    assert (document["measurements"], document["simulated"], document["interrupted"]) == (9, False, False)
    names = [entry["name"] for entry in document["baselines"]]
    assert sorted(names + [gone["name"] for gone in document["baselines_absent"]]) == sorted(UNIFORM)
    baselines = dict(zip(names, document["baselines"], strict=True))
    winner, float32 = document["winner"], baselines["float32"]
    assert document["budget"]["latency_s"] == pytest.approx(0.8 * float32["latency_s"]["median"])
    assert winner["latency_s"]["median"] <= document["budget"]["latency_s"]
    assert winner["latency_s"]["probability_met"] >= document["confidence"] == 0.95
    assert winner["latency_s"]["confirmed"] and float32["latency_s"]["confirmed"]
    for entry in (winner, *document["baselines"], *document["seeds"], *document["pareto"]):
        low, high = entry["latency_s"]["ci95"]
        assert low <= entry["latency_s"]["median"] <= high
        assert entry["latency_s"]["median"] <= entry["latency_s"]["p90"] <= entry["latency_s"]["p99"]
        assert 1e-6 < entry["latency_s"]["median"] < 0.1
        assert 0.5 < entry["accuracy"]["validation"] <= 1
    for entry in (winner, *document["baselines"]):
        assert 0.5 < entry["accuracy"]["test"] <= 1
    assert baselines["int8"]["size_bytes"] < float32["size_bytes"] * 0.7
    assert Path(document["recipe"]).is_dir()
    assert (Path(document["recipe"]) / "model.tflite").stat().st_size == winner["size_bytes"]


def test_the_pareto_front_is_not_beaten_by_any_entry(demo: tuple[Path, Ran]) -> None:
    document = demo[1].document
    front = document["pareto"]
    accuracies = [entry["accuracy"]["validation"] for entry in front]
    assert accuracies == sorted(set(accuracies))
    for point in front:
        for other in (*document["baselines"], *document["seeds"]):
            faster = other["latency_s"]["median"] < point["latency_s"]["median"] * 0.95
            assert not (faster and other["accuracy"]["validation"] >= point["accuracy"]["validation"])


def test_the_store_holds_what_the_document_says(demo: tuple[Path, Ran]) -> None:
    folder, ran = demo
    document = ran.document
    with Store.open(folder / "store") as store:
        record = store.study("demo")
        histories = {h.trial.candidate_id: h for h in store.histories(record.id)}
        assert (record.status, record.holder) == (StudyStatus.FINISHED, None)
        assert record.document == document
        assert record.config["budget"] == "0.8x"
        trials = store.trials(record.id)
        assert len(trials) == len(histories)
        assert len(complete(tuple(histories.values()))) == document["measurements"]
        assert all(t.state in (TrialState.COMPLETE, TrialState.INFEASIBLE) for t in trials)
        for history in complete(tuple(histories.values())):
            sha256 = history.trial.artifact_sha256
            assert sha256 is not None
            blob = store.blobs.path(sha256).read_bytes()
            assert hashlib.sha256(blob).hexdigest() == sha256
            assert len(blob) == history.trial.size_bytes
    entries = [document["winner"], *document["baselines"], *document["seeds"], *document["pareto"]]
    for entry in entries:
        history = histories[entry["candidate_id"]]
        check_entry(entry, history)
        assert candidate_in(record.spaces, history.trial.candidate).id == entry["candidate_id"]
    roles = {h.trial.label: h.trial.role for h in histories.values()}
    assert all(roles[entry["name"]] is TrialRole.BASELINE for entry in document["baselines"])
    winner = histories[document["winner"]["candidate_id"]].trial
    assert winner.number == document["winner"]["trial"]
    layers = candidate_in(record.spaces, winner.candidate).layers
    assert {name: config.label for name, config in layers} == document["winner"]["layers"]
    assert [gone["trial"] for gone in document["infeasible"]] == [
        t.number for t in trials if t.state is TrialState.INFEASIBLE]


def check_entry(entry: dict[str, Any], history: TrialHistory) -> None:
    """Compare a document's entry with raw samples and evaluations."""
    assert entry["size_bytes"] == history.trial.size_bytes
    sessions = confirmed(history)
    assert entry["latency_s"]["confirmed"] is bool(sessions)
    figures = summarise(sessions or [searched(history)])
    assert entry["latency_s"]["median"] == pytest.approx(figures.median)
    assert entry["latency_s"]["ci95"] == pytest.approx(list(figures.ci95))
    assert entry["accuracy"] == {"validation": history.value("top1"), "test": history.value("top1", Split.TEST)}


def test_what_goes_where(demo: tuple[Path, Ran]) -> None:
    """One document on standard output, plain progress on standard error, libraries in the log."""
    folder, ran = demo
    assert ran.stdout.startswith("{") and ran.stdout.endswith("}\n")
    assert all(line.startswith("[") for line in ran.stderr.splitlines()), ran.stderr
    assert "#0   float32" in ran.stderr
    logs = "".join(log.read_text() for log in (folder / "store" / "logs").glob("workers-*.log"))
    assert "LiteRT" in logs or "XNNPACK" in logs


# Refusals, before anything is imported


@pytest.mark.parametrize(("options", "message"), [
    (("--budget", "fast"), "--budget: expected a positive latency such as 10ms"),
    (("--budget", "30m"), "--budget: expected a latency in ns, us, ms or s"),
    (("--budget", "0.5x:int9"), "no baseline 'int9'"),
    (("--size-budget", "10ms"), "expected a positive size such as 80KB"),
    (("--max-drop", "-1"), "--max-drop: expected a number of points that is 0 or more"),
    (("--max-drop", "two"), "Invalid value for '--max-drop': expected a number such as 0.5, got 'two'"),
    (("--measurements", "1e9"), "Invalid value for '--measurements': expected a whole number, got '1e9'"),
    (("--format", "xml"), "Invalid value for '--format': expected text or json, got 'xml'"),
    (("--require", "top1 > 0.9"), "expected 'METRIC >= NUMBER'"),
    (("--resume",), "there is no store in "),
    (("--device", "simm"), "no board and no kind 'simm'; did you mean 'sim'?"),
    (("--model", "gone.tflite", "--data", "small.py:data"), "--model 'gone.tflite': no such file: "),
    (("--data", "gone.py:data"), "--data 'gone.py:data': no such file: "),
    (("--config", "gone.yaml"), "--config gone.yaml: no such file; 'orchestrator init' writes"),
    (("--config", "."), "--config .: expected a file, this is a folder; give --config study.yaml"),
    (("--inventory", "gone.yaml"), "gone.yaml: no such file; correct it, or make it with 'orchestrator devices add"),
    (("--inventory", "."), "expected a file, this is a folder; is it "),
])
def test_what_cannot_be_understood_is_refused_at_once(
        tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    started = time.monotonic()
    ran = Quick(tmp_path).search("--model", "demo:separable", *options, study="refused", model=False)
    assert ran.code == 2
    assert message in ran.stderr
    assert "Input should" not in ran.stderr
    assert ran.stdout == ""
    assert time.monotonic() - started < 20
    assert [left.name for left in tmp_path.iterdir()] == ["tmp"], "a refused command leaves no trace"


def test_a_store_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    ran = run("--model", "demo:separable", "--store", "/proc/store", cwd=tmp_path)
    assert ran.code == 2
    assert "store /proc/store: cannot be created" in ran.stderr
    assert "choose another with --store" in ran.stderr


def test_debug_shows_where_a_refusal_comes_from(tmp_path: Path) -> None:
    argv = command("--io", "grid", "--debug")
    done = subprocess.run(argv, cwd=tmp_path, env=environment(str(tmp_path), tmp_path), capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "orchestrator: --io: expected float or int8, got 'grid'"


# Searches that take seconds


def test_max_drop_alone_finds_the_fastest(quick: Quick) -> None:
    ran = quick.search("--max-drop", "2", "--baselines", "needed", "--measurements", "8", "--latency-stat", "p90",
                       "--format", "json", study="fastest")
    document = ran.document
    assert ran.code == 0, ran.stderr
    assert (document["budget"]["latency_s"], document["budget"]["latency_stat"]) == (None, "p90")
    assert "looking for: least latency with top1 >= " in ran.stderr
    least = document["budget"]["minimum"]["top1"]
    float32 = document["baselines"][0]
    assert least == pytest.approx(float32["accuracy"]["validation"] - 2 * POINT)
    winner = document["winner"]
    assert winner["accuracy"]["validation"] >= least
    assert winner["latency_s"]["probability_met"] is None
    _, histories = quick.histories("fastest")
    allowed = {h.trial.candidate_id: h for h in complete(histories) if (h.value("top1") or 0) >= least}
    rivals = {name: summarise(confirmed(h), "p90").p90 for name, h in allowed.items() if confirmed(h)}
    assert len(rivals) >= 2
    assert min(rivals, key=rivals.__getitem__) == winner["candidate_id"]
    assert winner["latency_s"]["p90"] == pytest.approx(rivals[winner["candidate_id"]])
    assert min(allowed, key=lambda name: summarise([searched(allowed[name])], "p90").p90) in rivals
    assert winner["latency_s"]["median"] < 0.9 * float32["latency_s"]["median"]
    low, high = winner["latency_s"]["ci95"]
    assert low <= winner["latency_s"]["p90"] <= high, "the interval is the statistic's that was asked for"
    assert [entry["name"] for entry in document["baselines"]] == ["float32"]
    assert {gone["reason"] for gone in document["baselines_absent"]} == {"not asked for (--baselines needed)"}


def test_a_size_budget_and_integer_ports(quick: Quick) -> None:
    ran = quick.search("--size-budget", "64KB", "--io", "int8", "--baselines", "needed", "--measurements", "6",
                       "--format", "json", study="small")
    document = ran.document
    assert ran.code == 0, ran.stderr
    assert document["io"] == "int8"
    assert document["budget"]["size_bytes"] == 64_000 >= document["winner"]["size_bytes"]
    assert document["baselines"][0]["size_bytes"] > 64_000
    _, histories = quick.histories("small")
    with Store.open(quick.store) as store:
        for history in complete(histories):
            assert history.trial.artifact_sha256 is not None
            artifact = Interpreter(model_path=str(store.blobs.path(history.trial.artifact_sha256)))
            ports = [*artifact.get_input_details(), *artifact.get_output_details()]
            assert [port["dtype"].__name__ for port in ports] == ["int8", "int8"]
            assert all(port["quantization"][0] > 0 for port in ports)
            assert (history.value("top1") or 0) > 0.85, "the metric must be computed on decoded outputs"


def test_a_goal_out_of_reach_saves_the_nearest_and_exits_1(quick: Quick) -> None:
    ran = quick.search("--budget", "1us", "--baselines", "needed", "--measurements", "4", study="dream")
    assert ran.code == 1, ran.stderr
    assert "Goal not met; the nearest candidate" in ran.stdout
    assert "probability 0.000 (asked: 0.95)" in " ".join(ran.stdout.split())
    record, histories = quick.histories("dream")
    assert record.document is not None
    assert record.document["goal_met"] is False
    winner = record.document["winner"]
    assert isinstance(winner, dict)
    fastest = min(complete(histories), key=lambda h: h.latency_s or 1)
    assert winner["candidate_id"] == fastest.trial.candidate_id
    assert Path(str(record.document["recipe"])).is_dir()


def test_an_unknown_metric_is_refused_naming_those_that_are_measured(quick: Quick) -> None:
    ran = quick.search("--budget", "1s", "--require", "recall >= -0.01", "--baselines", "needed", study="metric")
    assert ran.code == 2
    assert "--require 'recall': no such metric; measured are top1" in ran.stderr
    assert "measuring the baselines" not in ran.stderr


def test_accuracy_on_the_board_and_a_short_time(quick: Quick) -> None:
    ran = quick.search("--budget", "0.9x", "--accuracy", "board:200", "--time", "1ms", "--baselines", "needed",
                       "--format", "json", study="short")
    assert ran.code in (0, 1), ran.stderr
    document = ran.document
    assert document["interrupted"] is False
    assert [entry["name"] for entry in document["baselines"]] == ["float32"]
    assert document["measurements"] == 1, "after its time a search proposes nothing"
    assert "--time 1ms is over" in ran.stderr
    record, histories = quick.histories("short")
    evaluations = [e for h in complete(histories) for e in h.evaluations]
    assert {(e.where, e.examples) for e in evaluations} == {("board", 200)}
    assert {e.split for e in evaluations} == {"validation", "test"}
    (float32,) = complete(histories)
    correct = round((float32.value("top1") or 0) * 200)
    assert float32.value("top1") == pytest.approx(correct / 200)


def test_an_existing_study_is_continued_only_when_asked_and_only_as_itself(quick: Quick) -> None:
    options = ("--budget", "0.9x", "--baselines", "needed", "--measurements", "2")
    first = quick.search(*options, study="mine")
    assert first.code in (0, 1), first.stderr
    before = quick.histories("mine")[1]

    again = quick.search(*options, study="mine")
    assert again.code == 2
    assert "--study 'mine' exists in" in again.stderr and "--resume" in again.stderr

    weights = bytearray((quick.folder / "separable.tflite").read_bytes())
    position = weights.rindex(first_weights(quick))
    weights[position + 3] ^= 0x80
    (quick.folder / "other.tflite").write_bytes(weights)
    other = quick.search(*quick.model(model="other.tflite"), "--resume", study="mine", model=False)
    assert other.code == 2
    assert "with another model (it has separable.tflite, asked for is other.tflite)" in other.stderr
    original = (quick.folder / "separable.tflite").read_bytes()
    (quick.folder / "separable.tflite").write_bytes(weights)
    other = quick.search("--resume", study="mine", model=False)
    (quick.folder / "separable.tflite").write_bytes(original)
    assert other.code == 2
    assert "study 'mine' was made with another model (digest " in other.stderr

    io = quick.search("--resume", "--io", "int8", study="mine", model=False)
    assert io.code == 2
    assert "study 'mine' cannot be continued with another io (it has float, asked for is int8)" in io.stderr
    assert "on resume only budget, " in io.stderr
    other_kind = quick.search("--resume", "--device", "sim", study="mine", model=False)
    assert other_kind.code == 2
    assert "study 'mine' was measured on local; --device sim is of kind sim" in other_kind.stderr
    assert quick.histories("mine")[1] == before

    more = quick.search("--resume", "--measurements", "4", "--budget", "0.7x", "--format", "json", study="mine",
                        model=False)
    assert more.code in (0, 1), more.stderr
    assert "budget was 0.9x, now 0.7x; the earlier result is replaced" in more.stderr
    assert "measurements was 2, now 4" in more.stderr
    record, after = quick.histories("mine")
    assert record.config["budget"] == more.document["budget"]["asked"]["latency"] == "0.7x"
    assert len(complete(after)) == 4
    unchanged = {h.trial.id: (h.trial, searched(h)) for h in complete(before)}
    assert unchanged.items() <= {h.trial.id: (h.trial, searched(h)) for h in complete(after)}.items()


def first_weights(quick: Quick) -> bytes:
    """Return the last convolution's or linear layer's first weights, as they stand in the file."""
    runtime = Interpreter(model_path=str(quick.folder / "separable.tflite"))
    runtime.allocate_tensors()
    outputs = {detail["index"] for detail in runtime.get_output_details()}
    constants = [runtime.get_tensor(d["index"]) for d in runtime.get_tensor_details()
                 if d["index"] not in outputs and len(d["shape"]) == 2 and d["shape"][0] == 10]
    found: bytes = constants[0].tobytes()[:64]
    return found


def test_a_trial_that_a_killed_controller_left_is_finished_on_resume(quick: Quick) -> None:
    """Also when more seeds would fit: nothing that was started stays open in a finished study."""
    options = ("--budget", "0.9x", "--baselines", "needed", "--measurements", "8")
    assert quick.search(*options, study="left").code in (0, 1)
    _, before = quick.histories("left")
    victim = [h for h in complete(before) if h.trial.role is TrialRole.SEARCH][-1]
    with Store.open(quick.store) as store:
        database = store.folder / "orchestrator.db"
    undo(database, victim)
    ran = quick.search("--resume", study="left", model=False)
    assert ran.code in (0, 1), ran.stderr
    record, after = quick.histories("left")
    assert record.status is StudyStatus.FINISHED
    assert [h.trial.number for h in after if h.trial.state is TrialState.RUNNING] == []
    assert [h.trial.id for h in after] == [h.trial.id for h in before]


def undo(database: Path, history: TrialHistory) -> None:
    """Put a trial back to where it was when its artifact was being measured."""
    import sqlite3

    trial = history.trial.id.hex
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        for table in ("measurement", "evaluation"):
            connection.execute(f"DELETE FROM {table} WHERE trial_id = ?", (trial,))  # noqa: S608 - two constants
        changed = connection.execute(
            "UPDATE trial SET state = 'RUNNING', finished_at = NULL WHERE id = ?", (trial,)).rowcount
    connection.close()
    assert changed == 1


# Interrupts


@pytest.fixture
def interrupted(quick: Quick, tmp_path: Path) -> Iterator[str]:
    mark = str(tmp_path)
    yield mark
    end_family(mark)


def wait_for(controller: subprocess.Popen[str], text: str) -> str:
    assert controller.stderr is not None
    for line in controller.stderr:
        if text in line:
            return line
    raise AssertionError(f"no line with {text!r}")


def test_ctrl_c_ends_in_order_and_resume_goes_on(quick: Quick, interrupted: str) -> None:
    controller = quick.start(*quick.model(), "--budget", "0.9x", "--measurements", "12", "--format", "json",
                             study="stopped", mark=interrupted)
    wait_for(controller, "#3 ")
    controller.send_signal(signal.SIGINT)
    stdout, stderr = controller.communicate(timeout=60)
    assert controller.returncode == 130, stderr
    assert "stopping after the measurement under way" in stderr
    assert stderr.splitlines()[-1] == (
        f"interrupted; continue with: orchestrator search --study stopped --resume --store {quick.store}")
    assert wait_until_gone(interrupted, 10) == {}
    document = Ran(130, stdout, stderr).document
    jsonschema.validate(document, schema_of("search"))
    assert document["interrupted"] is True
    record, before = quick.histories("stopped")
    assert record.status is StudyStatus.INTERRUPTED
    assert 4 <= len(complete(before)) <= 7
    with Store.open(quick.store) as store:
        shown = show_document(store, view_of(store, "stopped"))
        listed = recipes_document(store)
    assert shown["search"] == document
    assert "stopped" in [recipe["study"] for recipe in listed["recipes"]]

    ran = quick.search("--resume", "--format", "json", study="stopped", model=False)
    assert ran.code in (0, 1), ran.stderr
    record, after = quick.histories("stopped")
    assert record.status is StudyStatus.FINISHED
    assert len(complete(after)) == 12 == ran.document["measurements"]
    assert len({h.trial.candidate_id for h in after}) == len(after)
    finished = {h.trial.id: (h.trial, searched(h)) for h in complete(before)}
    assert finished.items() <= {h.trial.id: (h.trial, searched(h)) for h in complete(after)}.items()


def test_ctrl_c_before_anything_is_measured_ends_at_once(quick: Quick, interrupted: str) -> None:
    controller = quick.start("--model", "demo:residual", "--device", "sim", study="early", mark=interrupted)
    wait_for(controller, "importing")
    time.sleep(1.0)  # the worker loads PyTorch now
    started = time.monotonic()
    controller.send_signal(signal.SIGINT)
    stdout, stderr = controller.communicate(timeout=60)
    assert time.monotonic() - started < 4
    assert (controller.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "orchestrator: interrupted"
    assert "resource_tracker" not in stderr
    assert wait_until_gone(interrupted, 10) == {}


def test_who_waits_is_told_for_which_study(quick: Quick, interrupted: str) -> None:
    options = (*quick.model(), "--device", "sim", "--budget", "0.9x", "--measurements", "48")
    first = quick.start(*options, study="first", mark=interrupted)
    wait_for(first, "#1 ")
    second = quick.start(*options, study="second", mark=interrupted)
    try:
        here = socket.gethostname()
        assert (f"sim@{here} leased by {getpass.getuser()}@{here} for study 'first' (pid {first.pid}) since 20"
                in wait_for(second, "waiting: "))
    finally:
        for controller in (second, first):
            controller.send_signal(signal.SIGINT)
            controller.communicate(timeout=60)


def test_a_second_ctrl_c_ends_at_once(quick: Quick, interrupted: str) -> None:
    controller = quick.start(*quick.model(), "--budget", "0.9x", study="twice", mark=interrupted)
    wait_for(controller, "#2 ")
    controller.send_signal(signal.SIGINT)
    time.sleep(0.3)
    controller.send_signal(signal.SIGINT)
    started = time.monotonic()
    stdout, stderr = controller.communicate(timeout=60)
    assert controller.returncode == 130, stderr
    assert time.monotonic() - started < 10
    assert "orchestrator search --study twice --resume" in stderr
    assert "Traceback" not in stderr
    assert "resource_tracker" not in stderr
    assert stdout == ""
    assert wait_until_gone(interrupted, 10) == {}
    record, histories = quick.histories("twice")
    assert record.status is StudyStatus.INTERRUPTED
    assert len(complete(histories)) >= 3
