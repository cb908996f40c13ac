"""`orchestrator tune`: the boards that share the work, going on after an interruption, and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from device_farm.errors import BoardUnreachable, FarmError
from device_farm.facts import BoardFacts
from device_farm.inventory import Inventory
from orchestrator import wiring
from orchestrator.bench import Bench
from orchestrator.executor import HostPool
from orchestrator.store.records import KernelRecord
from orchestrator.store.store import Store
from orchestrator.tune_boards import SESSIONS, SETTINGS, KernelReadings, TuningBoards
from profilers.measurement import KernelTime, MeasureSettings
from profilers.runner import MeasuredSession
from profilers.tile_choice import choose
from recipes.artifact import Artifact
from recipes.compilers.tvm.host import host_target
from recipes.compilers.tvm.kernels.convolution import Tile
from recipes.compilers.tvm.kernels.isa import isa_of
from recipes.compilers.tvm.kernels.window import Window
from recipes.compilers.tvm.templates import Template
from tests.orchestrator.made import run
from tests.orchestrator.tenants import tenant_of
from tests.orchestrator.test_bench import FACTS
from tests.profilers.test_layer_times import PLAIN

HOST = host_target("0.26.0")
LIMIT_S = 300.0


def kernel(channels: int) -> Template:
    window = Window(8, 8, channels, 32, (3, 3), (1, 1), (1, 1, 1, 1))
    return Template("CONV_2D", "w8a8", window, isa_of(HOST.machine, HOST.cpu_features).integer, 8,
                    (1, 8, 8, channels), (1, 8, 8, 32))


@dataclass
class Scripted:
    """A board that times tiles as it is told."""

    name: str
    outcome: Exception | None = None
    """What every measurement ends in, once `healthy` have succeeded."""
    healthy: int = 0
    sums: tuple[float, float] = (1.0, 1.0)
    """What the first tile and the others compute."""
    measured: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    runtimes: Mapping[str, str] = field(default_factory=lambda: {"tvm": "0.26.0"})

    @property
    def facts(self) -> BoardFacts:
        return FACTS

    def acquire(self, token: int, owner: str, series: str | None = None) -> None:
        pass

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings,
                runtime: str | None = None) -> MeasuredSession:
        if self.outcome is not None and len(self.measured) >= self.healthy:
            raise self.outcome
        self.measured.append(artifact.sha256)
        from recipes.compilers.tvm.readback import calls

        names = [name for name in calls(artifact.path.read_bytes()) if name.startswith(("conv_2d", "tally"))]
        count = len(names) // 2
        times = tuple(KernelTime(name, "", 1000 + 10 * place) for place, name in enumerate(names))
        outputs = tuple(np.array([self.sums[place > 0]], np.float32) for place in range(count))
        return MeasuredSession(replace(PLAIN, kernels=times), outputs)

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None,
            runtime: str | None = None) -> None:
        raise NotImplementedError

    def prefetch(self, artifact: Artifact, inputs: Path) -> None:
        pass

    def close(self) -> None:
        pass


class Deaths:
    def deaths(self, artifact_sha256: str, kind: str) -> int:
        return 0

    def add_death(self, artifact_sha256: str, board: str, kind: str, what: str) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostPool]:
    made = HostPool(2, tmp_path_factory.mktemp("pool") / "log")
    yield made
    made.shutdown()


def bench(runner: Scripted) -> Bench:
    return Bench(runner.name, "k", lambda: runner, tenant_of(runner.name), SETTINGS, Deaths())


def measured(boards: list[Scripted], pool: HostPool, folder: Path, kernels: int = 10) -> tuple[
        list[KernelReadings], list[str]]:
    notes: list[str] = []
    found: list[KernelReadings] = []
    TuningBoards([bench(board) for board in boards], HOST, pool, folder, False, notes.append).measure(
        [kernel(4 + place) for place in range(kernels)], found.append, lambda: False)
    return found, notes


def test_boards_share_the_kernels_and_each_is_measured_once(pool: HostPool, tmp_path: Path) -> None:
    boards = [Scripted("a"), Scripted("b")]
    found, notes = measured(boards, pool, tmp_path)
    assert [len(entry.turns) for entry in found] == [1] * 10
    assert all(entry.reason is None for entry in found)
    tried = 1  # the smallest kernel, on each
    assert sum(len(board.measured) - tried for board in boards) == 10 * SESSIONS
    assert {entry.board for entry in found} == {"a", "b"}, "both have worked"
    assert notes == []
    assert list(tmp_path.iterdir()) == [], "nothing is left of the libraries"


def test_a_board_that_is_lost_leaves_its_work_to_the_others(pool: HostPool, tmp_path: Path) -> None:
    boards = [Scripted("a", BoardUnreachable("off"), healthy=4), Scripted("b")]
    found, notes = measured(boards, pool, tmp_path)
    assert [len(entry.turns) for entry in found] == [1] * 10
    assert len(notes) == 1 and notes[0].startswith("a is lost, the other boards go on: off")


def test_without_any_board_it_ends_and_keeps_what_was_measured(pool: HostPool, tmp_path: Path) -> None:
    boards, kept = [Scripted("a", BoardUnreachable("off"), healthy=1 + 8 * SESSIONS)], list[KernelReadings]()
    with pytest.raises(FarmError, match="off"):
        TuningBoards([bench(boards[0])], HOST, pool, tmp_path, False, lambda text: None).measure(
            [kernel(4 + place) for place in range(10)], kept.append, lambda: False)
    assert len(kept) == 8, "the first batch was complete"


def test_tiles_that_compute_something_else_are_not_taken(pool: HostPool, tmp_path: Path) -> None:
    found, _ = measured([Scripted("a", sums=(1.0, 2.0))], pool, tmp_path, kernels=1)
    assert found[0].reason is not None and "it computes another result than with" in found[0].reason


def test_a_bad_default_is_tuned_away_on_this_machine(pool: HostPool, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.compilers.tvm.kernels.convolution.default_tile", lambda *arguments: Tile(1, 1))
    store, found = tmp_path / "store", list[KernelReadings]()
    store.mkdir()
    agent = wiring.agent_file(store)
    connect = wiring.connector(Inventory().find("local"), store, agent, [wiring.COMPILERS["tvm"]])
    with Bench("local", "local", connect, tenant_of("local"), SETTINGS, Deaths()) as held:
        TuningBoards([held], HOST, pool, tmp_path / "scratch", True, lambda text: None).measure(
            [kernel(32)], found.append, lambda: False)
    choice = choose(found[0].turns)
    assert choice.tile != Tile(1, 1)
    assert choice.best_ns < 0.7 * choice.default_ns


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    words = ["tune", "--model", "demo:separable", "--store", str(tmp_path / "store"), "--format", "json"]
    child = subprocess.Popen([sys.executable, "-m", "orchestrator.cli.app", *words], cwd=tmp_path, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    deadline = time.monotonic() + LIMIT_S
    while not _stored(tmp_path / "store"):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 130, err
    first = json.loads(out)
    assert first["interrupted"] and 0 < first["measured"] < first["planned"]
    assert "interrupted; what was measured is kept; continue with: the same command" in err
    done = run(*words, "--schemes", "w8a8,w4a8,w2a8,float32", "--time", "0.001s", cwd=tmp_path, timeout_s=LIMIT_S)
    later = json.loads(done.stdout)
    assert later["known"] == first["measured"] and later["measured"] == 0, "the time was over before the first batch"


def _stored(store: Path) -> tuple[KernelRecord, ...]:
    from recipes.compilers.tvm.link import templates_digest

    if not (store / "orchestrator.db").exists():
        return ()
    with Store.open(store) as found:
        return found.kernels("local", "0.26.0", templates_digest())


@pytest.mark.parametrize(("words", "message"), [
    (("--device", "sim"), "the simulated board knows LiteRT's times alone"),
    (("--device", "nix"), "no board and no kind 'nix'"),
    (("--schemes", "w8a8,,"), "--schemes: expected names such as w8a8,w4a8"),
    (("--time", "soon"), "--time: "),
    (("--model", "net.py"), "expected FILE.py:FACTORY")])
def test_bad_input_is_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run("tune", *words, "--store", tmp_path / "store", cwd=tmp_path, timeout_s=LIMIT_S)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
