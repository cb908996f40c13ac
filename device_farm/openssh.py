"""OpenSSH's own client for a board: the same way and the same pinned keys as ours."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from device_farm.board_entry import BoardEntry
from device_farm.errors import FarmError
from device_farm.hostkeys import parse_host_key


def write_config(entry: BoardEntry, folder: Path) -> Path:
    """Write a configuration (ssh_config(5)) in which the board has its name, and return its path.

    It trusts the pinned keys alone, and reads nothing of the user's own configuration.
    """
    known, lines, names = folder / "known_hosts", list[str](), list[str]()
    with known.open("w") as file:
        for place, hop in enumerate(entry.hops()):
            names.append(f"hop-{place + 1}" if place + 1 < len(entry.hops()) else entry.name)
            key = parse_host_key(hop.host_key)
            file.write(f"{names[-1]} {key}\n")
            lines += [f"Host {names[-1]}", f"  HostName {hop.host}", f"  Port {hop.port}", f"  User {hop.user}",
                      f"  HostKeyAlias {names[-1]}", f"  HostKeyAlgorithms {_algorithms(key.type)}",
                      f"  UserKnownHostsFile {known}", "  GlobalKnownHostsFile /dev/null",
                      "  StrictHostKeyChecking yes", "  UpdateHostKeys no"]
            if hop.identity_file is not None:
                lines += [f"  IdentityFile {Path(hop.identity_file).expanduser()}", "  IdentitiesOnly yes"]
            if place:
                lines.append(f"  ProxyJump {names[-2]}")
    config = folder / "config"
    config.write_text("\n".join(lines) + "\n")
    return config


def run_ssh(entry: BoardEntry, command: Sequence[str]) -> int:
    """Run OpenSSH's client on this terminal, and return its exit status. Raises FarmError where there is none."""
    with TemporaryDirectory() as folder:
        config = write_config(entry, Path(folder))
        try:
            return subprocess.run(["ssh", "-F", str(config), entry.name, *command], check=False).returncode
        except FileNotFoundError as error:
            raise FarmError("OpenSSH's client is not installed here: sudo apt-get install openssh-client") from error


def _algorithms(key_type: str) -> str:
    """Return the signatures that a host key of a type makes."""
    return "rsa-sha2-512,rsa-sha2-256" if key_type == "ssh-rsa" else key_type
