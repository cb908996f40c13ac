from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from device_farm.inventory import (
    BoardEntry,
    Hop,
    Inventory,
    InventoryError,
    RuntimeSpec,
    add_board,
    inventory_schema,
    remove_board,
)

ROOT = Path(__file__).parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"

FILE = f"""\
# The boards of the lab.
schema: 1

boards:
  # On the shelf.
  pi-a:
    kind: rpi4
    host: 10.0.0.7
    user: pi
    host_key: {KEY} root@pi-a  # as the board printed it

  # Behind the door.
  pi-b: {{kind: rpi4, host: 10.0.0.8, user: pi, host_key: "{KEY}"}}
  jetson:
    kind: jetson-orin-nano
    host: jetson.lab
    port: 2222
    user: me
    host_key: {KEY}
    identity_file: ~/.ssh/lab
    jump: {{host: gate.lab, user: me, host_key: "{OTHER_KEY}"}}
    python: /opt/python/bin/python3
    root: ~/boards
    runtime: {{name: litert, version: "2.3.0"}}
    lock_file: /run/lock/hil
    env: {{OMP_NUM_THREADS: "1"}}
    notes: borrowed
# The end.
"""


def board(name: str = "new", **changes: object) -> BoardEntry:
    fields = {"name": name, "kind": "rpi5", "host": "10.0.0.9", "user": "pi", "host_key": KEY}
    return BoardEntry.model_validate({**fields, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.yaml"
    path.write_text(FILE)
    return path


class TestLoading:
    def test_everything_is_read(self, path: Path) -> None:
        inventory = Inventory.load(path)
        assert [entry.name for entry in inventory.boards] == ["pi-a", "pi-b", "jetson"]
        jetson = inventory.find("jetson")
        gate = Hop(host="gate.lab", user="me", host_key=OTHER_KEY)
        assert (jetson.jump, jetson.runtime) == ((gate,), RuntimeSpec(name="litert", version="2.3.0"))
        assert [hop.address for hop in jetson.hops()] == ["me@gate.lab:22", "me@jetson.lab:2222"]
        assert jetson.hops()[-1].identity_file == "~/.ssh/lab"
        assert (jetson.root, jetson.lock_file, jetson.env) == ("~/boards", "/run/lock/hil", {"OMP_NUM_THREADS": "1"})

    def test_a_board_says_little_by_default(self, path: Path) -> None:
        pi = Inventory.load(path).find("pi-a")
        assert (pi.port, pi.python, pi.root, pi.runtime) == (22, "python3", "~/.hil-orchestrator", None)
        assert (pi.shares_host, pi.transport, pi.host_key) == ("forbidden", "ssh", KEY)

    def test_a_kind_matches_all_its_boards_and_a_name_only_one(self, path: Path) -> None:
        inventory = Inventory.load(path)
        assert [entry.name for entry in inventory.matching("rpi4")] == ["pi-a", "pi-b"]
        assert [entry.name for entry in inventory.matching("pi-b")] == ["pi-b"]

    def test_local_and_sim_are_always_there(self, path: Path) -> None:
        for inventory in (Inventory.load(path), Inventory()):
            assert inventory.find("local").transport == "local"
            assert inventory.find("sim").transport == "sim"

    def test_an_unknown_device_lists_the_known_ones(self, path: Path) -> None:
        with pytest.raises(InventoryError) as caught:
            Inventory.load(path).find("pi-aa")
        assert str(caught.value) == (
            f"{path}: no board and no kind 'pi-aa'; did you mean 'pi-a'? Boards: pi-a, pi-b, jetson, local, sim. "
            "Kinds: rpi4, jetson-orin-nano, local, sim. Add one with 'orchestrator devices add'"
        )

    def test_without_an_inventory_the_built_in_boards_are_named(self) -> None:
        with pytest.raises(InventoryError) as caught:
            Inventory().find("simm")
        assert str(caught.value) == (
            "no board and no kind 'simm'; did you mean 'sim'? There is no inventory, so only local and sim: add a "
            "board with 'orchestrator devices add NAME --host HOST'"
        )

    def test_a_file_without_boards_is_an_inventory(self, tmp_path: Path) -> None:
        for text in ("schema: 1\nboards:\n", "schema: 1\nboards: {}\n", "boards:\n  # none yet\nschema: 1\n"):
            (tmp_path / "empty.yaml").write_text(text)
            assert Inventory.load(tmp_path / "empty.yaml").boards == ()


def edited(path: Path, old: str, new: str) -> str:
    """Load the file after an edit and return what is wrong with it."""
    text = path.read_text()
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InventoryError) as caught:
        Inventory.load(path)
    return str(caught.value)


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("old", "new", "line", "words"),
        [
            (
                "    user: pi\n",
                "    usr: pi\n",
                9,
                "boards.pi-a.usr: unknown key; did you mean 'user'? Keys here: ",
            ),
            ("    user: pi\n", "    user: pi\n    colour: red\n", 10, "boards.pi-a.colour: unknown key; remove it."),
            ("port: 2222", "port: 70000", 17, "boards.jetson.port: expected a whole number from 1 to 65535, got 70000"),
            ("port: 2222", "port: no", 17, "boards.jetson.port: expected a whole number from 1 to 65535, got False"),
            ("kind: rpi4\n", "kind: RPI 4\n", 7, "boards.pi-a.kind: expected small letters, digits"),
            ("kind: rpi4\n", "kind: sim\n", 6, "boards.pi-a: kind 'sim' is built in: choose another"),
            ("    host: 10.0.0.7\n", "", 6, "boards.pi-a: host missing; 'orchestrator devices add' fills them in"),
            (
                "host: 10.0.0.7",
                "host: pi@10.0.0.7",
                8,
                "boards.pi-a.host: expected one word without '@' (host and user are two keys), got 'pi@10.0.0.7'",
            ),
            (f"{KEY} root", "SHA256:abc root", 10, "boards.pi-a.host_key: expected one of the types ssh-ed25519,"),
            (f"{KEY} root", f"{KEY[:-30]} root", 10, "boards.pi-a.host_key: the key is"),
            ("~/.ssh/lab", "keys/lab", 20, "boards.jetson.identity_file: expected an absolute path or one that"),
            ("root: ~/boards", "root: boards", 23, "boards.jetson.root: expected an absolute path on the board"),
            ("/run/lock", "~/lock", 25, "boards.jetson.lock_file: expected an absolute path on the board, got '~/lock"),
            ('"2.3.0"', "2.3", 24, "boards.jetson.runtime.version: expected text, got 2.3; put it in quotes"),
            ("name: litert", "name: tflite", 24, "boards.jetson.runtime.name: expected 'litert' or 'tflite-"),
            ("{name: litert, ", "{", 24, "boards.jetson.runtime.name: missing; add it"),
            ('"1"', "1", 26, "boards.jetson.env.OMP_NUM_THREADS: expected text, got 1; put it in quotes"),
            ("  pi-a:", "  Pi A:", 6, "boards.Pi A: expected small letters, digits"),
            ("  pi-a:", "  local:", 6, "boards.local: this name is built in and always there: choose another"),
            ("  pi-b:", "  pi-a:", 13, "'pi-a' stands twice in boards (first in line 6): rename or remove one"),
            ("schema: 1", "schema: 2", 2, "schema: expected 1, got 2"),
            ("schema: 1\n", "", 3, "schema: missing; add it: 'schema: 1'"),
            ("boards:\n", "board:\n", 4, "board: unknown key; did you mean 'boards'? Keys here: schema, boards"),
            ("    kind: rpi4\n", "   kind: rpi4\n", "8:9", "not valid YAML: mapping values are not allowed here"),
        ],
    )
    def test_a_mistake_is_named_with_its_line(
        self, path: Path, old: str, new: str, line: int | str, words: str
    ) -> None:
        assert f"{path}:{line}: {words}" in edited(path, old, new)

    def test_two_names_for_one_board_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "inventory.yaml"
        row = f"{{kind: rpi4, host: 10.0.0.7, user: pi, host_key: {KEY}}}"
        path.write_text(f"schema: 1\nboards:\n  pi-a: {row}\n  pi-b: {row}\n")
        with pytest.raises(InventoryError) as caught:
            Inventory.load(path)
        assert str(caught.value) == (f"{path}:4: boards.pi-b: its address 10.0.0.7:22 is that of 'pi-a': a board has "
                                     "one name; remove one of the two")
        path.write_text(path.read_text().replace("10.0.0.7", "10.0.0.8", 1))
        assert [board.name for board in Inventory.load(path).boards] == ["pi-a", "pi-b"]

    def test_a_jump_host_without_a_key_is_refused(self, path: Path) -> None:
        message = edited(path, f'jump: {{host: gate.lab, user: me, host_key: "{OTHER_KEY}"}}', "jump: me@gate.lab")
        assert "boards.jetson.jump: got 'me@gate.lab'; write host, user and host_key" in message

    def test_all_mistakes_are_named_at_once(self, path: Path) -> None:
        path.write_text(FILE.replace("port: 2222", "port: 0"))
        message = edited(path, "    user: pi\n", "    usr: pi\n")
        assert "boards.pi-a.usr" in message
        assert "boards.jetson.port" in message

    @pytest.mark.parametrize(
        "text", ["", "- pi\n", "boards\n", "schema: 1\nboards: [pi]\n", "schema: 1\nboards: {a: 1}\n"]
    )
    def test_another_shape_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "inventory.yaml").write_text(text)
        with pytest.raises(InventoryError, match=r"inventory\.yaml"):
            Inventory.load(tmp_path / "inventory.yaml")

    def test_a_missing_file_and_a_folder_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InventoryError, match="no such file; 'orchestrator devices add' makes it"):
            Inventory.load(tmp_path / "nowhere.yaml")
        with pytest.raises(InventoryError, match="expected a file, this is a folder; is it .*inventory.yaml"):
            Inventory.load(tmp_path)

    @pytest.mark.parametrize("data", [b"schema: \0", b"\xff\xfe\x00", b"boards: [\n", b"schema: 1\n\tboards:\n"])
    def test_what_is_no_yaml_is_said_in_one_line(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "i.yaml").write_bytes(data)
        with pytest.raises(InventoryError) as caught:
            Inventory.load(tmp_path / "i.yaml")
        assert str(caught.value).startswith(f"{tmp_path / 'i.yaml'}:")
        assert "\n" not in str(caught.value)
        assert "unicode string" not in str(caught.value)

    def test_nothing_in_the_file_is_executed(self, tmp_path: Path) -> None:
        (tmp_path / "i.yaml").write_text("schema: 1\nboards: !!python/object/apply:os.mkdir [made]\n")
        with pytest.raises(InventoryError, match="not valid YAML"):
            Inventory.load(tmp_path / "i.yaml")


