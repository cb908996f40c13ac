"""The agent by itself: its conversation, its lock, its parsers."""

from __future__ import annotations

import ast
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_farm.facts import BoardFacts
from device_farm.local import LocalTransport
from device_farm.transport import Channel
from profilers import agent as agent_package
from profilers.agent import facts, lines, sensors
from profilers.agent.session import narrow
from profilers.agent.worker import complaint
from profilers.agent_build import build_agent
from profilers.measurement import MeasureSettings
from profilers.refusals import ArtifactDied
from profilers.runner import RuntimePlace
from recipes.artifact import Artifact
from search.errors import InfeasibleCandidate
from tests.profilers.conftest import QUICK, Bench
from tests.profilers.scripted_runtime import scripted_runtime
from tests.profilers.tiny_model import examples

SOURCES = sorted(Path(str(agent_package.__file__)).parent.glob("*.py"))


@pytest.fixture
def channel(agent: Path, tmp_path: Path) -> Iterator[Channel]:
    transport = LocalTransport()
    yield transport.open([sys.executable, str(agent), "--root", str(tmp_path / "root"), "--runtime", "litert",
                          "--lock-file", str(tmp_path / "lock")])
    transport.close()


def _receive(channel: Channel) -> dict[str, Any]:
    reply = json.loads(channel.receive(20))
    assert isinstance(reply, dict)
    return reply


def _ask(channel: Channel, line: str) -> dict[str, Any]:
    channel.send(line.encode())
    return _receive(channel)


# -- the conversation -----------------------------------------------------------------------------


def test_the_first_line_is_the_hello(channel: Channel, agent: Path) -> None:
    hello = _receive(channel)
    assert (hello["type"], hello["protocol"]) == ("hello", 3)
    assert hello["agent_version"] == Artifact.of(agent).sha256[:12]
    assert hello["runtimes"] == [{"name": "litert", "version": "2.3.0", "reason": None}]
    board = BoardFacts.from_json(hello["facts"])
    assert board.python == ".".join(map(str, sys.version_info[:3]))
    assert board.cores >= 1 and board.memory_bytes > 1 << 20


@pytest.mark.parametrize(("line", "code", "words"), [
    ("{not json", "bad_request", "expected a line of JSON"),
    ("[1, 2]", "bad_request", "expected a JSON object"),
    ('{"type": "sensors"}', "bad_request", "an integer `seq`"),
    ('{"seq": 1, "type": "dance"}', "unknown_request", "known: bye, free, has, lock"),
    ('{"seq": 1, "type": "has", "sha256": "../../etc/passwd"}', "bad_request", "expected a SHA-256"),
    ('{"seq": 1, "type": "has", "sha256": 5}', "bad_request", "`sha256`: expected a text, got 5"),
    ('{"seq": 1, "type": "lock", "token": "x", "owner": "o", "series": "s"}', "bad_request", "`token`"),
    ('{"seq": 1, "type": "lock", "token": 1, "owner": "o"}', "bad_request", "`series` is missing"),
    ('{"seq": 1, "type": "measure"}', "bad_request", "`settings`: expected an object"),
    ('{"seq": 1, "type": "measure", "settings": {"threads": 0}}', "bad_request", "at least 1, got 0"),
])
def test_a_wrong_request_gets_an_error_and_the_agent_goes_on(
        channel: Channel, line: str, code: str, words: str) -> None:
    _receive(channel)
    reply = _ask(channel, line)
    assert (reply["type"], reply["code"]) == ("error", code)
    assert words in reply["message"]
    assert _ask(channel, '{"seq": 7, "type": "free"}')["seq"] == 7


def test_every_reply_has_its_requests_number(channel: Channel) -> None:
    _receive(channel)
    for seq in (3, 4, 1000):
        channel.send(b'{"seq": %d, "type": "sensors"}' % seq)
    assert [_receive(channel)["seq"] for _ in range(3)] == [3, 4, 1000]


def test_bye_ends_the_agent(channel: Channel) -> None:
    _receive(channel)
    assert _ask(channel, '{"seq": 1, "type": "bye"}') == {"type": "ok", "seq": 1}


# -- runtimes that misbehave ----------------------------------------------------------------------


@pytest.fixture
def scripted(bench: Bench, tmp_path: Path) -> RuntimePlace:
    return RuntimePlace("litert", sys.executable, scripted_runtime(tmp_path))


def _script(tmp_path: Path, text: str) -> Artifact:
    path = tmp_path / "script.tflite"
    path.write_text(text)
    return Artifact.of(path)


