"""Whole searches on boards behind a real SSH server, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from device_farm.errors import AgentMismatch
from device_farm.inventory import BoardEntry, add_board
from device_farm.setup import setup_runtime
from device_farm.ssh import SSHTransport
from orchestrator.schemas.files import schema_of
from orchestrator.store.store import Store
from orchestrator.wiring import COMPILERS, agent_file, connector
from profilers.measurement import Measurement
from tests.boards import bare_python, fetched
from tests.orchestrator.made import run
from tests.sshd import Sshd, free_port, new_key, running_sshd

VERSIONS = {"litert": "2.3.0", "tflite-runtime": "2.14.0", "tvm": "0.26.0"}
MEASUREMENTS = 10
LIMIT_S = 600


@dataclass(frozen=True)
class Board:
    """A board that is set up, and nothing else on it."""

    server: Sshd
    entry: BoardEntry
    runtimes: Path
    """What was fetched for boards and for this machine."""


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A board on which nothing is installed."""
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def prepared(factory: pytest.TempPathFactory, *runtimes: str) -> Iterator[Board]:
    folder, cache = factory.mktemp(runtimes[0]), fetched(factory)
    python = bare_python(folder / "env")
    with running_sshd(folder / "sshd") as server:
        wanted = None if runtimes[0] == "tvm" else {"name": runtimes[0], "version": VERSIONS[runtimes[0]]}
        entry = server.entry("bench", python=str(python), runtime=wanted)
        transport = SSHTransport(entry)
        for runtime in runtimes:
            setup_runtime(transport, entry, cache, names=(runtime,))
        transport.close()
        yield Board(server, entry, cache / "runtimes")


@pytest.fixture(scope="session")
def litert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    yield from prepared(tmp_path_factory, "litert")


@pytest.fixture(scope="session")
def tflite_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    yield from prepared(tmp_path_factory, "tflite-runtime")


@pytest.fixture(scope="session")
def tvm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    yield from prepared(tmp_path_factory, "tvm")


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    yield from prepared(tmp_path_factory, "litert", "tvm")


@dataclass(frozen=True)
class Search:
    """A folder with an inventory of one board, and a store."""

    folder: Path

    @classmethod
    def of(cls, folder: Path, entry: BoardEntry, runtimes: Path | None = None) -> Search:
        add_board(folder / "inventory.yaml", entry)
        if runtimes is not None:
            (folder / ".orchestrator").mkdir()
            (folder / ".orchestrator" / "runtimes").symlink_to(runtimes)
        return cls(folder)

    def start(self, device: str = "x86-test", *more: str) -> subprocess.Popen[str]:
        words = ["search", "--device", device, "--model", "demo:separable", "--budget", "0.8x", "--sampler", "tpe"]
        words += ["--measurements", str(MEASUREMENTS), "--study", "s", "--format", "json", *more]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
        environ |= {"PYTHONPATH": str(Path(__file__).parents[2]), "XDG_DATA_HOME": str(self.folder / "data")}
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.app", *words],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for the end and return the document, checked against its schema."""
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode in (0, 1), err
        assert "Traceback" not in err
        document: dict[str, Any] = json.loads(out)
        jsonschema.validate(document, schema_of("search"))
        assert document["goal_met"] == (process.returncode == 0)
        return document

    def refused(self, code: int, device: str = "x86-test", *more: str) -> str:
        """Run to the failure and return its message, the only one beside the progress."""
        process = self.start(device, *more)
        out, err = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, out) == (code, ""), err
        assert "Traceback" not in err
        assert err.count("orchestrator: ") == 1
        return err.partition("orchestrator: ")[2]

    def measured(self) -> list[Measurement]:
        """Return every measurement in the store, confirmations included."""
        with Store.open(self.folder / ".orchestrator") as store:
            histories = store.histories(store.study("s").id)
            return [record.measurement for history in histories for record in history.measurements]


def check_result(document: dict[str, Any], search: Search, runtime: str) -> None:
    """Check that everything was measured on that board with that runtime, the winner too."""
    assert document["runtime"] == {"name": runtime, "version": VERSIONS[runtime]}
    assert document["boards"] == [{"name": "bench", "kind": "x86-test", "measurements": document["measurements"]}]
    assert 0 < document["measurements"] <= MEASUREMENTS
    assert document["simulated"] is False
    winner = document["winner"]
    assert winner["latency_s"]["confirmed"] is True
    assert 0 < winner["latency_s"]["median"] < 1
    assert winner["accuracy"]["test"] > 0.8
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    measurements = search.measured()
    assert len(measurements) > document["measurements"]
    for measurement in measurements:
        assert (measurement.board, measurement.kind, measurement.boot_id) == ("bench", "x86-test", boot)
        assert (measurement.runtime, measurement.runtime_version) == (runtime, VERSIONS[runtime])
        assert len(measurement.wall_ns) >= 20
        assert measurement.simulated is False
    assert Path(document["recipe"]).is_dir()


