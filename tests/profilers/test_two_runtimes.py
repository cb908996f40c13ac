"""One agent that serves two runtimes: one lock, one conversation, a zygote for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from device_farm.errors import AgentMismatch
from device_farm.local import LocalTransport
from profilers.refusals import ArtifactDied
from profilers.runner import RuntimePlace
from recipes.artifact import Artifact
from tests.profilers.conftest import INPUTS, QUICK, WEIGHTS, Bench
from tests.profilers.family import family
from tests.profilers.scripted_runtime import SOURCE

LITERT = RuntimePlace("litert", sys.executable)


def other(folder: Path, source: str = SOURCE) -> RuntimePlace:
    """Write a runtime that is called tflite-runtime, version 9.9."""
    root = folder / "other"
    (root / "tflite_runtime").mkdir(parents=True)
    (root / "tflite_runtime" / "__init__.py").touch()
    (root / "tflite_runtime" / "interpreter.py").write_text(source)
    (root / "tflite_runtime-9.9.dist-info").mkdir()
    (root / "tflite_runtime-9.9.dist-info" / "METADATA").write_text("Name: tflite-runtime\nVersion: 9.9\n")
    return RuntimePlace("tflite-runtime", sys.executable, str(root))


def script(folder: Path, text: str) -> Artifact:
    """Return an artifact for the other runtime: its bytes are its script."""
    path = folder / "script.bin"
    path.write_text(text)
    return Artifact.of(path)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "two.npz"
    np.savez(path, i0=np.ones((1, 2), np.float32))
    return path


def test_each_artifact_runs_in_the_runtime_that_is_named(bench: Bench, artifact: Artifact, golden: Path, inputs: Path,
                                                         tmp_path: Path) -> None:
    runner = bench.locked(runtimes=(LITERT, other(tmp_path)))
    assert runner.runtimes == {"litert": "2.3.0", "tflite-runtime": "9.9"}
    for _ in range(2):
        one = runner.measure(artifact, golden, QUICK)
        two = runner.measure(script(tmp_path, "pass"), inputs, QUICK, "tflite-runtime")
        assert (one.measurement.runtime, one.measurement.runtime_version) == ("litert", "2.3.0"), "the first"
        assert (two.measurement.runtime, two.measurement.runtime_version) == ("tflite-runtime", "9.9")
        np.testing.assert_allclose(one.outputs[0], INPUTS @ WEIGHTS.T)
        np.testing.assert_array_equal(two.outputs[0], [[3, 7]])
    outputs = tmp_path / "outputs.npz"
    runner.run(script(tmp_path, "pass"), inputs, outputs, runtime="tflite-runtime")
    np.testing.assert_array_equal(np.load(outputs)["o0"], [[3, 7]])


def test_a_crash_in_one_leaves_the_other_and_the_lock(bench: Bench, artifact: Artifact, golden: Path, inputs: Path,
                                                      tmp_path: Path) -> None:
    runner = bench.locked(runtimes=(LITERT, other(tmp_path)))
    before = family(bench.root).all
    with pytest.raises(ArtifactDied, match="SIGABRT"):
        runner.measure(script(tmp_path, "os.abort()"), inputs, QUICK, "tflite-runtime")
    assert runner.measure(artifact, golden, QUICK).measurement.wall_ns
    assert runner.measure(script(tmp_path, "pass"), inputs, QUICK, "tflite-runtime").measurement.wall_ns
    assert family(bench.root).all == before, "an agent and two zygotes, all the same"
    runner.close()
    assert not family(bench.root).all


def test_one_that_does_not_start_is_named_at_once(bench: Bench, tmp_path: Path) -> None:
    broken = other(tmp_path, "raise OSError('libatomic.so.1: cannot open shared object file')")
    with pytest.raises(AgentMismatch, match="tflite-runtime does not start here: OSError: libatomic.so.1"):
        bench.runner(runtimes=(LITERT, broken))
    assert not family(bench.root).all


def test_a_request_names_a_runtime_that_the_agent_was_started_with(agent: Path, tmp_path: Path) -> None:
    transport = LocalTransport()
    channel = transport.open([sys.executable, str(agent), "--root", str(tmp_path), "--runtime", "litert", "--lock-file",
                              str(tmp_path / "lock")])
    channel.receive(60)
    run = {"seq": 1, "type": "run", "sha256": "0" * 64, "threads": 1, "inputs": "i", "outputs": "o"}
    for given, words in (({}, "`runtime` is missing"), ({"runtime": "tvm"}, "no runtime 'tvm' here; this agent was "
                                                        "started with litert")):
        channel.send(json.dumps({**run, **given}).encode())
        reply = json.loads(channel.receive(20))
        assert (reply["code"], words in reply["message"]) == ("bad_request", True)
    transport.close()


def test_the_agent_knows_its_runtimes(agent: Path, tmp_path: Path) -> None:
    done = LocalTransport().run([sys.executable, str(agent), "--root", str(tmp_path), "--runtime", "onnx"], 20)
    assert done.returncode == 2
    assert "no runtime is called 'onnx'; known: litert, tflite-runtime, tvm" in done.stderr
