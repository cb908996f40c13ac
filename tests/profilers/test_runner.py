from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_farm.errors import AgentMismatch, BoardBusy, ChannelClosed, ChannelStalled, LeaseLost, PushFailed
from profilers.refusals import ArtifactDied
from profilers.runner import AgentRunner, RuntimePlace
from recipes.artifact import Artifact
from search.errors import InfeasibleCandidate
from tests.profilers.conftest import ENDLESS, INPUTS, QUICK, WEIGHTS, Bench
from tests.profilers.family import family, wait_for, wait_for_child
from tests.profilers.tiny_model import dense, examples


def test_measure_brings_samples_facts_and_outputs(bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked()
    session = runner.measure(artifact, golden, QUICK)
    measured = session.measurement
    np.testing.assert_allclose(session.outputs[0], INPUTS @ WEIGHTS.T)
    assert QUICK.min_runs <= len(measured.wall_ns) <= QUICK.max_runs
    assert len(measured.cpu_ns) == len(measured.wall_ns)
    assert all(sample > 0 for sample in measured.wall_ns)
    assert measured.artifact_sha256 == artifact.sha256
    assert (measured.board, measured.kind, measured.threads, measured.simulated) == ("bench", "x86", 1, False)
    assert (measured.runtime, measured.runtime_version) == ("litert", "2.3.0")
    assert measured.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip() == runner.facts.boot_id
    assert measured.warmup_runs >= 1
    assert measured.session_s > sum(measured.wall_ns) * 1e-9
    assert measured.peak_rss_bytes is not None and measured.peak_rss_bytes > 10_000_000
    assert measured.before.load_1m is not None
    assert measured.agent_version == Artifact.of(bench.agent).sha256[:12]


def test_every_artifact_gets_a_child_of_its_own_and_leaves_none(
        bench: Bench, tmp_path: Path, golden: Path) -> None:
    runner = bench.locked()
    for number in range(5):
        artifact = dense(tmp_path, WEIGHTS + number, f"dense{number}")
        outputs = runner.measure(artifact, golden, QUICK).outputs
        np.testing.assert_allclose(outputs[0], INPUTS @ (WEIGHTS + number).T)
    wait_for(lambda: not family(bench.root).children, "the last child's end")
    assert len(family(bench.root).zygotes) == 1


def test_the_board_keeps_artifacts_and_knows_them(bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked()
    assert not runner.has(artifact)
    runner.measure(artifact, golden, QUICK)
    assert runner.has(artifact)
    assert not runner.has(replace(artifact, size_bytes=artifact.size_bytes + 1))
    artifact.path.unlink()  # a second push would fail
    golden_there = list((bench.root / "inputs").iterdir())
    runner.measure(artifact, golden, QUICK)
    assert list((bench.root / "inputs").iterdir()) == golden_there
    assert runner.free_bytes() > 0


def test_large_outputs_come_as_a_file(bench: Bench, tmp_path: Path) -> None:
    weights = np.ones((20_000, 2), np.float32)
    inputs = np.arange(10, dtype=np.float32).reshape(5, 2)
    outputs = bench.locked().measure(dense(tmp_path, weights), examples(tmp_path, inputs), QUICK).outputs
    np.testing.assert_allclose(outputs[0], inputs @ weights.T)


def test_several_threads(bench: Bench, artifact: Artifact, golden: Path) -> None:
    session = bench.locked().measure(artifact, golden, replace(QUICK, threads=2))
    assert session.measurement.threads == 2
    np.testing.assert_allclose(session.outputs[0], INPUTS @ WEIGHTS.T)


def test_a_damaged_copy_on_the_board_is_replaced(bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked()
    runner.measure(artifact, golden, QUICK)
    there = bench.root / "artifacts" / f"{artifact.sha256}.tflite"
    there.write_bytes(b"\0" * artifact.size_bytes)
    outputs = runner.measure(artifact, golden, QUICK).outputs
    np.testing.assert_allclose(outputs[0], INPUTS @ WEIGHTS.T)
    assert there.read_bytes() == artifact.path.read_bytes()


def test_an_artifact_that_is_not_what_it_says_is_never_run(bench: Bench, artifact: Artifact, golden: Path) -> None:
    wrong = replace(artifact, sha256="0" * 64)
    with pytest.raises(PushFailed, match=f"expected SHA-256 {'0' * 64}, got {artifact.sha256}"):
        bench.locked().measure(wrong, golden, QUICK)


def test_a_corrupt_artifact_is_the_candidates_fault(bench: Bench, tmp_path: Path, golden: Path) -> None:
    path = tmp_path / "corrupt.tflite"
    path.write_bytes(b"this is no model at all, but it is long enough to look at")
    runner = bench.locked()
    with pytest.raises(InfeasibleCandidate, match=r"corrupt.tflite on bench \(local\): the runtime does not load"):
        runner.measure(Artifact.of(path), golden, QUICK)
    assert runner.measure(dense(tmp_path, WEIGHTS), golden, QUICK).measurement.wall_ns


def test_nan_outputs_are_the_candidates_fault(bench: Bench, tmp_path: Path, golden: Path) -> None:
    weights = WEIGHTS.copy()
    weights[1, 2] = np.nan
    with pytest.raises(InfeasibleCandidate, match="output 0 holds NaN or infinity in 3 of 9 values"):
        bench.locked().measure(dense(tmp_path, weights), golden, QUICK)


def test_golden_inputs_that_do_not_fit_are_the_callers_fault(
        bench: Bench, artifact: Artifact, tmp_path: Path) -> None:
    runner = bench.locked()
    with pytest.raises(ValueError, match=r"the artifact's input x is float32 \(1, 4\), the array is float32 \(2, 5\)"):
        runner.measure(artifact, examples(tmp_path, np.zeros((2, 5), np.float32)), QUICK)
    with pytest.raises(ValueError, match="the array is int8"):
        runner.measure(artifact, examples(tmp_path, np.zeros((2, 4), np.int8)), QUICK)
    other = tmp_path / "named.npz"
    np.savez(other, x=INPUTS)
    with pytest.raises(ValueError, match="needs an array i0, the file has: x"):
        runner.measure(artifact, other, QUICK)


def _meanwhile(bench: Bench, act: Callable[[int], None]) -> threading.Thread:
    """Do something to the next child as soon as it runs."""
    wait_for(lambda: not family(bench.root).children, "the end of the child before")
    thread = threading.Thread(target=lambda: act(wait_for_child(bench.root)))
    thread.start()
    return thread


@pytest.mark.parametrize(("number", "words"), [
    (signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "SIGKILL.*the kernel kills so when memory runs out")])
def test_a_crash_costs_one_measurement(
        bench: Bench, artifact: Artifact, golden: Path, number: int, words: str) -> None:
    runner = bench.locked()
    runner.measure(artifact, golden, QUICK)
    thread = _meanwhile(bench, lambda pid: os.kill(pid, number))
    with pytest.raises(ArtifactDied, match=f"the runtime ended with {words}"):
        runner.measure(artifact, golden, ENDLESS)
    thread.join()
    assert runner.measure(artifact, golden, QUICK).measurement.wall_ns


def test_a_hang_costs_one_measurement(bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked()
    thread = _meanwhile(bench, lambda pid: os.kill(pid, signal.SIGSTOP))
    with pytest.raises(ArtifactDied, match="did not finish within 1 s"):
        runner.measure(artifact, golden, replace(ENDLESS, timeout_s=1.0, max_sampling_s=1.0))
    thread.join()
    assert not family(bench.root).children
    assert runner.measure(artifact, golden, QUICK).measurement.wall_ns


def test_a_slow_artifact_is_not_a_hang(bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked()
    started = time.monotonic()
    session = runner.measure(artifact, golden, replace(ENDLESS, timeout_s=4.0))
    assert 1.9 < time.monotonic() - started < 3.9
    assert session.measurement.wall_ns


def test_a_lost_zygote_is_the_farms_fault_and_comes_back(bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked()

    def kill(child: int) -> None:
        os.kill(family(bench.root).zygotes[0], signal.SIGKILL)

    thread = _meanwhile(bench, kill)
    with pytest.raises(ChannelClosed, match="the process that holds the runtime ended"):
        runner.measure(artifact, golden, ENDLESS)
    thread.join()
    wait_for(lambda: not family(bench.root).children, "the orphan's end")
    assert runner.measure(artifact, golden, QUICK).measurement.wall_ns


def test_a_stopped_agent_is_a_stall(bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked(heartbeat_timeout_s=2.0)
    agent = family(bench.root).agents[0]
    thread = _meanwhile(bench, lambda child: os.kill(agent, signal.SIGSTOP))
    with pytest.raises(ChannelStalled, match="no line came within 2 s"):
        runner.measure(artifact, golden, ENDLESS)
    thread.join()
    os.kill(agent, signal.SIGCONT)


def test_a_long_measurement_is_not_a_stall(bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked(heartbeat_timeout_s=1.5)
    assert runner.measure(artifact, golden, replace(ENDLESS, timeout_s=5.0)).measurement.session_s > 2.4


def test_a_killed_agent_is_a_closed_channel_and_leaves_nothing(
        bench: Bench, artifact: Artifact, golden: Path) -> None:
    runner = bench.locked()
    agent = family(bench.root).agents[0]
    thread = _meanwhile(bench, lambda child: os.kill(agent, signal.SIGKILL))
    with pytest.raises(ChannelClosed, match="exit code -9"):
        runner.measure(artifact, golden, ENDLESS)
    thread.join()
    wait_for(lambda: not family(bench.root).all, "the end of the zygote and its child")


def test_a_killed_controller_leaves_nothing(bench: Bench, artifact: Artifact, golden: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from recipes.artifact import Artifact\n"
        "from tests.profilers.conftest import ENDLESS, Bench\n"
        "agent, folder, artifact, golden = map(Path, sys.argv[1:])\n"
        "Bench(agent, folder).locked().measure(Artifact.of(artifact), golden, ENDLESS)\n")
    controller = subprocess.Popen(
        [sys.executable, "-c", script, str(bench.agent), str(bench.folder), str(artifact.path), str(golden)],
        cwd=Path(__file__).parents[2])
    wait_for_child(bench.root)
    controller.kill()
    controller.wait()
    wait_for(lambda: not family(bench.root).all, "the end of the agent and its family")
    bench.locked().close()


def test_close_ends_everything_and_gives_the_lock_back(bench: Bench) -> None:
    runner = bench.locked()
    assert len(family(bench.root).all) == 2
    runner.close()
    runner.close()
    assert not family(bench.root).all
    bench.locked().close()


def test_two_runners_exclude_each_other(bench: Bench, artifact: Artifact, golden: Path) -> None:
    first, second = bench.locked(), bench.runner()
    with pytest.raises(BoardBusy, match="held by the tests with token 1"):
        second.acquire(9, "another", "another store")
    with pytest.raises(LeaseLost, match="no measurement without the lock"):
        second.measure(artifact, golden, QUICK)
    first.release()
    second.acquire(9, "another", "another store")
    assert second.measure(artifact, golden, QUICK).measurement.wall_ns


def test_who_has_the_lease_now_ends_the_agent_of_who_had_it(bench: Bench, artifact: Artifact, golden: Path) -> None:
    first, second = bench.locked(), bench.runner()
    second.acquire(2, "another")
    with pytest.raises(ChannelClosed):
        first.measure(artifact, golden, QUICK)
    with pytest.raises(LeaseLost, match="token 1 of the tests is older than 2"):
        bench.runner().acquire(1, "the tests")
    assert second.measure(artifact, golden, QUICK).measurement.wall_ns


def test_a_controller_that_connects_anew_ends_its_agent_that_hangs(bench: Bench, artifact: Artifact,
                                                                   golden: Path) -> None:
    bench.locked()
    anew = bench.runner()
    anew.acquire(1, "the tests")
    assert anew.measure(artifact, golden, QUICK).measurement.wall_ns


def test_an_older_token_is_refused_for_ever(bench: Bench) -> None:
    first = bench.runner()
    first.acquire(7, "first")
    first.acquire(8, "first")
    with pytest.raises(LeaseLost, match="token 7 of first is older than 8"):
        first.acquire(7, "first")
    first.close()
    second = bench.runner()
    with pytest.raises(LeaseLost, match="token 7 of second is older than 8"):
        second.acquire(7, "second")
    second.acquire(1, "second", series="another store")
    second.acquire(8, "second")


def test_run_writes_the_outputs_of_all_examples(bench: Bench, artifact: Artifact, tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    runner, outputs = bench.locked(), tmp_path / "outputs.npz"
    runner.run(artifact, examples(tmp_path, inputs), outputs)
    np.testing.assert_allclose(np.load(outputs)["o0"], inputs @ WEIGHTS.T, rtol=1e-5, atol=1e-5)
    runner.run(artifact, examples(tmp_path, inputs), outputs, limit=10)
    assert np.load(outputs)["o0"].shape == (10, 3)


def test_a_batch_takes_as_many_examples(bench: Bench, tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    artifact, outputs = dense(tmp_path, WEIGHTS, batch=4), tmp_path / "outputs.npz"
    runner = bench.locked()
    runner.run(artifact, examples(tmp_path, inputs), outputs)
    np.testing.assert_allclose(np.load(outputs)["o0"], inputs @ WEIGHTS.T, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"is float32 \(4, 4\), the array is float32 \(10, 4\)"):
        runner.run(artifact, examples(tmp_path, inputs[:10]), outputs)


def test_the_host_runs_without_lock_and_copies_and_does_not_measure(
        bench: Bench, artifact: Artifact, golden: Path, tmp_path: Path) -> None:
    runner, outputs = bench.runner(host=True), tmp_path / "outputs.npz"
    runner.run(artifact, golden, outputs)
    np.testing.assert_allclose(np.load(outputs)["o0"], INPUTS @ WEIGHTS.T)
    assert not list((bench.root / "artifacts").iterdir())
    with pytest.raises(AgentMismatch, match="--host does not measure"):
        runner.measure(artifact, golden, QUICK)
    changed = replace(artifact, sha256="0" * 64)
    with pytest.raises(PushFailed, match="expected SHA-256"):
        runner.run(changed, golden, outputs)
    assert artifact.path.exists()


def test_a_runtime_that_breaks_at_first_use_is_the_boards_fault(bench: Bench, tmp_path: Path) -> None:
    """tflite-runtime with NumPy 2 imports well and fails when an Interpreter is made."""
    package = tmp_path / "broken" / "ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "class Interpreter:\n    def __init__(self, **_):\n"
        "        raise ImportError('numpy.core.multiarray failed to import')\n")
    with pytest.raises(AgentMismatch, match="litert does not start here: ImportError: numpy.core.multiarray failed"):
        bench.runner(runtime=RuntimePlace("litert", sys.executable, str(package.parent)))
    assert not family(bench.root).all


def test_a_missing_runtime_is_named(bench: Bench) -> None:
    with pytest.raises(AgentMismatch, match="tflite-runtime does not start here: ModuleNotFoundError"):
        bench.runner(runtime=RuntimePlace("tflite-runtime", sys.executable))


def test_a_python_that_is_none_is_named(bench: Bench, tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text("#!/bin/sh\necho 'the agent needs Python 3.8 or newer' >&2\nexit 1\n")
    old.chmod(0o755)
    with pytest.raises(AgentMismatch, match="the agent did not start: the agent needs Python 3.8"):
        bench.runner(runtime=RuntimePlace("litert", str(old)))


def test_another_protocol_is_named(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    other.write_text("print('{\"type\": \"hello\", \"protocol\": 99}', flush=True); input()\n")
    with pytest.raises(AgentMismatch, match="speaks version 3 of the agent's protocol, the agent version 99"):
        bench.runner(agent=other)


def test_the_cache_forgets_what_was_used_longest_ago(bench: Bench, tmp_path: Path, golden: Path) -> None:
    artifacts = [dense(tmp_path, np.full((100, 4), n, np.float32), f"n{n}") for n in range(4)]
    runner = bench.locked(cache_bytes=3 * artifacts[0].size_bytes + golden.stat().st_size)
    for artifact in artifacts:
        runner.measure(artifact, golden, QUICK)
    wait_for(lambda: not runner.has(artifacts[0]), "the cache to be trimmed")
    assert [runner.has(artifact) for artifact in artifacts[1:]] == [True, True, True]


def test_overhead_is_small(bench: Bench, tmp_path: Path) -> None:
    """What the controller waits beyond the session, for an artifact of 100 KB that is new to the board."""
    rng = np.random.default_rng(0)
    golden = examples(tmp_path, rng.normal(size=(4, 160)).astype(np.float32))
    runner = bench.locked()
    overheads = [_overhead(runner, dense(tmp_path, rng.normal(size=(160, 160)).astype(np.float32), f"a{n}"), golden)
                 for n in range(15)]
    assert np.median(overheads) < 0.05  # 6 ms on an idle machine; tests share theirs


def _overhead(runner: AgentRunner, artifact: Artifact, golden: Path) -> float:
    started = time.perf_counter()
    session = runner.measure(artifact, golden, QUICK)
    return time.perf_counter() - started - session.measurement.session_s
