"""The adapters of the search exam, on a simulator of three layers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks import search_adapter
from benchmarks.exam import Exam
from benchmarks.exam_table import HEAD, Outcome, line, row
from search.adaptive.graph import Floats, Ints
from search.samplers import SAMPLERS

SCHEMES = [("w4a8", 4, 8), ("w8a8", 8, 8), ("w8a16", 8, 16), ("fp32", 32, 32)]
SECONDS = np.array([0.45, 0.5, 1.2, 1.0]) * 1e-3
"""w8a16 is slower than float32: nothing for a scale."""
HARM = np.array([3.0, 0.5, 0.3, 0.0])
LEVELS = 3


class Spent(Exception):
    """More was measured than was allowed."""


@dataclass
class Network:
    names: list[str] = field(default_factory=lambda: ["a", "b", "c"])
    prune: list[str | None] = field(default_factory=lambda: ["own", "tied", None])
    pred: list[int] = field(default_factory=lambda: [-1, 0, 1])
    skip: list[int] = field(default_factory=lambda: [-1, -1, 0])

    def canon(self, config: Ints) -> Ints:
        found = np.array(config)
        found[1, 1], found[2, 1] = found[0, 1], 0
        return found

    def calib_logits(self, config: Ints) -> Floats:
        return np.array([[2.0 - self.harm(config) / 5, 0.0]])

    def harm(self, config: Ints) -> float:
        assert np.array_equal(config, self.canon(config)), "illegal"
        return float(HARM[config[:, 0]].sum() + 2 * config[:, 1].sum())


@dataclass
class Exercise:
    """What the exam calls a problem."""

    budget: float
    max_meas: int = 14
    L: int = 3
    m: Network = field(default_factory=Network)
    measured: list[tuple[bytes, bool]] = field(default_factory=list)

    @property
    def b(self) -> Any:
        board = ModuleType("board")
        board.kindof = ["conv", "dw", "fc"]  # type: ignore[attr-defined]
        return board

    @property
    def n_meas(self) -> int:
        return len(self.measured)

    def true(self, config: Ints) -> float:
        return float((SECONDS[config[:, 0]] * (1 - 0.25 * config[:, 1])).sum())

    def prior(self) -> Any:
        layers = np.array([[[[s * (1 - 0.25 * own) for own in range(LEVELS)] for _ in range(LEVELS)] for s in SECONDS]
                           for _ in range(3)])
        return layers, [(0, 1, 1.0), (1, 2, 1.0), (0, 2, 0.7)], np.zeros((3, LEVELS)), 0.0

    def host(self, config: Ints) -> tuple[float, float]:
        return 90 - self.m.harm(config), 0.1

    def measure(self, config: Ints) -> tuple[float, float, float]:
        self.log(config, False)
        return self.true(config), self.host(config)[0], 0.1

    def measure_profiled(self, config: Ints) -> tuple[Floats, float, float]:
        self.log(config, True)
        return SECONDS[config[:, 0]] * (1 - 0.25 * config[:, 1]) + 4e-6, self.host(config)[0], 0.1

    def log(self, config: Ints, profiled: bool) -> None:
        if self.n_meas >= self.max_meas:
            raise Spent
        self.measured.append((np.asarray(config, np.int64).tobytes(), profiled))


@pytest.fixture(autouse=True)
def simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("simulator")
    contents = {"SCHEMES": SCHEMES, "WB": np.array([s[1] for s in SCHEMES]), "AB": np.array([s[2] for s in SCHEMES]),
                "FMT": np.array([0, 0, 1, 2]), "PRUNE": [0.0, 0.25, 0.5],
                "SID": {s[0]: i for i, s in enumerate(SCHEMES)}}
    for name, value in contents.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "simulator", module)


@pytest.mark.parametrize("name", ["search", *SAMPLERS])
def test_every_sampler_starts_with_a_profile_and_ships_what_meets_the_budget(name: str) -> None:
    problem = Exercise(budget=1.2e-3)
    choice = getattr(search_adapter, name)(problem, problem.max_meas, np.random.default_rng(0))
    assert choice is not None
    assert problem.true(choice) <= problem.budget
    int8 = np.array([[1, 0]] * 3, np.int64)
    assert problem.measured[0] == (int8.tobytes(), True)
    assert problem.n_meas <= problem.max_meas
    known = [config for config, _ in problem.measured]
    assert np.asarray(choice, np.int64).tobytes() in known


def test_ohq_profiles_its_table_and_nothing_else() -> None:
    problem = Exercise(budget=1.2e-3)
    search_adapter.search_with("ohq")(problem, problem.max_meas, np.random.default_rng(0))
    profiled = [flag for _, flag in problem.measured]
    assert profiled[:6] == [True] * 6, "four schemes, two levels"
    assert not any(profiled[6:])


def test_what_knows_nothing_is_given_uniform_pruned_int8_until_it_fits() -> None:
    problem = Exercise(budget=1.3e-3)
    search_adapter.search_with("random")(problem, problem.max_meas, np.random.default_rng(0))
    second = np.frombuffer(problem.measured[1][0], np.int64).reshape(3, 2)
    assert second.tolist() == [[1, 1], [1, 1], [1, 0]]
    assert problem.true(second) <= problem.budget


def test_the_scale_leaves_out_what_a_wider_scheme_beats() -> None:
    exam = Exam(Exercise(budget=1e-3))
    ladder = exam.ladder(exam.prior())
    assert [exam.pairs[2][o] for o in ladder[2]] == [(3, 0), (1, 0), (0, 0)], "fp32, w8a8, w4a8"
    assert len(ladder[0]) == 3 * LEVELS


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="no sampler is called 'grid'; known: search, adaptive, tpe"):
        _ = search_adapter.grid


def test_a_row_of_the_table() -> None:
    one = Outcome("hawq", (40.0, 3.0, 3.0, 2.0, 1.0), 2, True, 1.0, 30, 10.0)
    two = Outcome("hawq", (40.0, 40.0, 40.0, 40.0, 40.0, 4.0), 6, False, 40.0, 40, 30.0)
    assert row([one, two], 8) == ["hawq", "21.00", "2.50", "", "", "", "1/2", "1/2", "20.50", "35", "20"]
    assert len(row([one, two], 8)) == len(HEAD)
    assert line(row([one, two], 8)).startswith("| hawq | 21.00 | 2.50 |")


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "holds no simulator.py and no best_known.json; give the folder of the simulator"),
    (("--samplers", "grid"), "--samplers: no sampler is called 'grid'; known: adaptive, tpe")])
def test_what_is_missing_is_said(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    if arguments:
        for name in ("simulator.py", "best_known.json"):
            (tmp_path / name).write_text("{}")
    done = subprocess.run([sys.executable, "-m", "benchmarks.exam_table", str(tmp_path), *arguments],
                          cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
