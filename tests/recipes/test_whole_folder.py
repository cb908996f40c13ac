"""Folders that appear whole: after success, an error, a kill at the worst moment, and on plain file systems."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.bundle import whole_folder as module
from recipes.bundle.whole_folder import whole_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from recipes.bundle.whole_folder import whole_folder

def audit(event, arguments):
    # Python tells this before it renames or removes; a killed process does neither.
    if event == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

with whole_folder(Path(sys.argv[1])) as folder:
    (folder / "new").write_text("half of it")
    sys.addaudithook(audit)
"""


@pytest.fixture(params=["exchange", "two renames"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that holds `old`, on file systems that can let two folders trade names and that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "old").write_text("old")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_this_file_system_exchanges(tmp_path: Path) -> None:
    """Otherwise half of the tests here would pass without testing anything."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    assert module._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists()
    with pytest.raises(FileNotFoundError):
        module._exchange(tmp_path / "a", tmp_path / "missing")


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_and_its_parents(tmp_path: Path, there: bool) -> None:
    goal = tmp_path / "far" / "away"
    if there:
        goal.mkdir(parents=True)
    with whole_folder(goal) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "new").write_text("new")
    assert (goal / "deep" / "new").read_text() == "new"
    assert list(goal.parent.iterdir()) == [goal]


def test_what_was_there_is_replaced(place: Path) -> None:
    with whole_folder(place) as folder:
        (folder / "new").write_text("new")
        assert content(place) == {"old": "old"}
    assert content(place) == {"new": "new"}
    assert list(place.parent.iterdir()) == [place]


def test_an_error_leaves_the_old_folder_alone(place: Path) -> None:
    with pytest.raises(OSError, match="No space"), whole_folder(place) as folder:
        (folder / "new").write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert content(place) == {"old": "old"}
    assert list(place.parent.iterdir()) == [place]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
        place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if target == place and (source / "new").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="No space"), whole_folder(place) as folder:
        (folder / "new").write_text("new")
    assert content(place) == {"old": "old"}
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize(("event", "expected"), [
    ("open", {"old": "old"}),  # before it takes its place: to bring its bytes to the disk
    ("shutil.rmtree", {"new": "half of it"}),  # after that, before the old one is removed
])
def test_a_killed_process_leaves_one_of_the_two_whole(tmp_path: Path, event: str, expected: dict[str, str]) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "old").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), event], check=False)
    assert done.returncode == -signal.SIGKILL
    assert content(folder) == expected
    beside = [entry for entry in tmp_path.iterdir() if entry != folder]
    assert [len(entry.name) for entry in beside] == [len(".place.") + 32]
