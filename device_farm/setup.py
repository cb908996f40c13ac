"""Install a runtime on a board, or beside the host's own packages."""

from __future__ import annotations

import json
import platform
import secrets
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from device_farm.board_entry import RUNTIME_NAMES, BoardEntry, RuntimeSpec
from device_farm.errors import SetupFailed
from device_farm.probe import Probe, PythonProbe, probe_board, read_glibc
from device_farm.runtime import TFLITE, RuntimePlan, choose_runtime, plan_runtime
from device_farm.transport import Transport
from device_farm.wheels import archive, fetch

__all__ = ["RuntimePlan", "host_runtime", "plan_runtime", "runtime_folder", "setup_runtime", "verify_runtime"]

UNPACK_S = 600.0
VERIFY_S = 120.0

_VERIFY = """\
import importlib, importlib.metadata, json, sys
try:
    importlib.import_module(sys.argv[1])
    import numpy
except Exception as error:
    sys.exit("%s: %s" % (type(error).__name__, error))
print(json.dumps({"version": importlib.metadata.version(sys.argv[2]), "numpy": numpy.__version__}))
"""

_UNPACK = """\
import os, shutil, sys, tarfile, time
archive, part = sys.argv[1:]
folder = os.path.dirname(part)
for name in os.listdir(folder):
    path = os.path.join(folder, name)
    if ".part" in name and time.time() - os.lstat(path).st_mtime > 3600:  # left by a set-up that was cut off
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
try:
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(part, filter="data")
        else:
            tar.extractall(part)
except (OSError, tarfile.TarError) as error:
    shutil.rmtree(part, ignore_errors=True)
    sys.exit(str(error))
finally:
    os.remove(archive)
"""

_REPLACE = """\
import os, shutil, sys
part, goal = sys.argv[1:]
old = part + ".old"
if os.path.lexists(goal):
    os.rename(goal, old)
os.rename(part, goal)
shutil.rmtree(old, ignore_errors=True)
"""


def runtime_folder(root: str, plan: RuntimePlan) -> str:
    """Return where a runtime lies on a board: what PYTHONPATH must name."""
    return f"{root}/runtimes/{plan.folder_name}"


def _leave_helper(transport: Transport, probe: Probe, progress: Callable[[str], None]) -> None:
    """Put the helper for the governor within a person's reach, where there is a governor and no helper."""
    if probe.helper or not probe.governors or probe.governors == ("performance",):
        return
    transport.push(Path(__file__).with_name("helper.sh"), f"{probe.root}/helper")
    progress(f"{probe.root}/helper sets the governor while it measures, once you install it: docs/inventory.md, "
             "'Measuring undisturbed'")


def setup_runtime(
    transport: Transport,
    entry: BoardEntry,
    cache: Path,
    progress: Callable[[str], None] = lambda _: None,
    names: Sequence[str] = TFLITE,
) -> str:
    """Install one of some runtimes unless it is there and runs; the board needs no internet.

    Args:
        transport: The way to the board.
        entry: Its inventory entry: root folder, Python, wanted runtime.
        cache: A folder on the host for what is fetched.
        progress: Told each step in words.
        names: The runtimes that would do.

    Returns:
        The folder on the board, for PYTHONPATH.

    Raises:
        SetupFailed: No runtime fits, cannot be fetched, or does not run there.
        FarmError: The board failed.
    """
    probe = probe_board(transport, entry)
    _leave_helper(transport, probe, progress)
    plan = plan_runtime(probe, entry.runtime, names)
    folder = runtime_folder(probe.root, plan)
    if _has(probe, plan):
        try:
            found = verify_runtime(transport, entry, folder, plan)
        except SetupFailed as error:
            progress(f"{plan.folder_name} is there but does not run ({error}): installing it again")
        else:
            progress(f"{found} is there already: nothing to do")
            return folder
    python = f"Python {plan.python[0]}.{plan.python[1]}"
    progress(f"fetching {plan.folder_name} for {python} on {plan.machine}")
    source = archive(plan, cache)
    progress(f"pushing {source.stat().st_size / 1e6:.0f} MB to {transport.address}")
    part = f"{probe.root}/runtimes/.{plan.folder_name}.part-{secrets.token_hex(4)}"
    transport.push(source, f"{part}.tar.gz")
    progress("unpacking and checking")
    _python(transport, entry, _UNPACK, (f"{part}.tar.gz", part), "unpack", UNPACK_S)
    try:
        found = verify_runtime(transport, entry, part, plan)
    except SetupFailed:
        transport.run(["rm", "-rf", "--", part], VERIFY_S)
        raise
    _python(transport, entry, _REPLACE, (part, folder), "put in place", VERIFY_S)
    progress(f"{found} is installed in {folder}")
    return folder


def verify_runtime(transport: Transport, entry: BoardEntry, folder: str, plan: RuntimePlan) -> str:
    """Import a runtime on the board and return `litert 2.3.0 with numpy 2.4.6`. Raises SetupFailed or FarmError."""
    runtime = plan.runtime
    argv = [entry.python, "-s", "-c", _VERIFY, runtime.module, runtime.package]
    done = transport.run(["env", f"PYTHONPATH={folder}", *argv], VERIFY_S)
    if done.returncode:
        reason = done.stderr.strip() or f"it ended with {done.returncode}"
        hint = "; sudo apt-get install python3-numpy" if plan.numpy_from_board and "numpy" in reason else ""
        raise SetupFailed(f"{transport.address}: {plan.folder_name} does not run there: {reason}{hint}")
    found = json.loads(done.stdout)
    if found["version"] != plan.version:
        raise SetupFailed(f"{transport.address}:{folder}: expected {plan.version}, got {found['version']}")
    return f"{runtime.name} {found['version']} with numpy {found['numpy']}"


def host_runtime(name: str, version: str, cache: Path) -> Path:
    """Return a folder with a runtime for this Python, made once; several processes may ask at once.

    It is for a child process (`PYTHONPATH`, `-s`): its numpy may differ from this process's.

    Raises:
        SetupFailed: It does not exist for this machine, or cannot be fetched.
    """
    if name not in RUNTIME_NAMES:
        raise SetupFailed(f"unknown runtime {name!r}: expected one of {', '.join(RUNTIME_NAMES)}")
    python = PythonProbe(sys.version_info[:3], 8 * struct.calcsize("P"), platform.python_implementation(), ())
    glibc = read_glibc(" ".join(platform.libc_ver()))
    wanted = RuntimeSpec.model_validate({"name": name, "version": version})
    plan = choose_runtime(platform.machine(), python, glibc, wanted)
    goal = cache / "host" / plan.key
    goal.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{goal}.lock"):
        if not goal.exists():
            with tempfile.TemporaryDirectory(dir=goal.parent, prefix=".fetch.") as part:
                folder = Path(part) / goal.name
                fetch(plan, folder)
                folder.replace(goal)
    return goal


def _has(probe: Probe, plan: RuntimePlan) -> bool:
    return probe.python is not None and plan.folder_name in probe.python.runtimes


def _python(
    transport: Transport, entry: BoardEntry, script: str, arguments: tuple[str, ...], what: str, timeout_s: float
) -> None:
    done = transport.run([entry.python, "-s", "-c", script, *arguments], timeout_s)
    if done.returncode:
        raise SetupFailed(f"{transport.address}: cannot {what} {arguments[0]}: {done.stderr.strip()[-500:]}")
