"""What a measurement costs beyond its timed runs: our agent behind a real OpenSSH server, and TVM's own RPC.

    .venv/bin/python -m benchmarks.rpc_overhead [--rounds 20]

Both measure the same artifact (residual, int8, tvm) on the same board, this machine by 127.0.0.1, in turns; the board
has a Python without packages and the runtime that `devices setup` brings. `start` is from no connection to a server
that takes work, `reconnect` the same once more: TVM's server is still running then, our agent starts anew, since it
ends with its connection. The others are wall times of a measurement less its timed runs: of an artifact that the board
does not have, and of one that it has. Ours then also has a process for every artifact, its SHA-256, sensors, memory,
and the times of its kernels. TVM's port is open to whoever reaches it; here that is this machine alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.emulated import built
from device_farm.board_entry import BoardEntry
from device_farm.setup import setup_runtime
from device_farm.ssh import SSHTransport
from orchestrator import wiring
from profilers.measurement import MeasureSettings
from profilers.runner import AgentRunner
from recipes.artifact import Artifact
from recipes.compilers.tvm.compiler import TvmCompiler
from recipes.compilers.tvm.host import host_target
from recipes.demo import networks
from recipes.demo.data import fashion_mnist
from recipes.models.network import Network
from recipes.ports import Array
from tests.boards import bare_python
from tests.sshd import free_port, running_sshd

RUNS = 100
"""Timed runs of a measurement."""
SETTINGS = MeasureSettings(min_runs=RUNS, max_runs=RUNS, max_sampling_s=60, max_warmup_s=0, max_profile_s=0)
START_S = 60.0
POLL_S = 0.01


@dataclass(frozen=True)
class Measured:
    """One measurement: seconds as the controller sees them, less the timed runs; and what it found."""

    overhead_s: float
    median_s: float
    outputs: Array


@dataclass
class Times:
    """Seconds, one of every round."""

    start: list[float] = field(default_factory=list)
    reconnect: list[float] = field(default_factory=list)
    new: list[Measured] = field(default_factory=list)
    known: list[Measured] = field(default_factory=list)


class Rig(Protocol):
    """A way to measure on the board."""

    def connect(self) -> None:
        """Come to where the next measurement can begin."""

    def disconnect(self) -> None:
        """Leave the board, as a controller that ends."""

    def measure(self, artifact: Path, is_new: bool) -> Measured:
        """Measure an artifact that the board has, or not."""

    def stop(self) -> None:
        """End everything that runs there."""


class Ours:
    """The agent over SSH, as a search uses it."""

    def __init__(self, entry: BoardEntry, folder: Path, golden: Path) -> None:
        self._golden = golden
        self._runner: AgentRunner | None = None
        self._connect = wiring.connector(entry, folder, wiring.agent_file(folder), [TvmCompiler()])

    def connect(self) -> None:
        runner = self._connect()
        assert isinstance(runner, AgentRunner)
        runner.acquire(time.time_ns(), "benchmarks.rpc_overhead")
        self._runner = runner

    def disconnect(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self._runner = None

    def measure(self, artifact: Path, is_new: bool) -> Measured:
        assert self._runner is not None
        given = Artifact.of(artifact)
        begun = time.perf_counter()
        session = self._runner.measure(given, self._golden, SETTINGS)
        took = time.perf_counter() - begun
        wall_ns = session.measurement.wall_ns
        return Measured(took - sum(wall_ns) / 1e9, statistics.median(wall_ns) / 1e9, session.outputs[0])

    def stop(self) -> None:
        self.disconnect()


class TvmRpc:
    """TVM's RPC server, started over SSH; its client is in this process."""

    def __init__(self, entry: BoardEntry, packages: str, golden: Path) -> None:
        self._entry, self._packages, self._port, self._pid = entry, packages, 0, 0
        with np.load(golden) as arrays:
            self._given = [arrays[name] for name in arrays.files]
        self._remote: Any = None

    def connect(self) -> None:
        from tvm import rpc

        if not self._pid:
            self._start()
        deadline = time.monotonic() + START_S
        while self._remote is None:
            try:
                self._remote = rpc.connect("127.0.0.1", self._port)
            except Exception:  # the server says nothing when it is ready, and what connect raises is not documented
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)

    def _start(self) -> None:
        self._port = free_port()
        self._transport = SSHTransport(self._entry)
        words = f"{self._entry.python} -s -m tvm.exec.rpc_server --host 127.0.0.1 --port {self._port} " \
                f"--port-end {self._port + 1}"
        self._channel = self._transport.open(["sh", "-c", f"echo $$; PYTHONPATH={self._packages} exec {words}"])
        self._pid = int(self._channel.receive(START_S))

    def disconnect(self) -> None:
        self._remote = None  # its end closes the connection

    def measure(self, artifact: Path, is_new: bool) -> Measured:
        import tvm

        begun = time.perf_counter()
        if is_new:
            self._remote.upload(str(artifact))
        device = self._remote.cpu()
        machine = tvm.runtime.vm.VirtualMachine(self._remote.load_module(artifact.name), device)
        machine.set_input("main", *(tvm.runtime.tensor(array[:1], device) for array in self._given))
        machine.invoke_stateful("main")
        outputs = machine.get_outputs("main")
        found = (outputs if hasattr(outputs, "numpy") else outputs[0]).numpy()
        timed = machine.time_evaluator("invoke_stateful", device, number=1, repeat=RUNS)("main").results
        took = time.perf_counter() - begun
        return Measured(took - sum(timed), statistics.median(timed), np.asarray(found))

    def stop(self) -> None:
        self.disconnect()
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGTERM)  # sshd made it the first of a group: the server and its workers
            self._channel.close()
            self._transport.close()
        self._pid = 0


