"""`orchestrator doctor`: is this computer fit to search, and what to do where it is not. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from device_farm.inventory import Inventory, InventoryError
from orchestrator.schemas.doctor import Check, DoctorDocument
from orchestrator.schemas.strict import SCHEMA
from orchestrator.store.database import reach
from orchestrator.store.errors import StoreError
from orchestrator.store.places import find_inventory, find_store
from orchestrator.units import counted

DISTRIBUTION = "hil-orchestrator"
PACKAGES = ("orchestrator", "profilers", "device_farm", "recipes", "search")
LEAST_DISK_BYTES = 200_000_000
LITTLE_DISK_BYTES = 2_000_000_000
BUSY = 0.5
"""Load for each core from which measurements on this computer are disturbed."""
_CPUS = Path("/sys/devices/system/cpu")
_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


def diagnose(store: str | None, inventory: str | None, environ: Mapping[str, str], here: Path, home: Path,
             cpus: Path = _CPUS) -> DoctorDocument:
    """Look at everything and return the document.

    Args:
        store: what --store says.
        inventory: what --inventory says.
        environ: the environment's variables.
        here: the current folder.
        home: the user's home folder.
        cpus: the kernel's folder of the processors.
    """
    boards, checks = _inventory(inventory, environ, here)
    found = [_python(), *_names(packages_distributions()), *_dependencies(), *_store(store, environ, here), *checks,
             _ssh(boards, environ, home), _governor(cpus), _load(_cores(), os.getloadavg()[0])]
    return {"schema": SCHEMA, "ok": all(check["level"] != "error" for check in found), "checks": found}


def _python() -> Check:
    here = platform.python_version()
    supported = distribution(DISTRIBUTION).metadata["Requires-Python"]
    if here in SpecifierSet(supported):
        return _ok("python", f"{here} ({sys.executable})")
    return _error("python", f"{here}: {supported} is needed", "install hil-orchestrator with a supported Python")


def _names(owners: Mapping[str, Sequence[str]]) -> Iterable[Check]:
    """Say whether another distribution brings a package of one of our names: either would hide the other."""
    ours = canonicalize_name(DISTRIBUTION)
    others = {package: sorted({owner for owner in owners.get(package, ()) if canonicalize_name(owner) != ours})
              for package in PACKAGES}
    for package, names in others.items():
        if names:
            yield _error(f"package {package}", f"{', '.join(names)} installs a package of this name too: one hides the "
                         "other", f"pip uninstall {' '.join(names)}, or give {DISTRIBUTION} an environment of its own "
                                  "(pipx)")
    if not any(others.values()):
        yield _ok("package names", ", ".join(PACKAGES))


def _dependencies() -> Iterable[Check]:
    """Compare what is installed with what the distribution asks for."""
    every = [Requirement(text) for text in distribution(DISTRIBUTION).requires or ()]
    base = [needed for needed in every if needed.marker is None or needed.marker.evaluate({"extra": ""})]
    wrong = [problem for problem in map(_problem, base) if problem is not None]
    if wrong:
        yield _error("dependencies", "; ".join(wrong), f"pip install --upgrade {DISTRIBUTION}")
    else:
        yield _ok("dependencies", f"{len(base)} distributions, all in range")
    for extra in ("tflite", "tvm"):
        yield _extra(extra, [needed for needed in every if needed not in base and needed.marker is not None
                             and needed.marker.evaluate({"extra": extra})])


def _extra(name: str, needs: Sequence[Requirement]) -> Check:
    """Say whether a compiler can be used: what its extra brings is all installed, or nothing of its own is."""
    missing = [needed.name for needed in needs if _installed(needed.name) is None]
    if missing and name == "tvm":
        return _ok(name, f"not installed: {', '.join(missing)}; --compiler tvm needs 'pip install {DISTRIBUTION}[tvm]'")
    if missing:
        return _warning(name, f"not installed: {', '.join(missing)}; boards can be managed here, not searched on",
                        f"pip install '{DISTRIBUTION}[{name}]'")
    wrong = [problem for problem in map(_problem, needs) if problem is not None]
    if wrong:
        return _warning(name, "; ".join(wrong), f"pip install --upgrade '{DISTRIBUTION}[{name}]'")
    return _ok(name, ", ".join(f"{needed.name} {_installed(needed.name)}" for needed in needs))


def _store(store: str | None, environ: Mapping[str, str], here: Path) -> Iterable[Check]:
    try:
        at = find_store(store, environ, here)
        if at.url is not None:
            reach(at)
            yield _ok("database", str(at))
    except StoreError as error:
        yield _error("store", str(error), "give another place with --store")
        return
    folder = at.folder
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    name = str(folder) if place == folder else f"{folder} (not there yet)"
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        free = shutil.disk_usage(place).free
    except OSError as error:
        yield _error("store", f"{name}: cannot be written ({error.strerror})", "choose another folder with --store")
        return
    yield _ok("store", name)
    text = f"{free / 1e9:.1f} GB free for the store"
    remedy = "remove studies (orchestrator studies remove), or choose another place with --store"
    if free < LEAST_DISK_BYTES:
        yield _error("disk", text, remedy)
    elif free < LITTLE_DISK_BYTES:
        yield _warning("disk", text, remedy)
    else:
        yield _ok("disk", text)


def _inventory(inventory: str | None, environ: Mapping[str, str], here: Path) -> tuple[Inventory, list[Check]]:
    path = find_inventory(inventory, environ, here)
    if path is None:
        return Inventory(), [_ok("inventory", "none: only the built-in boards local and sim; "
                                              "'orchestrator devices add' makes one")]
    try:
        found = Inventory.load(path)
    except InventoryError as error:
        return Inventory(), [_error("inventory", str(error), f"mend {path}, or give another with --inventory")]
    return found, [_ok("inventory", f"{path}: {counted(len(found.boards), 'board')}")]


def _ssh(boards: Inventory, environ: Mapping[str, str], home: Path) -> Check:
    """Look for keys that can open a board: named in the inventory, the agent's, the user's own."""
    hops = [(board.name, hop) for board in boards.boards for hop in board.hops()]
    named = {hop.identity_file: name for name, hop in hops if hop.identity_file is not None}
    for text, name in named.items():
        file = home / text[2:] if text.startswith("~/") else Path(text).expanduser()
        if not file.is_file():
            return _error("ssh keys", f"board {name}: its identity_file {file} is not there",
                          "correct the inventory, or remove the key there to use the agent's")
    files = [home / ".ssh" / name for name in _KEYS if (home / ".ssh" / name).is_file()]
    loose = [file for file in files if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    agent = _agent_keys(environ)
    where = [*([f"{agent} in the agent"] if agent else []), *(f"~/.ssh/{file.name}" for file in files)]
    if loose:
        return _warning("ssh keys", f"others may read {', '.join(str(file) for file in loose)}",
                        f"chmod 600 {' '.join(str(file) for file in loose)}")
    if where:
        return _ok("ssh keys", ", ".join(where))
    if any(hop.identity_file is None for _, hop in hops):
        return _warning("ssh keys", "no key in the SSH agent and no ~/.ssh/id_*: boards cannot be reached",
                        "ssh-keygen -t ed25519, then ssh-copy-id USER@BOARD")
    return _ok("ssh keys", "those of the inventory" if hops else
               "none; boards need one: ssh-keygen -t ed25519, then ssh-copy-id USER@BOARD")


def _agent_keys(environ: Mapping[str, str]) -> int:
    if not Path(environ.get("SSH_AUTH_SOCK", "")).is_socket():
        return 0
    import paramiko

    try:
        agent = paramiko.Agent()
        try:
            return len(agent.get_keys())
        finally:
            agent.close()
    except (OSError, paramiko.SSHException):
        return 0


def _governor(cpus: Path) -> Check:
    found = sorted({text for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor") if (text := _read(file))})
    if not found:
        return _ok("governor", "the kernel does not say (a virtual machine or container)")
    if found == ["performance"]:
        return _ok("governor", "performance")
    return _warning("governor", f"{', '.join(found)}: the clock changes while the device 'local' measures",
                    "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")


def _read(file: Path) -> str | None:
    try:
        return file.read_text("ascii").strip()
    except OSError:
        return None  # a processor that is switched off


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _load(cores: int, load: float) -> Check:
    text = f"{counted(cores, 'core')}, load {load:.2f}"
    if load > BUSY * cores:
        return _warning("load", f"{text}: other programs disturb what the device 'local' measures",
                        "end them, or measure on a board")
    return _ok("load", text)


def _problem(needed: Requirement) -> str | None:
    found = _installed(needed.name)
    if found is None:
        return f"{needed.name} is missing"
    if needed.specifier.contains(found, prereleases=True):
        return None
    return f"{needed.name} {found} is outside {needed.specifier}"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _ok(name: str, detail: str) -> Check:
    return {"name": name, "level": "ok", "detail": detail, "remedy": None}


def _warning(name: str, detail: str, remedy: str) -> Check:
    return {"name": name, "level": "warning", "detail": detail, "remedy": remedy}


def _error(name: str, detail: str, remedy: str) -> Check:
    return {"name": name, "level": "error", "detail": detail, "remedy": remedy}
