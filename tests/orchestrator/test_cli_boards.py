"""`orchestrator devices power`, `ssh` and `logs` as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from device_farm.inventory import add_board
from device_farm.leases import Wanted
from device_farm.openssh import write_config
from orchestrator.schemas.files import schema_of
from orchestrator.store.store import Store
from tests.orchestrator.made import run
from tests.sshd import Sshd, new_key, running_sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def devices(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = run("devices", *words, cwd=folder)
    assert "Traceback" not in done.stderr
    return done


def document(folder: Path, *words: str) -> Any:
    done = devices(folder, *words, "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, schema_of(f"devices-{words[0]}"))
    return found


def test_ssh_logs_in_with_the_pinned_key_and_passes_the_status_on(sshd: Sshd, tmp_path: Path) -> None:
    add_board(tmp_path / "inventory.yaml", sshd.entry("pi"))
    done = devices(tmp_path, "ssh", "pi", "--", "sh", "-c", "'echo here; exit 7'")
    assert (done.returncode, done.stdout) == (7, "here\n"), done.stderr


def test_ssh_goes_through_jump_hosts(sshd: Sshd, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "jump") as jump:
        add_board(tmp_path / "inventory.yaml", sshd.entry("pi", jump=[jump.hop().model_dump()]))
        done = devices(tmp_path, "ssh", "pi", "echo", "behind")
        assert (done.returncode, done.stdout) == (0, "behind\n"), done.stderr
        log = (tmp_path / "jump" / "log").read_text()
    assert "Accepted publickey" in log


def test_ssh_refuses_another_key_than_the_pinned_one(sshd: Sshd, tmp_path: Path) -> None:
    add_board(tmp_path / "inventory.yaml", sshd.entry("pi", host_key=new_key(tmp_path / "other")))
    done = devices(tmp_path, "ssh", "pi", "echo", "in")
    assert done.returncode == 255 and done.stdout == ""
    assert "key" in done.stderr.lower()


def test_the_configuration_is_one_that_openssh_reads(sshd: Sshd, tmp_path: Path) -> None:
    config = write_config(sshd.entry("pi"), tmp_path)
    shown = subprocess.run(["ssh", "-G", "-F", str(config), "pi"], capture_output=True, text=True, check=True).stdout
    assert {f"port {sshd.port}", "stricthostkeychecking true", "identitiesonly yes",
            "hostname 127.0.0.1"} <= set(shown.splitlines())


def test_logs_come_from_the_boards_kernel_or_say_who_may_read_them(sshd: Sshd, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "journalctl").write_text("#!/bin/sh\nfor i in 1 2 3; do echo line $i of $*; done\n")
    (tools / "journalctl").chmod(0o755)
    path = f"{tools}:/usr/bin:/bin"
    add_board(tmp_path / "inventory.yaml", sshd.entry("pi", env={"PATH": path}))
    found = document(tmp_path, "logs", "pi", "--lines", "2")
    assert found["command"] == "journalctl"
    assert found["lines"] == [f"line {i} of -k --no-pager -n 2" for i in (2, 3)]
    (tools / "journalctl").write_text("#!/bin/sh\necho not permitted >&2; exit 1\n")
    (tools / "dmesg").write_text("#!/bin/sh\necho read kernel buffer failed >&2; exit 1\n")
    (tools / "dmesg").chmod(0o755)
    done = devices(tmp_path, "logs", "pi")
    assert done.returncode == 3
    assert "neither journalctl -k nor dmesg may be read" in done.stderr and "adduser $USER adm" in done.stderr


def test_power_is_switched_as_the_inventory_says_and_remembered(sshd: Sshd, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write(sys.argv[2])", str(log)]
    power = {"on_command": [*words, "+"], "off_command": [*words, "-"]}
    add_board(tmp_path / "inventory.yaml", sshd.entry("pi", power=power))
    assert document(tmp_path, "power", "pi", "cycle", "--store", "store") == {
        "schema": 1, "device": "pi", "action": "cycle"}
    assert log.read_text() == "-+"
    with Store.open(tmp_path / "store") as store:
        assert [event.what for event in store.leases.events("pi", 9)] == ["power cycle"]
        lease = store.leases.take(store.leases.ask(Wanted(("pi",), "ben@lab", "nightly")))
        assert lease is not None
        refused = devices(tmp_path, "power", "pi", "off", "--store", "store")
        assert refused.returncode == 2 and "ben@lab uses pi for nightly; --force switches it" in refused.stderr
        assert devices(tmp_path, "power", "pi", "off", "--store", "store", "--force").returncode == 0
    assert log.read_text() == "-+-"


@pytest.mark.parametrize(("words", "message"), [
    (["power", "pi", "cycle"], "the inventory does not say how pi's power is switched"),
    (["power", "pi", "up"], "'up' is not one of"),
    (["power", "local", "off"], "the inventory does not say how local's power is switched"),
    (["ssh", "local"], "local is built in: it is this computer"),
    (["logs", "local"], "local is built in"),
    (["logs", "pi", "--lines", "0"], "--lines: expected at least 1, got 0"),
    (["ssh", "nobody"], "no board and no kind 'nobody'"),
])
def test_bad_input_is_one_line(sshd: Sshd, words: list[str], message: str, tmp_path: Path) -> None:
    add_board(tmp_path / "inventory.yaml", sshd.entry("pi"))
    more = ["--store", "store"] if words[0] == "power" else []
    done = devices(tmp_path, *words, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
