"""Where the store and the inventory lie when the user does not say, or says so elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs

from orchestrator.store.errors import StoreUnsupported, StoreUnusable

STORE_VARIABLE = "ORCHESTRATOR_STORE"
INVENTORY_VARIABLE = "ORCHESTRATOR_INVENTORY"
INVENTORY_NAME = "inventory.yaml"
FOLDER_NAME = ".orchestrator"
DATABASE_NAME = "orchestrator.db"
_SQLITE = "sqlite:///"


def find_store(explicit: str | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """Return the store's folder, which need not exist yet.

    In this order: `explicit` (--store), ORCHESTRATOR_STORE, `.orchestrator/` beside the nearest
    inventory.yaml from `cwd` upwards, the user's data folder. Raises StoreUnsupported,
    StoreUnusable.
    """
    for text, source in ((explicit, "--store"), (environ.get(STORE_VARIABLE), STORE_VARIABLE)):
        if text:
            return store_folder(text, cwd, source)
    nearest = _nearest_inventory(cwd)
    return nearest.parent / FOLDER_NAME if nearest else user_folder()


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


def store_folder(text: str, cwd: Path, source: str = "--store") -> Path:
    """Turn a path or a sqlite:/// URL into the store's folder.

    Args:
        text: what the user wrote; relative paths count from `cwd`, `~` is the home folder.
        cwd: an absolute path.
        source: what to call the setting in an error.

    Raises:
        StoreUnsupported: for a URL of another database.
        StoreUnusable: when the path is a file.
    """
    if "://" in text and not text.startswith(_SQLITE):
        scheme = text.partition("://")[0]
        raise StoreUnsupported(f"{source}: this version keeps its store in a folder (SQLite) only, got a "
                               f"{scheme}:// URL; give the path of a folder, e.g. {source} ./{FOLDER_NAME}")
    folder = cwd / Path(text.removeprefix(_SQLITE)).expanduser()
    if folder.name == DATABASE_NAME:
        folder = folder.parent
    if folder.exists() and not folder.is_dir():
        raise StoreUnusable(f"{source}: expected a folder, got the file {folder}; give the folder that holds "
                            f"{DATABASE_NAME}, or a new one")
    return folder


def _nearest_inventory(cwd: Path) -> Path | None:
    candidates = (folder / INVENTORY_NAME for folder in (cwd, *cwd.parents))
    return next((file for file in candidates if file.is_file()), None)
