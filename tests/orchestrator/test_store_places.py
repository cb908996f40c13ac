"""Where the store and the inventory are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store.errors import StoreUnsupported, StoreUnusable
from orchestrator.store.places import find_inventory, find_store, user_folder
from orchestrator.store.store import Store


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with an inventory, a folder two levels below it, and an empty home."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "lab" / "models" / "vision").mkdir(parents=True)
    (tmp_path / "lab" / "inventory.yaml").write_text("boards: {}\n")
    return tmp_path / "lab"


def test_the_store_is_found_in_order(lab: Path, tmp_path: Path) -> None:
    below = lab / "models" / "vision"
    named = {"ORCHESTRATOR_STORE": "shared"}
    assert find_store("mine", named, below).folder == below / "mine"
    assert find_store(None, named, below).folder == below / "shared"
    assert find_store(None, {"ORCHESTRATOR_STORE": ""}, below).folder == lab / ".orchestrator"
    assert find_store(None, {}, tmp_path).folder == tmp_path / "data" / "hil-orchestrator" == user_folder()
    assert find_store("~/studies", {}, below).folder == tmp_path / "home" / "studies"


def test_the_inventory_is_found_in_order(lab: Path, tmp_path: Path) -> None:
    below = lab / "models" / "vision"
    named = {"ORCHESTRATOR_INVENTORY": "/etc/boards.yaml"}
    assert find_inventory("mine.yaml", named, below) == below / "mine.yaml"
    assert find_inventory(None, named, below) == Path("/etc/boards.yaml")
    assert find_inventory(None, {}, below) == lab / "inventory.yaml"
    assert find_inventory(None, {}, tmp_path) is None
    user_folder().mkdir(parents=True)
    (user_folder() / "inventory.yaml").touch()
    assert find_inventory(None, {}, tmp_path) == user_folder() / "inventory.yaml"


def test_what_is_neither_a_folder_nor_a_known_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnsupported, match=r"^--store: expected the path of a folder, or a postgresql:// URL, got"):
        find_store("mysql://user:secret@host/db", {}, tmp_path)
    with pytest.raises(StoreUnsupported, match="ORCHESTRATOR_STORE") as refused:
        find_store(None, {"ORCHESTRATOR_STORE": "mysql://user:secret@host/db"}, tmp_path)
    assert "secret" not in str(refused.value)
    assert find_store(f"sqlite:///{tmp_path}/s/orchestrator.db", {}, Path("/")).folder == tmp_path / "s"
    assert find_store("sqlite:///s", {}, tmp_path).folder == tmp_path / "s"


def test_a_database_has_its_files_in_a_folder(tmp_path: Path) -> None:
    given = find_store("postgresql://me:secret@db.lab:5433/boards?folder=files&sslmode=require", {}, tmp_path)
    assert given.folder == tmp_path / "files"
    assert str(given) == "postgresql://me:***@db.lab:5433/boards?sslmode=require"
    assert given.exists
    plain = find_store("postgres://db.lab/boards", {}, tmp_path)
    assert plain.folder == user_folder() / "databases" / "db.lab-5432-boards"
    for wrong in ("postgresql://", "postgresql://host", "postgresql://host:port/db"):
        with pytest.raises(StoreUnusable, match="expected postgresql://USER@HOST:PORT/DATABASE"):
            find_store(wrong, {}, tmp_path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match="expected a folder, got the file"):
        find_store("file", {}, tmp_path)
    with pytest.raises(StoreUnusable, match="cannot be created"):
        Store.open(tmp_path / "file" / "below")
