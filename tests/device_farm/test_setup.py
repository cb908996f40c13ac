"""Set-up for real: runtimes come from the package index and are installed over SSH."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_farm.board_entry import BoardEntry, RuntimeSpec
from device_farm.check import check_board
from device_farm.errors import PushFailed, SetupFailed
from device_farm.probe import PythonProbe
from device_farm.runtime import TFLITE as RUNTIMES_OF_TFLITE
from device_farm.runtime import choose_runtime
from device_farm.setup import setup_runtime
from device_farm.ssh import SSHTransport
from device_farm.wheels import archive, platforms
from tests.boards import bare_python, fetched
from tests.sshd import Sshd, running_sshd

LITERT = RuntimeSpec(name="litert", version="2.3.0")
TFLITE = RuntimeSpec(name="tflite-runtime", version="2.14.0")
ELF_AARCH64 = 183


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetched(tmp_path_factory)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(bare_python(tmp_path_factory.mktemp("bare") / "env"))


@dataclass
class Board:
    server: Sshd
    entry: BoardEntry
    transport: SSHTransport
    cache: Path

    def setup(self, *names: str) -> list[str]:
        """Set the board up and return what was said."""
        said: list[str] = []
        self.folder = setup_runtime(self.transport, self.entry, self.cache, said.append, names or RUNTIMES_OF_TFLITE)
        return said

    def ask(self, script: str) -> str:
        """Run Python on the board as the agent would, and return what it prints."""
        done = self.transport.run(["env", f"PYTHONPATH={self.folder}", self.entry.python, "-s", "-c", script], 60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def board(tmp_path: Path, cache: Path, python: str) -> Iterator[Board]:
    with running_sshd(tmp_path / "sshd") as server:
        entry = server.entry("pi", python=python)
        transport = SSHTransport(entry)
        yield Board(server, entry, transport, cache)
        transport.close()


def test_litert_is_installed_and_a_second_time_there_is_nothing_to_do(board: Board) -> None:
    said = board.setup()
    assert [line.split()[0] for line in said] == ["fetching", "pushing", "unpacking", "litert"]
    assert board.folder == f"{board.server.root}/runtimes/litert-2.3.0"
    assert board.ask("from ai_edge_litert.interpreter import Interpreter; print(Interpreter.__name__)") == "Interpreter"
    assert board.ask("import numpy; print(numpy.__file__)").startswith(f"{board.folder}/numpy/")
    assert [path.name for path in (board.server.root / "runtimes").iterdir()] == ["litert-2.3.0"]
    installed = (board.server.root / "runtimes" / "litert-2.3.0").stat()
    (again,) = board.setup()
    assert again.startswith("litert 2.3.0 with numpy 2.")
    assert again.endswith("is there already: nothing to do")
    assert (board.server.root / "runtimes" / "litert-2.3.0").stat() == installed
    runtime = next(finding for finding in check_board(board.transport, board.entry) if finding.what == "runtime")
    assert (runtime.level, runtime.detail.split(" with ")[0]) == ("ok", "litert 2.3.0")


def test_tflite_runtime_brings_numpy_1_and_a_damaged_one_is_installed_again(board: Board) -> None:
    board.entry = board.entry.model_copy(update={"runtime": TFLITE})
    assert board.setup()[-1].startswith("tflite-runtime 2.14.0 with numpy 1.")
    script = "import numpy, tflite_runtime.interpreter as i; print(numpy.__version__[:2], i.Interpreter.__name__)"
    assert board.ask(script) == "1. Interpreter"
    (board.server.root / "runtimes" / "tflite-runtime-2.14.0" / "numpy" / "__init__.py").unlink()
    said = board.setup()
    assert said[0].startswith("tflite-runtime-2.14.0 is there but does not run")
    assert said[0].endswith("installing it again")
    assert said[-1].startswith("tflite-runtime 2.14.0 with numpy 1.")
    assert board.ask(script) == "1. Interpreter"
    assert [path.name for path in (board.server.root / "runtimes").iterdir()] == ["tflite-runtime-2.14.0"]


def test_tvms_runtime_comes_without_its_compiler_and_beside_the_other(board: Board) -> None:
    assert [finding.detail for finding in check_board(board.transport, board.entry) if finding.what == "runtime"] == [
        "litert-2.3.0 is not installed"]
    assert board.setup("tvm")[-1].startswith("tvm 0.26.0 with numpy 2.")
    script = "import tvm.runtime.vm, tvm; from tvm.base import _RUNTIME_ONLY; print(_RUNTIME_ONLY, tvm.__file__)"
    assert board.ask(script) == f"True {board.folder}/tvm/__init__.py"
    assert not list(Path(board.folder).rglob("libtvm_compiler*"))
    details = [finding.detail for finding in check_board(board.transport, board.entry) if finding.what == "runtime"]
    assert details[1].startswith("tvm 0.26.0 with numpy 2.")
    assert board.setup("tvm")[-1].endswith("is there already: nothing to do")


def test_a_disk_that_fills_up_is_named_and_nothing_is_left(tmp_path: Path, cache: Path, python: str) -> None:
    for size, error, words in (
        ("8m", PushFailed, "the disk is full"),
        ("30m", SetupFailed, "cannot unpack .*No space left on device"),
    ):
        with running_sshd(tmp_path / size, mounts=f'mount -t tmpfs -o size={size} tmpfs "$root"') as server:
            entry = server.entry("pi", python=python, runtime=TFLITE.model_dump())
            transport = SSHTransport(entry)
            with pytest.raises(error, match=words):
                setup_runtime(transport, entry, cache)
            assert transport.run(["ls", "-A", f"{server.root}/runtimes"], 10).stdout == ""
            transport.close()


def test_a_version_that_does_not_exist_is_named(board: Board) -> None:
    board.entry = board.entry.model_copy(update={"runtime": RuntimeSpec(name="litert", version="2.3.999")})
    with pytest.raises(SetupFailed, match=r"cannot fetch ai-edge-litert==2\.3\.999 for Python 3\.\d+ on x86_64, glibc"):
        board.setup()
    assert list(board.server.root.iterdir()) == []


def test_the_wheels_for_a_pi_are_resolved_on_this_machine(cache: Path) -> None:
    plan = choose_runtime("aarch64", PythonProbe((3, 11, 2), 64, "CPython", ()), (2, 36))
    assert plan.folder_name == "litert-2.3.0"
    fetched_once = archive(plan, cache)
    before = fetched_once.stat()
    assert archive(plan, cache).stat() == before, "it was fetched again"
    with tarfile.open(fetched_once) as tar:
        names = tar.getnames()
        libraries = [name for name in names if name.endswith(".so") or ".so." in name]
        heads = {name: tar.extractfile(name) for name in libraries}
        machines = {name: struct.unpack("<H", file.read(20)[18:20])[0] for name, file in heads.items() if file}
    assert "ai_edge_litert/interpreter.py" in names
    assert "numpy/__init__.py" in names
    assert len(machines) > 5
    assert set(machines.values()) == {ELF_AARCH64}


class TestPlanning:
    @pytest.mark.parametrize(
        ("machine", "version", "glibc", "wanted", "folder"),
        [
            ("aarch64", (3, 11, 2), (2, 36), None, "litert-2.3.0"),
            ("x86_64", (3, 13, 0), (2, 41), None, "litert-2.3.0"),
            ("aarch64", (3, 9, 2), (2, 31), None, "tflite-runtime-2.14.0"),
            ("armv7l", (3, 11, 2), (2, 36), None, "tflite-runtime-2.14.0"),
            ("aarch64", (3, 11, 2), (2, 36), TFLITE, "tflite-runtime-2.14.0"),
        ],
    )
    def test_a_board_gets_the_best_that_it_can_execute(
        self,
        machine: str,
        version: tuple[int, int, int],
        glibc: tuple[int, int],
        wanted: RuntimeSpec | None,
        folder: str,
    ) -> None:
        bits = 32 if machine == "armv7l" else 64
        assert choose_runtime(machine, PythonProbe(version, bits, "CPython", ()), glibc, wanted).folder_name == folder

    @pytest.mark.parametrize(
        ("machine", "version", "implementation", "glibc", "wanted", "words"),
        [
            (
                "riscv64",
                (3, 11, 2),
                "CPython",
                (2, 36),
                None,
                "litert needs aarch64 or x86_64, got riscv64; tflite-run",
            ),
            ("aarch64", (3, 7, 3), "CPython", (2, 28), None, "tflite-runtime needs Python 3.8 to 3.11, got 3.7"),
            (
                "aarch64",
                (3, 12, 3),
                "CPython",
                (2, 31),
                None,
                "litert needs glibc 2.34 or newer, got 2.31; tflite-runt",
            ),
            ("aarch64", (3, 11, 2), "PyPy", (2, 36), None, "litert needs CPython, got PyPy"),
            ("aarch64", (3, 11, 2), "CPython", None, None, "its C library is not glibc"),
            ("aarch64", (3, 9, 2), "CPython", (2, 36), LITERT, "litert needs Python 3.10 to 3.14, got 3.9. Install"),
        ],
    )
    def test_a_board_that_can_execute_none_is_told_why(
        self,
        machine: str,
        version: tuple[int, int, int],
        implementation: str,
        glibc: tuple[int, int] | None,
        wanted: RuntimeSpec | None,
        words: str,
    ) -> None:
        with pytest.raises(SetupFailed) as caught:
            choose_runtime(machine, PythonProbe(version, 64, implementation, ()), glibc, wanted)
        assert words in str(caught.value)

    def test_the_tags_go_from_the_boards_glibc_downwards(self) -> None:
        tags = platforms("aarch64", (2, 19))
        assert tags == [
            "manylinux_2_19_aarch64",
            "manylinux_2_18_aarch64",
            "manylinux_2_17_aarch64",
            "manylinux2014_aarch64",
            "linux_aarch64",
        ]


def test_an_unsupported_board_is_refused_before_anything_is_fetched(tmp_path: Path, board: Board) -> None:
    """Its Python answers, but is none that a runtime has wheels for: constructed."""
    old = tmp_path / "python"
    answer = '{"version": [3, 6, 9], "bits": 64, "implementation": "CPython", "runtimes": []}'
    old.write_text(f"#!/bin/sh\necho '{answer}'\n")
    old.chmod(0o755)
    board.entry = board.entry.model_copy(update={"python": str(old)})
    said: list[str] = []
    with pytest.raises(SetupFailed, match=r"no runtime fits: litert needs Python 3\.10 to 3\.14, got 3\.6"):
        setup_runtime(board.transport, board.entry, tmp_path / "cache", said.append)
    assert said == []
    assert not (tmp_path / "cache").exists()
