"""Where the store and the inventory lie when the user does not say, or says so elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.store.errors import StoreUnsupported, StoreUnusable

STORE_VARIABLE = "ORCHESTRATOR_STORE"
INVENTORY_VARIABLE = "ORCHESTRATOR_INVENTORY"
INVENTORY_NAME = "inventory.yaml"
FOLDER_NAME = ".orchestrator"
DATABASE_NAME = "orchestrator.db"
_SQLITE, _POSTGRES = "sqlite:///", ("postgresql://", "postgres://")
_FOLDER_KEY = "folder"
"""Of a database's URL: where the files lie."""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A folder, and where its tables are not in it, a database."""

    folder: Path
    url: URL | None = None
    """Of PostgreSQL."""

    def __str__(self) -> str:
        """Return how people call it, without its password."""
        return str(self.folder) if self.url is None else self.url.render_as_string(hide_password=True)

    @property
    def exists(self) -> bool:
        """Tell whether there is a store; a database is asked only when it is opened."""
        return self.url is not None or (self.folder / DATABASE_NAME).is_file()


def find_store(explicit: str | None, environ: Mapping[str, str], cwd: Path) -> StorePlace:
    """Return where the store is, which need not exist yet.

    In this order: `explicit` (--store), ORCHESTRATOR_STORE, `.orchestrator/` beside the nearest
    inventory.yaml from `cwd` upwards, the user's data folder. Raises StoreUnsupported,
    StoreUnusable.
    """
    for text, source in ((explicit, "--store"), (environ.get(STORE_VARIABLE), STORE_VARIABLE)):
        if text:
            return store_at(text, cwd, source)
    nearest = _nearest_inventory(cwd)
    return StorePlace(nearest.parent / FOLDER_NAME if nearest else user_folder())


def find_inventory(explicit: str | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the inventory's file, or None when there is none.

    In this order: `explicit` (--inventory), ORCHESTRATOR_INVENTORY, the nearest inventory.yaml
    from `cwd` upwards, the one in the user's data folder. A file that the user names is returned
    even when it does not exist, so that its reader can say so.
    """
    named = explicit or environ.get(INVENTORY_VARIABLE)
    if named:
        return cwd / Path(named).expanduser()
    own = user_folder() / INVENTORY_NAME
    return _nearest_inventory(cwd) or (own if own.is_file() else None)


def user_folder() -> Path:
    """Return the user's data folder of this program (`XDG_DATA_HOME` on Linux)."""
    return platformdirs.user_data_path("hil-orchestrator", appauthor=False)


def store_at(text: str, cwd: Path, source: str = "--store") -> StorePlace:
    """Read a path, a sqlite:/// URL or a postgresql:// URL.

    Args:
        text: what the user wrote; relative paths count from `cwd`, `~` is the home folder. A database's files lie in
            `?folder=PATH`, else in the user's data folder.
        cwd: an absolute path.
        source: what to call the setting in an error.

    Raises:
        StoreUnsupported: for a URL of another database.
        StoreUnusable: when the path is a file, or the URL is none.
    """
    if text.startswith(_POSTGRES):
        return _database(text, cwd, source)
    if "://" in text and not text.startswith(_SQLITE):
        scheme = text.partition("://")[0]
        raise StoreUnsupported(f"{source}: expected the path of a folder, or a postgresql:// URL, got a {scheme}:// "
                               f"URL; e.g. {source} ./{FOLDER_NAME}")
    folder = cwd / Path(text.removeprefix(_SQLITE)).expanduser()
    if folder.name == DATABASE_NAME:
        folder = folder.parent
    if folder.exists() and not folder.is_dir():
        raise StoreUnusable(f"{source}: expected a folder, got the file {folder}; give the folder that holds "
                            f"{DATABASE_NAME}, or a new one")
    return StorePlace(folder)


def _database(text: str, cwd: Path, source: str) -> StorePlace:
    expected = f"{source}: expected postgresql://USER@HOST:PORT/DATABASE?folder=PATH (the folder may be left out)"
    try:
        url = make_url(text).set(drivername="postgresql")
    except (ArgumentError, ValueError) as error:
        raise StoreUnusable(expected) from error
    if not url.database:
        raise StoreUnusable(f"{expected}, got none of a database")
    given = url.query.get(_FOLDER_KEY)
    if isinstance(given, str):
        folder = cwd / Path(given).expanduser()
    else:
        folder = user_folder() / "databases" / f"{url.host or 'localhost'}-{url.port or 5432}-{url.database}"
    if folder.exists() and not folder.is_dir():
        raise StoreUnusable(f"{source}: folder: expected a folder, got the file {folder}")
    return StorePlace(folder, url.difference_update_query([_FOLDER_KEY]))


def _nearest_inventory(cwd: Path) -> Path | None:
    candidates = (folder / INVENTORY_NAME for folder in (cwd, *cwd.parents))
    return next((file for file in candidates if file.is_file()), None)
