"""study.yaml and the command line become one configuration, or an error that names the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.config import (
    CHANGEABLE,
    EXPECTED,
    StudyConfig,
    differing,
    expected,
    load_config,
    parse_accuracy,
    study_schema,
)
from orchestrator.errors import UsageError
from search.recipes import UNIFORM


def write(folder: Path, **keys: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"schema": 1, **keys}), "utf-8")
    return path


def refusal(file: Path | None, **overrides: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(file, overrides)
    return str(caught.value)


def test_defaults_need_no_file() -> None:
    config = load_config(None, {})
    assert (config.model, config.data, config.device) == ("demo:residual", "demo:fashion_mnist", "local")
    assert (config.budget, config.max_drop, config.measurements, config.sampler) == (None, None, 48, "adaptive")


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, budget="10ms", measurements=7, require=["top1 >= -0.01"], model="demo:separable")
    config = load_config(file, {"budget": "0.5x", "measurements": None, "require": (), "seed": 3})
    assert (config.budget, config.measurements, config.require) == ("0.5x", 7, ("top1 >= -0.01",))
    assert (config.model, config.seed) == ("demo:separable", 3)


def test_a_file_says_its_version(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("model: demo:residual\n")
    assert refusal(file) == f"{file}: the key 'schema' is missing; write 'schema: 1'"
    file.write_text("schema: 2\n")
    assert refusal(file).startswith(f"{file}: schema: ")


@pytest.mark.parametrize(("text", "message"), [
    ("- a\n- b\n", ": expected keys with their values, such as 'model: net.py:make', got a list"),
    ("3", "got a single value"),
    ("", "got an empty file"),
    ("schema: 1\n  a: b\n", ":2:4: not valid YAML: mapping values are not allowed here"),
    ("schema: [1\n", ":2:1: not valid YAML: expected ',' or ']'"),
    ("schema: \0", ": not valid YAML: special characters are not allowed (character 8)"),
])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    assert message in refusal(file)
    assert refusal(file).startswith(f"{file}:")
    assert "\n" not in refusal(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    none = tmp_path / "none.yaml"
    assert refusal(none) == f"--config {none}: no such file; 'orchestrator init' writes a study.yaml to start from"
    assert refusal(tmp_path) == (f"--config {tmp_path}: expected a file, this is a folder; give --config "
                                 f"{tmp_path / 'study.yaml'}")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert refusal(binary) == f"{binary}: expected text in UTF-8, got other bytes (at byte 0); is it a study.yaml?"


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path, measurement=3)
    assert refusal(file) == f"{file}: measurement: no such key; did you mean 'measurements'?"
    assert "known: schema, study, model, data" in refusal(write(tmp_path, xyzzy=3))


def test_every_problem_is_told(tmp_path: Path) -> None:
    lines = refusal(write(tmp_path, budgets="10ms", threads=0, io="int4")).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["threads", "io", "budgets"]


@pytest.mark.parametrize(("key", "value", "message"), [
    ("budget", "fast", "expected a positive latency such as 10ms"),
    ("budget", "30m", "expected a latency in ns, us, ms or s"),
    ("budget", "0.5x:int9", "no baseline 'int9'"),
    ("size_budget", "10ms", "expected a positive size such as 80KB"),
    ("time", "0s", "expected a positive time"),
    ("max_drop", -1.0, "expected a number of points that is 0 or more (1 point is 0.01), got -1.0"),
    ("max_drop", float("nan"), "expected a number of points that is 0 or more (1 point is 0.01), got nan"),
    ("max_drop", float("inf"), "expected a number of points that is 0 or more (1 point is 0.01), got inf"),
    ("max_drop", "a", "expected a number of points that is 0 or more (1 point is 0.01), got 'a'"),
    ("measurements", 0, "expected a whole number that is 1 or more, got 0"),
    ("threads", 65, "expected a whole number from 1 to 64, got 65"),
    ("sampler", "grid", "ase, fedspine or mixdq, got 'grid'"),
    ("io", "int16", "expected float or int8, got 'int16'"),
    ("accuracy", "board", "expected host, or board:N"),
    ("accuracy", "board:0", "expected host, or board:N"),
    ("accuracy", "moon:3", "expected host, or board:N"),
    ("prune", "maybe", "expected true or false, got 'maybe'"),
    ("prune", 1, "expected true or false, got 1"),
    ("prune_criterion", "luck", "expected obs, magnitude, bn_scale, taylor or activation, got 'luck'"),
    ("latency_stat", "max", "expected median, p90, p99 or mean, got 'max'"),
    ("confidence", 1.0, "expected a probability above 0.5 and below 1, e.g. 0.95, got 1.0"),
    ("confidence", 0.5, "expected a probability above 0.5 and below 1, e.g. 0.95, got 0.5"),
    ("confidence", float("nan"), "expected a probability above 0.5 and below 1, e.g. 0.95, got nan"),
    ("baselines", "some", "expected all or needed, got 'some'"),
    ("require", ("top1 > 1",), "expected 'METRIC >= NUMBER'"),
    ("require", ("top1 >= 1e999",), "expected 'METRIC >= NUMBER'"),
    ("require", "top1 >= 1", "expected a list of constraints, e.g. ['recall_6 >= -0.01'], got 'top1 >= 1'"),
    ("budget", 10, "expected a latency with its unit"),
    ("study", "../x", "expected a name (in quotes if it is a number) of at most 80 letters"),
    ("compiler", "gcc", "expected tflite or tvm, got 'gcc'; several have commas between them: tflite,tvm"),
    ("compiler", "tflite,gcc", "expected tflite or tvm, got 'gcc'"),
    ("compiler", "tvm,tvm", "expected every compiler once, got tvm 2 times; for one search over both: tflite,tvm"),
    ("compiler", "tvm,", "expected tflite or tvm, got ''"),
    ("compiler", ["tvm", 3], "expected tflite or tvm, got 3"),
    ("compiler", [], "expected tflite or tvm, got []"),
    ("compiler", 5, "expected tflite or tvm, got 5"),
    ("seed", -1, "expected a whole number that is 0 or more, got -1"),
])
def test_bad_values_are_refused_where_they_were_given(tmp_path: Path, key: str, value: Any, message: str) -> None:
    option = refusal(None, **{key: value})
    assert message in option
    assert option.startswith(f"--{key.replace('_', '-')}: ")
    for leak in (f"{key} {value!r}", "Input", "Value error", "requirement"):
        assert leak not in option, "one prefix, and our own words"
    plain = list(value) if isinstance(value, tuple) else value
    in_file = refusal(write(tmp_path, **{key: plain}))
    assert message in in_file
    assert in_file.startswith(f"{tmp_path / 'study.yaml'}: {key}: ")


def test_a_model_of_ones_own_needs_its_data(tmp_path: Path) -> None:
    assert "its data are missing; give --data" in refusal(None, model="net.py:make")
    assert load_config(None, {"model": "net.py:make", "data": "net.py:data"}).data == "net.py:data"
    assert load_config(write(tmp_path, data="d.py:data"), {"model": "net.py:make"}).data == "d.py:data"
    assert load_config(None, {"model": "demo:separable"}).data == "demo:fashion_mnist"


@pytest.mark.parametrize(("budget", "size_budget", "needed"), [
    (None, None, ("float32",)), ("10ms", None, ("float32",)), ("0.5x", "80KB", ("float32",)),
    ("0.5x:int8", None, ("float32", "int8")), ("0.5x:int8", "0.9x:fp16", ("float32", "fp16", "int8"))])
def test_needed_baselines_are_float32_and_those_that_budgets_name(
        budget: str | None, size_budget: str | None, needed: tuple[str, ...]) -> None:
    config = load_config(None, {"budget": budget, "size_budget": size_budget, "baselines": "needed"})
    assert config.needed_baselines() == needed
    assert load_config(None, {"budget": budget}).needed_baselines() == tuple(UNIFORM)


def test_where_accuracy_is_evaluated() -> None:
    assert parse_accuracy("host") is None
    assert parse_accuracy("board:200") == 200
    for text in ("board:", "board:-3", "board:2.5", "board:x", "", "host:3"):
        with pytest.raises(UsageError, match="expected host, or board:N"):
            parse_accuracy(text)


def test_what_a_store_keeps_is_read_back(tmp_path: Path) -> None:
    config = load_config(None, {"budget": "0.5x", "require": ("a >= 1",), "max_drop": 0.5})
    stored = json.loads(json.dumps(config.model_dump(mode="json", by_alias=True)))
    assert load_config(None, stored) == config


def test_messages_have_words_for_every_key() -> None:
    keys = {field.alias or name for name, field in StudyConfig.model_fields.items()}
    assert set(EXPECTED) <= keys
    assert all(expected(key) for key in keys)
    assert (expected("io"), expected("compiler")) == ("float or int8", "tflite or tvm")


@pytest.mark.parametrize(("given", "names", "stored"), [
    ("tvm", ("tvm",), "tvm"), (["tvm"], ("tvm",), "tvm"), (None, ("tflite",), "tflite"),
    *((both, ("tflite", "tvm"), ["tflite", "tvm"]) for both in
      ("tflite,tvm", "tvm, tflite", ["tvm", "tflite"], ["tflite", "tvm"]))])
def test_compilers_are_one_or_several_in_any_order(tmp_path: Path, given: Any, names: tuple[str, ...],
                                                   stored: Any) -> None:
    """One is stored as it was before there were several."""
    config = load_config(None, {"compiler": given})
    assert config.compiler == names
    assert config.model_dump(mode="json", by_alias=True)["compiler"] == stored
    keys = {} if given is None else {"compiler": given}
    assert load_config(write(tmp_path, **keys), {}).compiler == names
    jsonschema.validate({"schema": 1, "compiler": stored}, study_schema())


@pytest.mark.parametrize("key", [{"threads": 2}, {"io": "int8"}])
def test_what_one_of_several_compilers_cannot_do_is_refused_with_what_to_do(key: dict[str, Any]) -> None:
    message = refusal(None, compiler="tvm,tflite", **key)
    assert message.startswith("--compiler tflite,tvm: tvm's kernels have one thread, and inputs and outputs are float")
    assert message.endswith(", or --compiler tflite alone")
    assert not refusal(None, compiler="tvm", **key).endswith("alone")


def test_changeable_keys_exist() -> None:
    assert set(CHANGEABLE) <= set(StudyConfig.model_fields)


def test_the_schema_agrees_with_the_reader(tmp_path: Path) -> None:
    schema = study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    good = {"schema": 1, "model": "demo:separable", "budget": "10ms", "require": ["top1 >= -0.01"]}
    jsonschema.validate(good, schema)
    for bad in ({"measurement": 3}, {"io": "int4"}, {"threads": 0}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **bad}, schema)
        assert refusal(write(tmp_path, **bad))


def test_a_key_that_stands_twice_and_values_of_another_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    for lines, message in (("seed: 1\nseed: 2", "the key 'seed' stands there twice"),
                           ("max_drop: true", "max_drop: expected a number of points"),
                           ("threads: true", "threads: expected a whole number from 1 to 64, got True"),
                           ('measurements: "5"', "measurements: expected a whole number that is 1 or more, got '5'"),
                           ('confidence: "0.9"', "confidence: expected a probability above 0.5 and below 1"),
                           ("study: 2026", "study: expected a name (in quotes if it is a number)")):
        file.write_text(f"schema: 1\n{lines}\n")
        with pytest.raises(UsageError) as caught:
            load_config(file, {"study": "s"} if "study" not in lines else {})
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_resumed_study_says_which_keys_of_its_file_it_does_not_take(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("schema: 1\nstudy: mine\nbudget: 0.3x\nmax_drop: 2\nthreads: 4\nseed: 0\n")
    stored = {"schema": 1, "study": "mine", "budget": "0.9x", "max_drop": None, "threads": 1, "seed": 0}
    told = differing(file, stored, {"max_drop": 2.0})
    assert told == [
        f"{file}: budget is 0.3x there, but the study was started with 0.9x, which stays; --budget changes it",
        f"{file}: threads is 4 there, but the study was started with 1, which cannot change"]
    assert differing(None, stored, {}) == []


# Objectives


@pytest.mark.parametrize(("given", "message"), [
    ({"objective": "energy,latency"}, "--objective: no board of this study measures energy; measured are latency, size "
                                      "and the quality metrics; got 'energy,latency'"),
    ({"objective": "accuracy,memory"}, "no board of this study measures memory"),
    ({"objective": "accuracy, latency,"}, "expected objectives with commas between them, such as accuracy,latency"),
    ({"objective": "latency,latency"}, "expected every objective once"),
    ({"objective": "top1,recall,latency"}, "expected one quality metric beside latency and size"),
    ({"objective": "accuracy,size"}, "a front with size has accuracy and latency too"),
    ({"objective": "accuracy,latency", "sampler": "tpe"},
     "--objective accuracy,latency: the sampler tpe looks for one best candidate, no front; those that do: adaptive, "
     "nsga2, random"),
    ({"objective": "latency", "budget": "1ms"}, "--objective latency: with a budget the most accurate"),
    ({"objective": "top1"}, "--objective top1: the most accurate of all is float32"),
])
def test_objectives_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    assert message in refusal(None, **given)


def test_a_front_needs_no_sampler_and_one_objective_no_front() -> None:
    assert load_config(None, {"objective": "accuracy,latency"}).sampler == "adaptive"
    assert load_config(None, {"objective": "recall_6, latency, size", "sampler": "nsga2"}).sampler == "nsga2"
    assert load_config(None, {"objective": "accuracy", "budget": "1ms", "sampler": "tpe"}).objective == "accuracy"
    assert load_config(None, {"objective": "latency", "max_drop": 1.0, "sampler": "tpe"}).objective == "latency"


def test_a_study_file_may_ask_for_a_front(tmp_path: Path) -> None:
    file = write(tmp_path, objective="accuracy,latency", stop_below=0.1)
    found = load_config(file, {})
    assert (found.objective, found.sampler, found.stop_below) == ("accuracy,latency", "adaptive", 0.1)
    wrong = write(tmp_path, objective="accuracy,latency", sampler="gp")
    assert refusal(wrong).startswith(f"{wrong}: objective accuracy,latency: the sampler gp looks for one")


@pytest.mark.parametrize("value", [1, -0.1, "often"])
def test_when_to_stop_is_a_probability(value: object) -> None:
    assert f"--stop-below: expected a probability from 0 (never stop early) to below 1, e.g. 0.05, got {value!r}" == (
        refusal(None, stop_below=value))
