"""Tasks for worker processes, and a controller to kill: importable by spawned processes, quickly."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.executor import HostPool
from search.errors import InfeasibleCandidate


def square(number: int) -> int:
    return number * number


def worker_pid() -> int:
    return os.getpid()


def slow_square(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number * number


def note_pid(folder: Path, seconds: float, result: int) -> int:
    """Say in a file which process works on this, then take time."""
    (folder / f"pid-{os.getpid()}-{result}").touch()
    time.sleep(seconds)
    return result


def die(tries: Path) -> None:
    """Kill this worker, every time; `tries` counts."""
    with tries.open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(marker: Path, result: int) -> int:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def refuse(reason: str) -> None:
    raise InfeasibleCandidate(reason)


def shout(text: str) -> None:
    """Print from Python and from below it, on both streams."""
    print(text, flush=True)
    os.write(1, f"{text} native\n".encode())
    os.write(2, f"{text} error\n".encode())


def interrupt_self() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


def leave_a_file() -> str:
    """Leave something in the folder for temporary files, as killed tasks do; return the folder."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"left")
    return tempfile.gettempdir()


def main(folder: Path) -> None:
    """Be a controller with a busy and an idle worker, until killed."""
    pool = HostPool(2, folder / "log")
    pool.submit(slow_square, 2, 600.0)
    for _ in range(4):
        (folder / "idle-pid").write_text(str(pool.submit(worker_pid).result()))
    print(pool.submit(leave_a_file).result(), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
