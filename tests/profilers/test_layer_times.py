"""What kernels take: read from the agent, and added up for each layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_farm.errors import AgentMismatch
from profilers.conversation import Message
from profilers.layer_times import layer_times
from profilers.measurement import KernelTime, Measurement, Sensors
from profilers.runner import read_kernels

PLAIN = Measurement(
    artifact_sha256="0" * 64, board="b", kind="k", boot_id="", runtime="tvm", runtime_version="0", agent_version="0",
    threads=1, wall_ns=(9_000, 10_000, 12_000), cpu_ns=(1, 1, 1), warmup_runs=1, load_s=0.0, before=Sensors(),
    after=Sensors(), peak_rss_bytes=None, simulated=False, session_s=1.0)


def timed(*calls: tuple[str, int]) -> Measurement:
    return replace(PLAIN, kernels=tuple(KernelTime(f"k{i}", layer, ns) for i, (layer, ns) in enumerate(calls)))


def test_what_the_callback_adds_is_taken_off_every_call() -> None:
    found = layer_times(timed(("a", 4_000), ("", 2_000), ("b", 6_000), ("a", 2_000)))
    assert sum(found.values()) == pytest.approx(10e-6)
    assert list(found) == ["a", "", "b"]
    assert found["a"] == pytest.approx(4e-6) and found["b"] == pytest.approx(5e-6) and found[""] == pytest.approx(1e-6)


def test_kernels_that_seem_faster_than_the_artifact_stay_as_they_were_read() -> None:
    assert layer_times(timed(("a", 3_000))) == {"a": pytest.approx(3e-6)}


def test_nothing_timed_is_nothing_known() -> None:
    assert layer_times(PLAIN) == {}


@pytest.mark.parametrize("rows", [None, "x", [["k", "a"]], [["k", "a", "fast"]], [["k", 1, 2]], [{}]])
def test_what_is_no_list_of_kernels_is_the_agents_fault(rows: object) -> None:
    with pytest.raises(AgentMismatch):
        read_kernels(Message({"type": "result", "kernels": rows}))
