"""An emulated aarch64 board behind a real SSH server: what it needs, its root file system, its life."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

from tests.aarch64.pi4 import write_pi4
from tests.sshd import free_port, new_key

HERE = Path(__file__).parent
BINFMT = Path("/proc/sys/fs/binfmt_misc")
BINFMT_RULE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
"""Debian's and Ubuntu's: the static emulator, opened at registration (flag F), so that a chroot needs no copy."""
PACKAGES = {
    BINFMT_RULE: "qemu-user-static",
    Path("/usr/bin/ssh-keygen"): "openssh-client",
    Path("/usr/bin/unshare"): "util-linux",
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"): "debian-archive-keyring",
}
START_S = 60.0
USER = "pi"


@dataclass(frozen=True, slots=True)
class EmulatedBoard:
    """A running board and what a client needs."""

    port: int
    identity_file: Path
    log: Path
    """What sshd says."""


def missing() -> str | None:
    """Return why no board can run here and what to do; None when one can."""
    absent = sorted(package for file, package in PACKAGES.items() if not file.exists())
    if absent:
        return f"these tests need packages: sudo apt-get install {' '.join(absent)}"
    if os.geteuid() != 0:
        return "these tests mount file systems, which needs root: sudo make test-boards"
    if not (BINFMT / "register").exists():
        return f"{BINFMT} is not mounted; as root: mount -t binfmt_misc binfmt_misc {BINFMT}"
    rule = BINFMT / "qemu-aarch64"
    text = rule.read_text() if rule.exists() else "no such file"
    flags = next((line.split()[1] for line in text.splitlines() if line.startswith("flags: ")), "")
    if text.startswith("enabled") and "F" in flags:
        return None
    forget = f"echo -1 > {rule} && " if rule.exists() else ""
    remedy = f"as root: {forget}cat {BINFMT_RULE} > {BINFMT}/register"
    return f"{rule}: expected 'enabled' and flag F, got {' '.join(text.split())!r}; {remedy}"


def root_file_system() -> Path:
    """Return a folder with the board's system, made once by rootfs.sh and made again when that changes."""
    script = HERE / "rootfs.sh"
    cache = platformdirs.user_cache_path("hil-orchestrator-tests", appauthor=False)
    cache.mkdir(parents=True, exist_ok=True)
    goal = cache / f"aarch64-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
    with FileLock(f"{goal}.lock"):
        if not goal.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=".making.") as part:
                made = subprocess.run([script, f"{part}/root"], capture_output=True, text=True, check=False)
                if made.returncode:
                    pytest.fail(f"{script.name} failed with {made.returncode}:\n{made.stdout}{made.stderr}")
                Path(part, "root").rename(goal)
    return goal


@contextlib.contextmanager
def running_board(folder: Path) -> Iterator[EmulatedBoard]:
    """Start a board whose state lies in a folder, and end it with everything that runs on it.

    The board ends with its first process, that with `unshare`, and that with this process, however it ends.
    """
    system = root_file_system()
    for name in ("host", "client"):
        new_key(folder / name)
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    write_pi4(folder)
    port, log = free_port(), folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork",
             "--kill-child=KILL", str(HERE / "board.sh"), str(system), str(folder), str(port)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        _wait(process, port, log)
        yield EmulatedBoard(port, folder / "client", log)
    finally:
        process.kill()  # unshare blocks SIGTERM
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            if sock.recv(4) == b"SSH-":
                return
        time.sleep(0.1)
    pytest.fail(f"the board did not start:\n{log.read_text()}")
