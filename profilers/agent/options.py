"""The agent's command line."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys

from profilers.agent import server, zygote
from profilers.agent.protocol import LOCK_FILE, RUNTIMES

GIGABYTE = 1 << 30


def main(argv: list[str]) -> None:
    """Run the agent, or with --zygote its helper that holds the runtime."""
    parser = argparse.ArgumentParser(
        prog="agent", description="Runs artifacts; talks JSON lines on stdin and stdout.")
    parser.add_argument("--root", required=True, help="folder for artifacts, inputs and outputs")
    parser.add_argument("--runtime", required=True, action="append", type=_runtime, metavar="NAME[=FOLDER]",
                        help="may be repeated; without a folder: this Python's own packages")
    parser.add_argument("--host", action="store_true", help="accuracy runs: no lock, no measurements")
    parser.add_argument("--lock-file", default=LOCK_FILE)
    parser.add_argument("--cache-bytes", type=int, default=GIGABYTE)
    parser.add_argument("--zygote", action="store_true", help="for the agent's own use")
    options = parser.parse_args(argv)
    if options.zygote:
        zygote.main(*options.runtime[0])
        return
    program = os.path.abspath(sys.argv[0])
    command = [sys.executable, program, "--zygote", "--root", options.root, "--runtime"]
    zygotes = {name: [*command, f"{name}={folder}" if folder else name] for name, folder in options.runtime}
    server.main(server.Settings(
        root=os.path.abspath(options.root), host=options.host, lock_file=options.lock_file,
        cache_bytes=options.cache_bytes, zygotes=zygotes, version=_version(program)))


def _runtime(text: str) -> tuple[str, str | None]:
    """Read NAME or NAME=FOLDER. Raises ArgumentTypeError."""
    name, _, folder = text.partition("=")
    if name not in RUNTIMES:
        raise argparse.ArgumentTypeError("no runtime is called {!r}; known: {}".format(name, ", ".join(RUNTIMES)))
    return name, folder or None


def _version(program: str) -> str:
    """Return the first 12 digits of the zipapp's SHA-256."""
    if not os.path.isfile(program) or program.endswith(".py"):
        return "source"
    with open(program, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]