def test_a_search_over_ssh_survives_a_lost_connection(litert: Board, tmp_path: Path) -> None:
    search = Search.of(tmp_path, litert.entry, litert.runtimes)
    process = search.start()
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "#2 " in line:
            litert.server.kill_sessions()
            break
    else:
        pytest.fail(f"it ended before the third measurement:\n{''.join(said)}")
    document = search.result(process)
    check_result(document, search, "litert")
    assert [entry["name"] for entry in document["baselines"]] == [
        "float32", "fp16", "dynamic_int8", "weight_only_int8", "int8", "int4",
    ]  # fmt: skip
    assert document["baselines_absent"] == []
    assert document["infeasible"] == []
    log = (tmp_path / ".orchestrator" / "logs" / "s.log").read_text()
    assert re.search("running (a candidate|the reference) failed", log)


def test_a_whole_search_with_tflite_runtime_and_numpy_1(tflite_runtime: Board, tmp_path: Path) -> None:
    """Its environment has only tflite-runtime 2.14 and numpy 1.x, neither of which this process could use."""
    entry, server = tflite_runtime.entry, tflite_runtime.server
    folder = f"{server.root}/runtimes/tflite-runtime-2.14.0"
    script = "import importlib.util as u, numpy; print(numpy.__version__[0], u.find_spec('ai_edge_litert'))"
    transport = SSHTransport(entry)
    done = transport.run(["env", f"PYTHONPATH={folder}", entry.python, "-s", "-c", script], 60)
    transport.close()
    assert done.stdout == "1 None\n"
    search = Search.of(tmp_path, entry, tflite_runtime.runtimes)
    document = search.result(search.start())
    check_result(document, search, "tflite-runtime")
    assert [entry["name"] for entry in document["baselines"]] == ["float32", "fp16", "weight_only_int8", "int8"]
    absent = {entry["name"]: entry["reason"] for entry in document["baselines_absent"]}
    assert list(absent) == ["dynamic_int8", "int4"]
    assert "no layer of this network can take dynamic_w8" in absent["dynamic_int8"]
    assert "no layer of this network can take static_w4a8" in absent["int4"]


def test_a_whole_search_with_kernels_of_tvm(tvm: Board, tmp_path: Path) -> None:
    """Its environment has TVM's runtime and numpy alone: no compiler, no torch, nothing of LiteRT."""
    search = Search.of(tmp_path, tvm.entry, tvm.runtimes)
    document = search.result(search.start("x86-test", "--compiler", "tvm"))
    check_result(document, search, "tvm")
    assert [entry["name"] for entry in document["baselines"]][:3] == ["float32", "int8", "int4"]
    assert document["infeasible"] == []
    size = sum(file.stat().st_size for file in (tvm.server.root / "runtimes" / "tvm-0.26.0").rglob("*"))
    assert size < 100e6


