"""`orchestrator doctor` on this computer, and on ones with something wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.doctor import diagnose
from orchestrator.schemas.doctor import Check
from tests.orchestrator.made import run

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def checks(tmp_path: Path, environ: Mapping[str, str] | None = None, store: str | None = None,
           inventory: str | None = None) -> dict[str, Check]:
    found = diagnose(store or str(tmp_path / "store"), inventory, environ or {}, tmp_path, tmp_path,
                     tmp_path / "cpu")
    return {check["name"]: check for check in found["checks"]}


def test_a_healthy_computer_passes_and_nothing_is_written(tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert {name: check["detail"] for name, check in found.items() if check["level"] == "error"} == {}
    assert "torch" in found["tflite"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_another_distribution_with_one_of_our_names_is_named(tmp_path: Path) -> None:
    other = tmp_path / "site" / "search_kit-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: search-kit\nVersion: 1.0\n")
    (other / "top_level.txt").write_text("search\n")
    done = run("doctor", "--format", "json", "--store", tmp_path / "store", cwd=tmp_path,
               environ={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 1
    (wrong,) = [check for check in json.loads(done.stdout)["checks"] if check["level"] == "error"]
    assert wrong["name"] == "package search"
    assert "search-kit" in wrong["detail"]
    assert "pip uninstall search-kit" in wrong["remedy"]


def test_without_the_extra_it_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.doctor._installed", lambda name: None if name == "torch" else "1.0")
    found = checks(tmp_path)
    assert found["tflite"]["level"] == "warning"
    assert "not installed: torch" in found["tflite"]["detail"]
    assert found["tflite"]["remedy"] == "pip install 'hil-orchestrator[tflite]'"
    assert found["tvm"]["level"] == "ok", "nobody needs both compilers"
    assert "--compiler tvm needs 'pip install hil-orchestrator[tvm]'" in found["tvm"]["detail"]
    assert found["dependencies"]["level"] == "error"
    assert "numpy 1.0 is outside" in found["dependencies"]["detail"]


@pytest.mark.parametrize("place", ["/proc/store", "/dev/null", "postgresql://host/db"])
def test_a_store_that_cannot_be_is_an_error(tmp_path: Path, place: str) -> None:
    found = checks(tmp_path, store=place)
    assert found["store"]["level"] == "error"
    assert found["store"]["remedy"] is not None


def test_a_wrong_inventory_is_an_error_and_a_right_one_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "inventory.yaml"
    file.write_text(f"schema: 1\nboards:\n  pi:\n    kind: rpi4\n    host: pi\n    user: me\n    host_key: {KEY}\n")
    assert "1 board" in checks(tmp_path)["inventory"]["detail"]
    file.write_text("schema: 1\nboards:\n  pi:\n    kinds: rpi4\n")
    wrong = checks(tmp_path)["inventory"]
    assert wrong["level"] == "error"
    assert "kinds" in wrong["detail"]


class TestKeys:
    @pytest.fixture
    def board(self, tmp_path: Path) -> Path:
        file = tmp_path / "inventory.yaml"
        file.write_text(f"schema: 1\nboards:\n  pi:\n    kind: rpi4\n    host: pi\n    user: me\n    host_key: {KEY}\n")
        return file

    def test_a_board_without_any_key_is_a_warning(self, tmp_path: Path, board: Path) -> None:
        assert board.exists()
        assert checks(tmp_path)["ssh keys"]["level"] == "warning"

    def test_the_users_own_key_will_do_unless_others_may_read_it(self, tmp_path: Path, board: Path) -> None:
        key = tmp_path / ".ssh" / "id_ed25519"
        key.parent.mkdir()
        key.touch(0o600)
        assert checks(tmp_path)["ssh keys"] == {
            "name": "ssh keys", "level": "ok", "detail": "~/.ssh/id_ed25519", "remedy": None}
        key.chmod(0o644)
        assert checks(tmp_path)["ssh keys"]["remedy"] == f"chmod 600 {key}"

    def test_a_key_of_the_inventory_that_is_not_there_is_an_error(self, tmp_path: Path, board: Path) -> None:
        with board.open("a") as file:
            file.write("    identity_file: ~/keys/pi\n")
        wrong = checks(tmp_path)["ssh keys"]
        assert wrong["level"] == "error"
        assert str(tmp_path / "keys" / "pi") in wrong["detail"]
        (tmp_path / "keys").mkdir()
        (tmp_path / "keys" / "pi").touch(0o600)
        assert checks(tmp_path)["ssh keys"]["level"] == "ok"

    def test_an_agent_that_is_gone_is_no_agent(self, tmp_path: Path, board: Path) -> None:
        assert checks(tmp_path, {"SSH_AUTH_SOCK": str(tmp_path / "gone")})["ssh keys"]["level"] == "warning"


@pytest.mark.parametrize(("governors", "level"), [
    (("performance", "performance"), "ok"), (("performance", "ondemand"), "warning"), ((), "ok")])
def test_a_governor_that_changes_the_clock_is_a_warning(tmp_path: Path, governors: tuple[str, ...], level: str) -> None:
    for number, governor in enumerate(governors):
        folder = tmp_path / "cpu" / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
    assert checks(tmp_path)["governor"]["level"] == level


def test_long_findings_hang_below_their_beginning(tmp_path: Path) -> None:
    for columns, lines in (("80", 2), ("400", 1)):
        printed = run("doctor", "--store", "store", cwd=tmp_path, environ={"COLUMNS": columns}).stdout.splitlines()
        start = next(number for number, line in enumerate(printed) if " tflite: " in line)
        shown = printed[start:start + lines]
        assert "torch" in shown[-1]
        assert all(len(line) <= int(columns) for line in shown)
        assert all(line.startswith(" " * 9) for line in shown[1:])


def test_text_says_what_to_do(tmp_path: Path) -> None:
    done = run("doctor", "--store", "/proc/store", cwd=tmp_path)
    assert done.returncode == 1
    assert "error    store: /proc/store" in done.stdout
    assert "-> choose another folder with --store" in done.stdout
    assert os.fspath(tmp_path) not in done.stderr
