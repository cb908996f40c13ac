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
        for _ in range(5):  # the kernel's list of children may miss some while others come and go
            for pid in self.sessions():
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                        os.kill(int(child), signal.SIGKILL)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Stop every connection's process meanwhile: nothing is refused, closed or answered."""
        pids = self.sessions()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

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
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    root = folder / "board"
    root.mkdir()
    for name in ("host", "client"):
        new_key(folder / name)
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    if os.geteuid() == 0:  # sshd insists on this folder when root starts it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    (folder / "sshd_config").write_text(_CONFIG.format(folder=folder, port=port))
    command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    if mounts:
        command = with_mounts(command, mounts, root)
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


def new_key(path: Path, *, kind: str = "ed25519", locked_by: str = "") -> str:
    """Make a key pair and return the public key."""
    keygen = _needed("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", kind, "-N", locked_by, "-C", "", "-f", str(path)], check=True)
    return path.with_name(f"{path.name}.pub").read_text().strip()


def fingerprint(public_key: Path) -> str:
    """Return what ssh-keygen calls a key: `SHA256:...`."""
    keygen = _needed("ssh-keygen", "openssh-client")
    done = subprocess.run([keygen, "-l", "-f", str(public_key)], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _needed(program: str, package: str) -> str:
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"this test needs {program}: sudo apt-get install {package}")
    return found


def with_mounts(command: list[str], mounts: str, root: Path) -> list[str]:
    """Return the command in a mount namespace; as a user, also in a user namespace where it keeps its own id."""
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
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1) as probe:
            # The kernel takes a connection before sshd does. The greeting comes from the connection's own process:
            # from here on it is among the sessions, until it ends.
            probe.settimeout(max(0.0, deadline - time.monotonic()))
            if probe.recv(4) == b"SSH-":
                break
        time.sleep(0.02)
    while server.process.poll() is None and time.monotonic() < deadline:
        if not server.sessions():  # also that of the connection above
            return
        time.sleep(0.02)
    pytest.fail(f"sshd did not start:\n{log.read_text()}")