@contextlib.contextmanager
def rigs(folder: Path) -> Iterator[tuple[dict[str, Rig], Path]]:
    """Start the board; yield both ways to measure on it and the artifact."""
    compiler, inputs = TvmCompiler(), {"x": np.asarray(fashion_mnist()["calibration"][:8])}
    model, ports = compiler.convert(Network(networks.residual().eval()), {"x": inputs["x"][:1]}, True)
    target = host_target("")
    made = built(compiler, model, compiler.calibrate(model, ports, inputs), target, "static_w8a8")
    assert made is not None
    artifact, golden = folder / "residual.so", folder / "golden.npz"
    artifact.write_bytes(made)
    encoded: dict[str, Any] = dict(ports.encode({"x": inputs["x"][:1]}))
    np.savez(golden, **encoded)
    with running_sshd(folder / "sshd") as server:
        entry = server.entry("loopback", python=str(bare_python(folder / "python")))
        transport = SSHTransport(entry)
        runtime = setup_runtime(transport, entry, folder / "cache", names=("tvm",))
        transport.close()
        both: dict[str, Rig] = {"orchestrator": Ours(entry, folder, golden),
                                "TVM's RPC": TvmRpc(entry, f"{runtime}:{_cloudpickle(folder)}", golden)}
        try:
            yield both, artifact
        finally:
            for rig in both.values():
                rig.stop()


def _cloudpickle(folder: Path) -> Path:
    """Fetch what TVM's server imports beyond the runtime."""
    goal = folder / "cloudpickle"
    subprocess.run([sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", goal, "cloudpickle>=3"],
                   check=True, capture_output=True)
    return goal


def measure(folder: Path, rounds: int) -> tuple[dict[str, Times], int]:
    """Return the times of both, and the artifact's bytes."""
    with rigs(folder) as (both, artifact):
        times = {name: Times() for name in both}
        for number in range(rounds):
            fresh = folder / f"{number}.so"  # the loader reads no further than the library
            fresh.write_bytes(artifact.read_bytes() + number.to_bytes(8, "little"))
            for name, rig in both.items():
                times[name].start.append(_took(rig.connect))
                rig.disconnect()
                times[name].reconnect.append(_took(rig.connect))
                times[name].new.append(rig.measure(fresh, True))
                times[name].known.append(rig.measure(fresh, False))
                rig.stop()
        return times, artifact.stat().st_size


def _took(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def table(times: dict[str, Times]) -> str:
    """Write one line for each thing, one column for each way: median, least and greatest."""
    rows: dict[str, list[str]] = {
        "start, ms": [_spread(each.start, 1e3) for each in times.values()],
        "reconnect, ms": [_spread(each.reconnect, 1e3) for each in times.values()],
        "new artifact: overhead, ms": [_spread([m.overhead_s for m in each.new], 1e3) for each in times.values()],
        "known artifact: overhead, ms": [_spread([m.overhead_s for m in each.known], 1e3) for each in times.values()],
        "its latency, us": [_spread([m.median_s for m in each.new + each.known], 1e6) for each in times.values()],
    }
    head = f"{'median (least to greatest)':30}" + "".join(f" {name:>30}" for name in times)
    lines = [f"{what:30}" + "".join(f" {cell:>30}" for cell in cells) for what, cells in rows.items()]
    return "\n".join([head, *lines])


def _spread(values: Sequence[float], unit: float) -> str:
    least, median, greatest = (unit * each for each in (min(values), statistics.median(values), max(values)))
    return f"{median:.1f}" if len(values) == 1 else f"{median:.1f} ({least:.1f} to {greatest:.1f})"


def report(folder: Path, rounds: int) -> str:
    """Return the table."""
    times, size = measure(folder, rounds)
    outputs = [m.outputs.ravel() for each in times.values() for m in each.new + each.known]
    assert all(np.array_equal(found, outputs[0]) for found in outputs), "both compute the same"
    return f"A measurement of {RUNS} runs, artifact of {size:,} bytes, {rounds} rounds in turns:\n{table(times)}"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(report(Path(place), asked.rounds))


if __name__ == "__main__":
    main()
