"""Options of the tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.store.places import StorePlace, store_at
from orchestrator.store.store import Store
from tests.postgres import running_postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernel-shapes", type=int, default=6,
                     help="random shapes of every kernel and arithmetic of the compiler tvm")


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], StorePlace]]:
    """Return a function that makes an empty store in a PostgreSQL database of its own, with files in a folder."""
    with running_postgres() as server:
        template = server.new_database("empty")
        Store.open(store_at(f"{template}?folder={tmp_path_factory.mktemp('empty')}", Path("/"))).close()

        def new(folder: Path) -> StorePlace:
            return store_at(f"{server.new_database(f'store_{uuid.uuid4().hex}', 'empty')}?folder={folder}", Path("/"))

        yield new


@pytest.fixture(params=["sqlite", "postgresql"])
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    """Return where a new store lies: in a folder, and in a database."""
    if request.param == "sqlite":
        return StorePlace(tmp_path / "store")
    place: StorePlace = request.getfixturevalue("databases")(tmp_path / "store")
    return place
