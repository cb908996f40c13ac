"""`orchestrator devices` as a user runs it, against real SSH servers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from device_farm.inventory import Inventory, RuntimeSpec, add_board
from device_farm.local import LocalTransport
from device_farm.probe import probe_board
from device_farm.runtime import plan_runtime
from device_farm.wheels import archive
from orchestrator.schemas.files import schema_of
from tests.boards import bare_python, fetched
from tests.sshd import Sshd, fingerprint, free_port, new_key, running_sshd


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class User:
    """Someone at a command line in an empty folder."""

    folder: Path

    def run(self, *words: str, answer: str | None = None) -> Result:
        """Run a verb of `orchestrator devices`; with `answer`, at a terminal."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_")}
        environ.pop("COLUMNS", None)
        environ["XDG_DATA_HOME"] = str(self.folder / "data")
        command = [sys.executable, "-m", "orchestrator.cli.app", "devices", *words]
        environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        if answer is None:
            done = subprocess.run(
                command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                check=False, timeout=120,
            )  # fmt: skip
        else:
            ours, theirs = pty.openpty()
            try:
                os.write(ours, f"{answer}\n".encode())
                done = subprocess.run(
                    command, cwd=self.folder, env=environ, stdin=theirs, capture_output=True, text=True,
                    check=False, timeout=120,
                )  # fmt: skip
            finally:
                os.close(ours)
                os.close(theirs)
        assert "Traceback" not in done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def document(self, *words: str, code: int = 0) -> Any:
        """Run a verb with --format json and return what it prints, checked against its schema."""
        done = self.run(*words, "--format", "json")
        assert done.code == code, done.err
        document = json.loads(done.out)
        jsonschema.validate(document, schema_of(f"devices-{words[0]}"))
        assert document["schema"] == 1
        return document

    def refused(self, *words: str, code: int = 2) -> str:
        """Run a verb that must fail without a result, and return the one message."""
        done = self.run(*words)
        assert (done.code, done.out) == (code, ""), done.err
        return done.err

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.yaml"


@pytest.fixture
def user(tmp_path: Path) -> User:
    (tmp_path / "here").mkdir()
    return User(tmp_path / "here")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def way(server: Sshd) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(server.port), "--user", server.user,
            "--identity-file", str(server.identity_file)]  # fmt: skip


def shown(server: Sshd) -> str:
    return fingerprint(server.root.parent / "host.pub")