def test_all_boards_of_a_kind_tune_its_kernels(tvm: Board, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "second") as server:
        other = server.entry("bench-2", python=tvm.entry.python)
        transport = SSHTransport(other)
        setup_runtime(transport, other, tvm.runtimes.parent, names=("tvm",))
        transport.close()
        search = Search.of(tmp_path, tvm.entry, tvm.runtimes)
        add_board(tmp_path / "inventory.yaml", other)
        done = run("tune", "--model", "demo:separable", "--device", "x86-test", "--schemes", "w4a8", "--format", "json",
                   cwd=search.folder, timeout_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["boards"] == ["bench", "bench-2"]
    assert document["measured"] == document["planned"] == len(document["kernels"]) > 2
    assert {kernel["board"] for kernel in document["kernels"]} == {"bench", "bench-2"}
    assert document["kind"] == "x86-test"


def test_a_kind_is_all_its_boards_and_one_that_is_lost_leaves_its_work(litert: Board, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "second") as server:
        other = server.entry("bench-2", python=litert.entry.python, runtime={"name": "litert", "version": "2.3.0"})
        transport = SSHTransport(other)
        setup_runtime(transport, other, litert.runtimes.parent, names=("litert",))
        transport.close()
        search = Search.of(tmp_path, litert.entry, litert.runtimes)
        add_board(tmp_path / "inventory.yaml", other)
        process = search.start("x86-test", "--measurements", "14")
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if "#9 " in line:
                server.stop()  # for good
                break
        document = search.result(process)
    shares = {board["name"]: board["measurements"] for board in document["boards"]}
    assert list(shares) == ["bench", "bench-2"] and min(shares.values()) >= 2
    assert sum(shares.values()) == document["measurements"] == 14
    assert document["infeasible"] == []
    measurements = search.measured()
    assert {m.board for m in measurements} == {"bench", "bench-2"}
    with Store.open(tmp_path / ".orchestrator") as store:
        histories = store.histories(store.study("s").id)
        assert store.leases.leases() == () and store.leases.requests() == ()
        whats = [event.what for event in store.leases.events("bench-2", 9)]
    assert whats == ["leased", "quarantined", "released"]
    confirmed = {m.measurement.board for h in histories for m in h.measurements if m.purpose.value == "confirm"}
    assert len(confirmed) == 1, "side by side"


def test_a_search_over_both_compilers_is_one_connection_to_the_board(both: Board, tmp_path: Path) -> None:
    """One agent serves LiteRT and TVM in turn: it holds the board's lock from the first measurement to the last.

    A second connection pushes what is measured next.
    """
    log = both.server.root.parent / "log"
    before = log.read_text().count("Accepted publickey")
    search = Search.of(tmp_path, both.entry, both.runtimes)
    document = search.result(search.start("x86-test", "--compiler", "tflite,tvm", "--baselines", "needed"))
    assert log.read_text().count("Accepted publickey") == before + 2
    assert [entry["name"] for entry in document["baselines"]] == ["float32", "tvm:float32"]
    shares = {own["name"]: own["measurements"] for own in document["compilers"]}
    assert sum(shares.values()) == document["measurements"] == MEASUREMENTS
    assert min(shares.values()) >= 3
    assert document["infeasible"] == []
    measurements = search.measured()
    order = [measurement.runtime for measurement in measurements]
    assert {(m.runtime, m.runtime_version) for m in measurements} == {(n, VERSIONS[n]) for n in ("litert", "tvm")}
    assert sum(one != two for one, two in pairwise(order)) >= 3, "they take turns"
    assert {measurement.board for measurement in measurements} == {"bench"}
    winner = document["winner"]
    assert winner["latency_s"]["confirmed"] is True
    assert winner["accuracy"]["test"] > 0.8
    artifact = {"tflite": "model.tflite", "tvm": "model.so"}[winner["compiler"]]
    assert (Path(document["recipe"]) / artifact).stat().st_size == winner["size_bytes"]


def test_a_board_that_lacks_one_of_two_runtimes_names_the_command(litert: Board, tmp_path: Path) -> None:
    message = Search.of(tmp_path, litert.entry, litert.runtimes).refused(3, "x86-test", "--compiler", "tflite,tvm")
    assert "bench has no runtime tvm-0.26.0 in " in message
    assert "install it with 'orchestrator devices setup bench --compiler tvm'" in message


def test_a_board_without_tvms_runtime_names_the_command(litert: Board, tmp_path: Path) -> None:
    message = Search.of(tmp_path, litert.entry, litert.runtimes).refused(3, "x86-test", "--compiler", "tvm")
    assert "bench has no runtime tvm-0.26.0" in message
    assert "install it with 'orchestrator devices setup bench --compiler tvm'" in message


def test_a_wrong_host_key_stops_the_search(sshd: Sshd, tmp_path: Path) -> None:
    entry = sshd.entry("bench", host_key=new_key(tmp_path / "other"))
    message = Search.of(tmp_path, entry).refused(3)
    assert "expected the pinned host key SHA256:" in message
    assert "orchestrator devices add --replace bench" in message


def test_a_board_that_is_off_stops_the_search(sshd: Sshd, tmp_path: Path) -> None:
    port = free_port()
    message = Search.of(tmp_path, sshd.entry("bench", port=port)).refused(3)
    assert f"127.0.0.1:{port}: connection refused" in message
    assert "tried 3 times" in message


def test_an_unknown_device_is_a_usage_error(sshd: Sshd, tmp_path: Path) -> None:
    message = Search.of(tmp_path, sshd.entry("bench")).refused(2, "x86-tset")
    assert "no board and no kind 'x86-tset'; did you mean 'x86-test'? Boards: bench, local, sim" in message


def test_a_board_that_was_not_set_up_names_the_command(sshd: Sshd, tmp_path: Path) -> None:
    entry = sshd.entry("bench", python=sys.executable)
    with pytest.raises(AgentMismatch, match="install it with 'orchestrator devices setup bench'"):
        connector(entry, tmp_path, agent_file(tmp_path), [COMPILERS["tflite"]])()
    with pytest.raises(AgentMismatch, match="no runtime litert-2.3.0, tvm-0.26.0 in .*bench --compiler tflite,tvm'"):
        connector(entry, tmp_path, agent_file(tmp_path), list(COMPILERS.values()))()
    assert list(sshd.root.iterdir()) == []


def test_a_full_disk_on_the_board_stops_the_search(litert: Board, tmp_path: Path) -> None:
    """It is full before the search begins."""
    runtimes = litert.server.root / "runtimes"
    mounts = f'mount -t tmpfs -o size=128k tmpfs "$root"; ln -s {runtimes} "$root/runtimes"'
    with running_sshd(tmp_path / "sshd", mounts=mounts) as server:
        entry = server.entry("bench", python=litert.entry.python, runtime={"name": "litert", "version": "2.3.0"})
        message = Search.of(tmp_path, entry).refused(3)
        transport = SSHTransport(entry)
        left = transport.run(["find", str(server.root), "-name", "*.part"], 10).stdout
        transport.close()
    assert "bench: disk: 0 MB free for" in message
    assert "20 MB are needed; remove files there" in message
    assert left == ""