def test_what_libraries_print_does_not_reach_the_conversation(
        bench: Bench, scripted: RuntimePlace, tmp_path: Path) -> None:
    inputs = np.array([[1, 0], [0, 1]], np.float32)
    session = bench.locked(runtime=scripted).measure(_script(tmp_path, "pass"), examples(tmp_path, inputs), QUICK)
    np.testing.assert_array_equal(session.outputs[0], [[1, 3], [2, 4]])


@pytest.mark.parametrize(("script", "error", "words"), [
    ("raise RuntimeError('op 3 failed to invoke')", InfeasibleCandidate, "does not run the artifact: op 3 failed"),
    ("raise MemoryError", InfeasibleCandidate, "does not run the artifact: no memory"),
    ("os.write(2, b'free(): invalid pointer\\n'); os.abort()", ArtifactDied, r"SIGABRT.*free\(\): invalid pointer"),
    ("raise KeyError('odd')", ArtifactDied, "exit code 70.*KeyError: 'odd'"),
    ("os._exit(0)", ArtifactDied, "exit code 0"),
    ("os.write(3, b'{half a line'); os.kill(os.getpid(), 9)", ArtifactDied, "SIGKILL"),
])
def test_failures_are_told_apart(bench: Bench, scripted: RuntimePlace, tmp_path: Path, script: str,
                                 error: type[Exception], words: str) -> None:
    runner = bench.locked(runtime=scripted)
    golden = examples(tmp_path, np.ones((1, 2), np.float32))
    with pytest.raises(error, match=f"(?s){words}") as caught:
        runner.measure(_script(tmp_path, script), golden, QUICK)
    assert type(caught.value) is error
    assert runner.measure(_script(tmp_path, "pass"), golden, QUICK).measurement.wall_ns


def test_timed_runs_time_the_runtime(bench: Bench, scripted: RuntimePlace, tmp_path: Path) -> None:
    """5 ms of sleep: wall time has it, CPU time has not."""
    runner = bench.locked(runtime=scripted)
    golden = examples(tmp_path, np.ones((1, 2), np.float32))
    measured = runner.measure(_script(tmp_path, "time.sleep(0.005)"), golden, QUICK).measurement
    assert 0.005 <= np.median(measured.wall_ns) * 1e-9 < 0.02
    assert np.median(measured.cpu_ns) * 1e-9 < 0.002


def test_warm_up_goes_on_until_the_runtime_is_steady(bench: Bench, scripted: RuntimePlace, tmp_path: Path) -> None:
    """A runtime that starts at 6 ms and gets 0.3 ms faster with every run, down to 1 ms."""
    script = "self.n = getattr(self, 'n', 0) + 1; time.sleep(max(0.001, 0.006 - 0.0003 * self.n))"
    settings = MeasureSettings(min_runs=20, max_runs=40, max_sampling_s=0.1, max_warmup_s=0.3, timeout_s=30)
    golden = examples(tmp_path, np.ones((1, 2), np.float32))
    measured = bench.locked(runtime=scripted).measure(_script(tmp_path, script), golden, settings).measurement
    assert measured.warmup_runs >= 15
    assert np.median(measured.wall_ns) * 1e-9 < 0.003


# -- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_sources_are_python_3_8(source: Path) -> None:
    ast.parse(source.read_text(), feature_version=(3, 8))


def test_the_zipapp_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = build_agent(tmp_path / "a.pyz"), build_agent(tmp_path / "deep" / "b.pyz")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.size_bytes < 100_000


def test_the_complaint_of_a_runtime_is_one_line() -> None:
    """Recorded: tflite-runtime 2.14 with NumPy 2.4.6."""
    stderr = ("A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.4.6 as it may crash.\n"
              "Traceback (most recent call last):\n  File \"agent.pyz/profilers/agent/zygote.py\", line 59, in _try\n"
              "AttributeError: _ARRAY_API not found\nImportError: numpy.core.multiarray failed to import\n\n"
              "The above exception was the direct cause of the following exception:\n\n"
              "SystemError: <built-in method> returned a result with an exception set")
    assert complaint(stderr) == (
        "built for NumPy 1, install numpy < 2; AttributeError: _ARRAY_API not found; "
        "ImportError: numpy.core.multiarray failed to import; "
        "SystemError: <built-in method> returned a result with an exception set")
    assert complaint("one\nld.so: GLIBC_2.34 not found") == "ld.so: GLIBC_2.34 not found"
    assert complaint("") == "it ended without a word"


def test_lines_are_joined_and_split() -> None:
    import os

    read, write = os.pipe()
    reader = lines.LineReader(read)
    for data, expected in ((b"on", []), (b"e\ntw", [b"one"]), (b"o\n\nthree\nfo", [b"two", b"", b"three"])):
        os.write(write, data)
        assert reader.fill()
        assert [line for line in iter(reader.pop, None)] == expected
    os.close(write)
    assert not reader.fill()
    assert reader.pop() is None
    os.close(read)