class TestAdding:
    def test_the_first_board_makes_an_inventory_here(self, user: User, sshd: Sshd) -> None:
        done = user.run("add", "pi-a", *way(sshd), "--kind", "rpi4", "--python", "/usr/bin/python3", "--yes")
        assert done.code == 0, done.err
        assert f"127.0.0.1:{sshd.port} shows the host key {shown(sshd)} (ssh-ed25519)" in done.err
        assert done.out == (
            f"pi-a is in {user.inventory} (made)\nthe connection works; next: orchestrator devices setup pi-a\n"
        )
        entry = Inventory.load(user.inventory).find("pi-a")
        assert (entry.kind, entry.host_key, entry.python) == ("rpi4", sshd.host_key, "/usr/bin/python3")
        assert entry.identity_file == str(sshd.identity_file)
        listed = user.run("list").out.splitlines()
        assert listed[1].split() == ["pi-a", "rpi4", f"{sshd.user}@127.0.0.1:{sshd.port}", "newest"]

    def test_the_document_says_the_same(self, user: User, sshd: Sshd) -> None:
        there = user.folder / "lab.yaml"
        document = user.document("add", "pi-a", *way(sshd), "--yes", "--inventory", "lab.yaml")
        assert (document["inventory"], document["inventory_created"]) == (str(there), True)
        assert document["connected"] is True
        assert (document["device"]["kind"], document["device"]["fingerprint"]) == ("pi-a", shown(sshd))
        twin = user.refused("add", "pi-b", *way(sshd), "--yes", "--inventory", "lab.yaml")
        assert f"{there}: its address 127.0.0.1:{sshd.port} is that of 'pi-a': a board has one name" in twin
        elsewhere = ["localhost" if word == "127.0.0.1" else word for word in way(sshd)]
        again = user.document("add", "pi-b", *elsewhere, "--yes", "--inventory", "lab.yaml")
        assert again["inventory_created"] is False
        assert not user.inventory.exists()
        listed = user.document("list", "--inventory", "lab.yaml")
        assert [device["name"] for device in listed["devices"]] == ["pi-a", "pi-b", "local", "sim"]

    def test_without_a_terminal_it_refuses_and_writes_nothing(self, user: User, sshd: Sshd) -> None:
        message = user.refused("add", "pi-a", *way(sshd))
        assert shown(sshd) in message
        assert "there is no terminal to ask at; to pin the key without asking, give --yes" in message
        assert not user.inventory.exists()

    def test_at_a_terminal_the_user_decides(self, user: User, sshd: Sshd) -> None:
        done = user.run("add", "pi-a", *way(sshd), answer="n")
        assert (done.code, done.out) == (1, "")
        assert "ssh-keygen -lf" in done.err
        assert "nothing was changed" in done.err
        assert not user.inventory.exists()
        assert user.run("add", "pi-a", *way(sshd), answer="y").code == 0
        assert Inventory.load(user.inventory).find("pi-a").host_key == sshd.host_key

    def test_a_board_that_shows_no_key_is_not_written(self, user: User) -> None:
        message = user.refused("add", "pi-a", "--host", "127.0.0.1", "--port", str(free_port()), "--yes", code=3)
        assert "no connection" in message
        assert not user.inventory.exists()

    def test_a_board_that_refuses_the_key_is_written_and_the_remedy_named(
        self, user: User, sshd: Sshd, tmp_path: Path
    ) -> None:
        new_key(tmp_path / "stranger")
        options = ["--host", "127.0.0.1", "--port", str(sshd.port), "--identity-file", str(tmp_path / "stranger")]
        done = user.run("add", "pi-a", *options, "--yes")
        assert done.code == 3
        assert f"ssh-copy-id -i {tmp_path}/stranger -p {sshd.port}" in done.err
        assert "pi-a stays in the inventory; when this is mended: orchestrator devices check pi-a" in done.err
        assert Inventory.load(user.inventory).find("pi-a").port == sshd.port
        options[1] = "localhost"
        document = user.document("add", "pi-b", *options, "--yes", code=3)
        assert document["connected"] is False
        assert "ssh-copy-id" in document["connection_failed_because"]

    def test_a_board_behind_a_jump_host_has_both_keys_pinned(self, user: User, sshd: Sshd, tmp_path: Path) -> None:
        with running_sshd(tmp_path / "jump") as jump:
            (jump.root.parent / "authorized_keys").write_text((sshd.root.parent / "client.pub").read_text())
            hop = f"{jump.user}@127.0.0.1:{jump.port}"
            document = user.document("add", "pi-a", *way(sshd), "--jump", hop, "--yes")
            assert (document["connected"], document["device"]["jump"]) == (True, [hop])
            entry = Inventory.load(user.inventory).find("pi-a")
            assert (entry.host_key, entry.jump[0].host_key) == (sshd.host_key, jump.host_key)
            assert f"{hop} -> {sshd.user}@127.0.0.1:{sshd.port}" in user.run("list").out
            other = new_key(tmp_path / "other")
            wrong = entry.model_copy(update={"jump": (entry.jump[0].model_copy(update={"host_key": other}),)})
            add_board(user.inventory, wrong, replace=True)
            done = user.run("add", "pi-a", "--replace", "--yes")
            assert done.code == 3
            assert done.err.rstrip().endswith(f"orchestrator devices add --replace --jump {hop} pi-a")
            assert user.run("add", "--replace", "--jump", hop, "pi-a", "--yes").code == 0
            assert Inventory.load(user.inventory).find("pi-a").jump[0].host_key == jump.host_key

    def test_a_new_host_key_is_pinned_by_the_command_that_the_error_names(
        self, user: User, sshd: Sshd, tmp_path: Path
    ) -> None:
        old = new_key(tmp_path / "old")
        add_board(user.inventory, sshd.entry("pi-a", host_key=old, notes="mine", python=sys.executable))
        refused = user.run("check", "pi-a")
        assert refused.code == 3
        assert f"expected the pinned host key {fingerprint(tmp_path / 'old.pub')} (ssh-ed25519), got" in refused.out
        assert "orchestrator devices add --replace pi-a" in refused.out
        done = user.run("add", "--replace", "pi-a", "--yes")
        assert done.code == 0, done.err
        assert f"It is NOT the one that the inventory pins: {fingerprint(tmp_path / 'old.pub')}" in done.err
        assert Inventory.load(user.inventory).find("pi-a") == sshd.entry("pi-a", notes="mine", python=sys.executable)
        assert user.run("add", "--replace", "pi-a", "--kind", "rpi4").code == 0
        assert Inventory.load(user.inventory).find("pi-a").kind == "rpi4"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["pi-a"], "--host is missing: the name or address of 'pi-a'"),
            (["Pi A", "--host", "h"], "name: expected small letters, digits, '.', '_' and '-', beginning with"),
            (["local", "--host", "h"], "'local' is built in: choose another name"),
            (["pi", "--host", "h", "--kind", "sim"], "kind 'sim' is built in: choose another"),
            (["pi", "--host", "me@h"], "host: expected one word without '@' (host and user are two keys), got 'me@h'"),
            (["pi", "--host", "h", "--port", "0"], "port: expected a whole number from 1 to 65535, got 0"),
            (["pi", "--host", "h", "--port", "x"], "Invalid value for '--port': expected a whole number, got 'x'"),
            (["pi", "--host", "h", "--inventory", "."], "expected a file, this is a folder; is it "),
            (["pi", "--host", "h", "--identity-file", "gone"], "--identity-file: no such file: "),
            (
                ["pi", "--host", "h", "--jump", "a@b@c"],
                "--jump: expected USER@HOST:PORT, e.g. me@gate.lab:22, got 'a@b",
            ),
            (["pi", "--host", "h", "--jump", "gate:99999"], "--jump gate:99999: expected a port from 1 to 65535"),
        ],
    )
    def test_bad_input_is_refused_before_anything_is_asked(self, user: User, words: list[str], message: str) -> None:
        refused = user.refused("add", *words, "--yes")
        assert message in refused
        assert refused.startswith("Usage: ") or len(refused.splitlines()) == 1, "one fault, one message"
        assert not user.inventory.exists()

    def test_a_kind_that_was_given_is_judged_beside_the_name(self, user: User) -> None:
        refused = user.refused("add", "Pi A", "--host", "h", "--kind", "RPI 4", "--yes").splitlines()
        assert [line.removeprefix("orchestrator: ").partition(":")[0] for line in refused] == ["name", "kind"]

    def test_an_inventory_that_cannot_be_written_is_named(self, user: User, sshd: Sshd) -> None:
        (user.folder / "file").touch()
        refused = user.refused("add", "pi-a", *way(sshd), "--yes", "--inventory", "file/inventory.yaml")
        assert "file/inventory.yaml: cannot be written (" in refused

    def test_a_known_name_needs_replace(self, user: User, sshd: Sshd) -> None:
        add_board(user.inventory, sshd.entry("pi-a"))
        before = user.inventory.read_text()
        assert "there is a board 'pi-a' already; --replace changes it" in user.refused(
            "add", "pi-a", *way(sshd), "--yes"
        )
        assert user.inventory.read_text() == before