class TestAdding:
    def test_a_new_file_holds_the_board(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "inventory.yaml"
        add_board(path, board(port=2222, notes="mine"))
        assert Inventory.load(path).boards == (board(port=2222, notes="mine"),)
        assert path.read_text().startswith("schema: 1\nboards:\n  new:\n    kind: rpi5\n")

    def test_the_rest_of_the_file_stays_as_it_is(self, path: Path) -> None:
        add_board(path, board())
        assert [entry.name for entry in Inventory.load(path).boards] == ["pi-a", "pi-b", "jetson", "new"]
        added = f"  new:\n    kind: rpi5\n    host: 10.0.0.9\n    user: pi\n    host_key: {KEY}\n"
        assert path.read_text() == FILE.replace("# The end.", f"{added}# The end.")

    @pytest.mark.parametrize(
        "tail", ["boards:\n", "boards: {}\n", "boards: null", "boards:", "boards:\n  # pi:\n  #   kind: rpi4\n"]
    )
    def test_the_first_board_of_a_file_with_none(self, tmp_path: Path, tail: str) -> None:
        path = tmp_path / "inventory.yaml"
        path.write_text(f"# Ours.\nschema: 1\n{tail}")
        add_board(path, board())
        assert Inventory.load(path).boards == (board(),)
        kept = [line for line in tail.splitlines() if "#" in line]
        assert set(kept) <= set(path.read_text().splitlines())

    def test_a_known_name_needs_replace(self, path: Path) -> None:
        with pytest.raises(InventoryError, match="there is a board 'pi-b' already; --replace overwrites it"):
            add_board(path, board("pi-b"))
        assert path.read_text() == FILE
        add_board(path, board("pi-b"), replace=True)
        assert [entry.name for entry in Inventory.load(path).boards] == ["pi-a", "pi-b", "jetson"]
        assert Inventory.load(path).find("pi-b") == board("pi-b")
        for comment in ("# The boards of the lab.", "# On the shelf.", "# Behind the door.", "# The end."):
            assert comment in path.read_text()

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "inventory.yaml"
        with pytest.raises(InventoryError) as caught:
            add_board(path, board())
        assert str(caught.value).startswith(f"{path}: cannot be written (")
        assert str(caught.value).endswith("; see its folder and permissions, or choose another with --inventory")

    def test_a_broken_file_is_not_touched(self, path: Path) -> None:
        path.write_text(FILE.replace("port: 2222", "port: 0"))
        before = path.read_text()
        with pytest.raises(InventoryError, match=r"jetson\.port"):
            add_board(path, board())
        assert path.read_text() == before

    def test_braces_are_refused(self, path: Path) -> None:
        path.write_text(f'{{schema: 1, boards: {{a: {{kind: b, host: c, user: d, host_key: "{KEY}"}}}}}}\n')
        with pytest.raises(InventoryError, match="boards are written in braces"):
            add_board(path, board())

    def test_an_unusual_layout_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "inventory.yaml"
        path.write_text("schema: 1\nboards: {\n}\n")
        with pytest.raises(InventoryError, match="its layout is too unusual to change safely: edit it by hand"):
            add_board(path, board())
        assert path.read_text() == "schema: 1\nboards: {\n}\n"

    def test_the_files_mode_and_link_stay(self, path: Path, tmp_path: Path) -> None:
        path.chmod(0o640)
        link = tmp_path / "link.yaml"
        link.symlink_to(path)
        add_board(link, board())
        assert link.is_symlink()
        assert (path.stat().st_mode & 0o777, Inventory.load(path).find("new")) == (0o640, board())
        assert sorted(item.name for item in tmp_path.iterdir()) == ["inventory.yaml", "link.yaml"]

    def test_several_processes_may_add_at_once(self, path: Path) -> None:
        script = (
            "import sys\nfrom pathlib import Path\nfrom device_farm.inventory import *\n"
            "for i in range(5):\n    entry = BoardEntry.model_validate(dict(name=f'{sys.argv[2]}{i}', kind='k', "
            "host=f'{sys.argv[2]}{i}', user='u', host_key=sys.argv[3]))\n    add_board(Path(sys.argv[1]), entry)\n"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", script, str(path), name, KEY], cwd=ROOT) for name in ("a", "b", "c")
        ]
        assert [process.wait(60) for process in processes] == [0, 0, 0]
        assert len(Inventory.load(path).boards) == 3 + 15


class TestRemoving:
    def test_only_that_board_goes(self, path: Path) -> None:
        remove_board(path, "pi-b")
        assert path.read_text() == "".join(line for line in FILE.splitlines(True) if "pi-b:" not in line)

    def test_the_last_board_may_go(self, path: Path) -> None:
        for name in ("pi-a", "pi-b", "jetson"):
            remove_board(path, name)
        assert Inventory.load(path).boards == ()
        add_board(path, board())
        assert Inventory.load(path).boards == (board(),)

    def test_an_unknown_board_lists_the_known_ones(self, path: Path) -> None:
        with pytest.raises(InventoryError, match=r"no board 'pi-c'; did you mean '.*'\? Boards: pi-a, pi-b, jetson"):
            remove_board(path, "pi-c")
        assert path.read_text() == FILE


class TestDocumented:
    """The example file, the schema and the documentation say what the code does."""

    def test_the_example_file_is_an_inventory(self) -> None:
        path = ROOT / "inventory.yaml"
        assert Inventory.load(path).boards == ()
        _, _, schema = path.read_text().splitlines()[0].partition("$schema=")
        assert (ROOT / schema).is_file()

    def test_its_examples_are_valid_when_they_are_uncommented(self, tmp_path: Path) -> None:
        text = (ROOT / "inventory.yaml").read_text()
        uncommented = re.sub(r"^  # ", "  ", text, flags=re.MULTILINE)
        (tmp_path / "inventory.yaml").write_text(uncommented)
        boards = Inventory.load(tmp_path / "inventory.yaml").boards
        assert [entry.kind for entry in boards] == ["rpi4", "rpi5", "jetson-orin-nano", "x86-n100"]
        assert [len(entry.hops()) for entry in boards] == [1, 1, 2, 1]
        jsonschema.validate(yaml.safe_load(uncommented), inventory_schema())
        jsonschema.validate(yaml.safe_load(text), inventory_schema())

    def test_a_board_can_be_added_to_the_example_file(self, tmp_path: Path) -> None:
        path = tmp_path / "inventory.yaml"
        path.write_text((ROOT / "inventory.yaml").read_text())
        before = set(path.read_text().splitlines())
        add_board(path, board())
        assert Inventory.load(path).boards == (board(),)
        assert before <= set(path.read_text().splitlines())

    def test_the_schema_in_the_documentation_is_current(self) -> None:
        written = json.loads((ROOT / "docs" / "schemas" / "inventory.schema.json").read_text())
        assert written == inventory_schema(), "run: python -m orchestrator.schemas docs/schemas"

    @pytest.mark.parametrize(
        ("old", "new"),
        [("kind: rpi4", "knd: rpi4"), ("port: 2222", "port: 0"), ("user: me\n    host_key", "host_key"),
         ('"1"', "1"), ("OMP_NUM_THREADS", "2X"), ("schema: 1", "schema: 2"), ("pi-b:", "Pi B:")],
    )  # fmt: skip
    def test_the_schema_refuses_what_the_reader_refuses(self, path: Path, old: str, new: str) -> None:
        jsonschema.validate(yaml.safe_load(FILE), inventory_schema())
        edited(path, old, new)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(path.read_text()), inventory_schema())

    def test_the_documentation_explains_every_key(self) -> None:
        text = (ROOT / "docs" / "inventory.md").read_text()
        schema = inventory_schema()
        keys = [key for part in schema["$defs"].values() for key in part["properties"]]
        assert [key for key in keys if f"| `{key}` |" not in text and f"`{key}:" not in text] == []

    def test_the_documentations_example_is_valid(self, tmp_path: Path) -> None:
        blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "inventory.md").read_text(), re.M | re.S)
        assert blocks
        for block in blocks:
            (tmp_path / "inventory.yaml").write_text(block)
            assert len(Inventory.load(tmp_path / "inventory.yaml").boards) > 0