def test_a_long_line_is_written_whole() -> None:
    import os

    read, write = os.pipe()
    got: list[bytes] = []
    reader = lines.LineReader(read)

    def collect() -> None:
        while reader.fill():
            got.extend(iter(reader.pop, None))

    thread = threading.Thread(target=collect)
    thread.start()
    lines.write_line(write, b"x" * 1_000_000)
    os.close(write)
    thread.join()
    os.close(read)
    assert got == [b"x" * 1_000_000]


def test_the_interval_of_the_median_is_the_books() -> None:
    """n = 100: ranks 41 and 60 (100 / 2 -+ 9.8, rounded up)."""
    samples = [1000] * 100
    assert narrow(samples, 0.0)
    low = sorted([900] * 40 + [1000] * 60)
    assert narrow(low, 0.01)  # rank 41 is 1000
    assert not narrow(sorted([900] * 41 + [1000] * 59), 0.01)
    assert narrow([1000] * 60 + [1100] * 40, 0.01)  # rank 60 is 1000
    assert not narrow([1000] * 59 + [1100] * 41, 0.01)
    assert not narrow([1000] * 5, 0.5)  # too few for an interval
    assert narrow([1000] * 6, 0.01)


def test_the_interval_holds_the_median_in_95_percent() -> None:
    """The rank rule, on 2,000 samples of 50 from a log-normal distribution with median 1."""
    draws = np.sort(np.random.default_rng(0).lognormal(0, 0.5, (2000, 50)), axis=1)
    low, high = draws[:, 19 - 1], draws[:, 32 - 1]  # ceil(25 -+ 6.93)
    assert 0.93 < np.mean((low <= 1) & (high >= 1)) < 0.98


@pytest.mark.parametrize(("raw", "word"), [
    ("throttled=0x50000\n", "0x50000"), ("throttled=0x0", "0x0"), ("50005\n", "0x50005"), ("0", "0x0"),
    ("VCHI initialization failed\n", None), ("", None)])
def test_throttling_bits(raw: str, word: str | None) -> None:
    assert sensors.parse_throttled(raw) == word


def _write(root: Path, files: dict[str, str]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(root)


def test_sensors_of_a_raspberry_pi(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    root = _write(tmp_path, {
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48686\n",
        "sys/class/thermal/thermal_zone1/type": "rp1_adc\n",
        "sys/class/thermal/thermal_zone1/temp": "61200\n",
        f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "600000\n", f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "1500000\n",
        f"{cpu}/cpu0/cpufreq/scaling_governor": "ondemand\n", f"{cpu}/cpu1/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"})
    got = sensors.read(root)
    assert got["temperature_c"] == pytest.approx(48.686)
    assert (got["frequency_hz"], got["governor"], got["throttled"]) == (1.5e9, "ondemand", "0x50000")


def test_sensors_that_are_not_there(tmp_path: Path) -> None:
    root = _write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "not a number\n"})
    assert {**sensors.read(root), "load_1m": None} == {
        "temperature_c": None, "frequency_hz": None, "governor": None, "throttled": None, "load_1m": None}


def test_facts_of_a_raspberry_pi(tmp_path: Path) -> None:
    root = _write(tmp_path, {
        "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
                        "CPU implementer\t: 0x41\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
        "proc/meminfo": "MemTotal:        3885396 kB\nMemFree: 1 kB\n",
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "proc/sys/kernel/random/boot_id": "5f2a0cbe-0d1c-4a1e-9d53-1f2d3c4b5a69\n"})
    board = BoardFacts.from_json(facts.read(root))
    assert board.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert board.cpu_features == ("asimd", "cpuid", "crc32", "evtstrm", "fp")
    assert board.memory_bytes == 3885396 * 1024
    assert board.os == "Debian GNU/Linux 12 (bookworm)"
    assert board.boot_id == "5f2a0cbe-0d1c-4a1e-9d53-1f2d3c4b5a69"


def test_a_32_bit_system_on_a_64_bit_kernel_is_32_bit() -> None:
    assert facts.machine("aarch64", 8) == "aarch64"
    assert facts.machine("aarch64", 4) == "armv7l"
    assert facts.machine("armv6l", 4) == "armv6l"


def test_facts_without_proc_say_what_is_needed(tmp_path: Path) -> None:
    from device_farm.errors import AgentMismatch

    with pytest.raises(AgentMismatch, match="memory_bytes: expected a positive integer, got None; the agent needs"):
        BoardFacts.from_json(facts.read(str(tmp_path)))