class TestListing:
    def test_without_an_inventory_there_are_the_built_in_boards(self, user: User) -> None:
        document = user.document("list")
        assert document["inventory"] is None
        assert [device["name"] for device in document["devices"]] == ["local", "sim"]
        assert "no inventory yet" in user.run("list").err

    def test_a_broken_or_missing_inventory_is_named(self, user: User) -> None:
        for verb in (["list"], ["check", "pi"], ["setup", "pi"], ["remove", "pi", "--yes"]):
            refused = user.refused(*verb, "--inventory", "nowhere.yaml")
            assert f"--inventory {user.folder / 'nowhere.yaml'}: no such file; correct it, or make it" in refused
        user.inventory.write_text("schema: 1\nboards:\n  pi:\n    kidn: rpi4\n")
        for verb in (["list"], ["remove", "pi", "--yes"]):
            assert f"{user.inventory}:4: boards.pi.kidn: unknown key; did you mean 'kind'?" in user.refused(*verb)


class TestCheckAndSetup:
    def test_a_board_is_unfit_until_it_is_set_up(
        self, user: User, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        python = bare_python(user.folder / "env")
        entry = sshd.entry("pi-a", python=str(python), runtime=RuntimeSpec(name="litert", version="2.3.0").model_dump())
        add_board(user.inventory, entry)
        cache = fetched(tmp_path_factory)
        archive(plan_runtime(probe_board(LocalTransport(), entry), entry.runtime), cache)
        store = user.folder / ".orchestrator"
        store.mkdir()
        (store / "runtimes").symlink_to(cache / "runtimes")

        before = user.document("check", "pi-a", code=1)
        assert (before["reachable"], before["fit"]) == (True, False)
        runtime = next(finding for finding in before["findings"] if finding["what"] == "runtime")
        assert runtime["remedy"] == "orchestrator devices setup pi-a"
        text = user.run("check", "pi-a")
        assert text.code == 1
        assert "-> orchestrator devices setup pi-a" in text.out
        assert text.out.endswith("pi-a is not fit to measure\n")

        done = user.run("setup", "pi-a")
        assert done.code == 0, done.err
        assert [line.split()[1] for line in done.err.splitlines()] == ["fetching", "pushing", "unpacking", "litert"]
        assert done.out == "pi-a is set up; next: orchestrator search --device pi-a\n"
        again = user.document("setup", "pi-a")
        assert again["folder"] == f"{sshd.root}/runtimes/litert-2.3.0"
        assert len(again["steps"]) == 1
        assert again["steps"][0].endswith("is there already: nothing to do")

        after = user.document("check", "pi-a")
        assert (after["reachable"], after["fit"]) == (True, True)
        assert user.run("check", "pi-a").out.endswith("pi-a is fit to measure\n")

    def test_a_board_that_is_off_is_unreachable(self, user: User, sshd: Sshd) -> None:
        add_board(user.inventory, sshd.entry("pi-a", port=free_port()))
        document = user.document("check", "pi-a", code=3)
        assert (document["reachable"], document["fit"]) == (False, False)
        assert "connection refused" in user.refused("setup", "pi-a", code=3)

    def test_this_computer_is_checked_too(self, user: User) -> None:
        document = user.document("check", "local")
        assert document["reachable"] is True
        assert user.document("setup", "local")["steps"]

    def test_an_unknown_board_and_a_kind_are_refused(self, user: User, sshd: Sshd) -> None:
        add_board(user.inventory, sshd.entry("pi-a"))
        for verb in ("check", "setup", "remove"):
            assert "no board and no kind 'pi-b'; did you mean 'pi-a'?" in user.refused(verb, "pi-b")
        kind = "'x86-test' is a kind: give the name of a board; of this kind: pi-a"
        assert kind in user.refused("check", "x86-test")


class TestRemoving:
    def test_it_needs_a_yes_and_leaves_the_rest(self, user: User, sshd: Sshd) -> None:
        add_board(user.inventory, sshd.entry("pi-a"))
        only = user.inventory.read_text()
        add_board(user.inventory, sshd.entry("pi-b", host="localhost"))
        assert "to remove pi-b without asking, give --yes" in user.refused("remove", "pi-b")
        assert user.run("remove", "pi-b", answer="n").code == 1
        assert [entry.name for entry in Inventory.load(user.inventory).boards] == ["pi-a", "pi-b"]
        document = user.document("remove", "pi-b", "--yes")
        assert (document["device"], document["left_on_board"]) == ("pi-b", str(sshd.root))
        assert user.inventory.read_text() == only
        assert user.run("rm", "pi-a", answer="y").code == 0, "the other verbs' word is understood too"
        assert Inventory.load(user.inventory).boards == ()

    def test_the_built_in_boards_stay(self, user: User) -> None:
        assert "'sim' is built in: it cannot be removed" in user.refused("remove", "sim", "--yes")
