"""A real OpenSSH server on 127.0.0.1, with keys of its own and without root: a board for tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_farm.board_entry import BoardEntry, Hop

START_S = 20.0


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running server and everything a client needs."""

    process: subprocess.Popen[bytes]
    port: int
    host_key: str
    identity_file: Path
    root: Path
    """A folder for the board's files."""
    user: str

    def hop(self) -> Hop:
        """Return the server as a jump host."""
        return Hop(
            host="127.0.0.1",
            port=self.port,
            user=self.user,
            host_key=self.host_key,
            identity_file=str(self.identity_file),
        )

    def entry(self, name: str = "loopback", **changes: object) -> BoardEntry:
        """Return the server as a board, with the given fields changed."""
        fields: dict[str, object] = {**self.hop().model_dump(), "root": str(self.root), "shares_host": "allowed"}
        return BoardEntry.model_validate({"name": name, "kind": "x86-test", **fields, **changes})

    def sessions(self) -> list[int]:
        """Return the process ids of the server's children: one or two for every connection."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in tasks.read_text().split()]

    def kill_sessions(self) -> None:
        """Kill every connection at once, as a reboot would; the server itself lives on."""
        for pid in self.sessions():
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the server and its connections."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            self.kill_sessions()
        self.process.terminate()
        self.process.wait(10)


@contextlib.contextmanager
def running_sshd(folder: Path, *, mounts: str = "") -> Iterator[Sshd]:
    """Start a server whose files lie in a folder, and stop it at the end.

    Args:
        folder: An empty folder for keys, configuration and the board's root.
        mounts: Shell commands that run first in a mount namespace which only this server sees; `$root` is the
            board's folder. They need root or unprivileged user namespaces.
    """
    sshd = _needed("sshd", "openssh-server")
    keygen = _needed("ssh-keygen", "openssh-client")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    root = folder / "board"
    root.mkdir()
    for name in ("host", "client"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    if os.geteuid() == 0:  # sshd insists on this folder when root starts it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    (folder / "sshd_config").write_text(_CONFIG.format(folder=folder, port=port))
    command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    if mounts:
        command = _with_mounts(command, mounts, root)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Sshd(
        process,
        port,
        (folder / "host.pub").read_text().strip(),
        folder / "client",
        root,
        pwd.getpwuid(os.geteuid()).pw_name,
    )
    try:
        _wait(server, folder / "log")
        yield server
    finally:
        server.stop()


_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
MaxStartups 200
MaxSessions 64
SetEnv SHLVL=1
"""
# SHLVL: bash leaves out the ~/.bashrc of whoever runs the tests, which may take 100 ms for each command.


def _needed(program: str, package: str) -> str:
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"this test needs {program}: sudo apt-get install {package}")
    return found


def _with_mounts(command: list[str], mounts: str, root: Path) -> list[str]:
    """Run a server in a mount namespace; as a user, also in a user namespace where it keeps its own id."""
    unshare = _needed("unshare", "util-linux")
    if os.geteuid() == 0:
        launch, server = [unshare, "--mount"], command
    else:
        launch = [unshare, "--user", "--map-root-user", "--mount"]
        ids = [f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"]
        server = [unshare, "--user", *ids, *command]
    return [*launch, "sh", "-ec", f"root={shlex.quote(str(root))}; {mounts}; exec {shlex.join(server)}"]


def _wait(server: Sshd, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return
        time.sleep(0.02)
    pytest.fail(f"sshd did not start:\n{log.read_text()}")
