"""The agent's side of the zygote."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from typing import Any

from profilers.agent.lines import LineReader, dump

TAIL_CHARACTERS = 4000
STOP_S = 2.0
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""NumPy must start no threads: the zygote forks."""


class WorkerDied(Exception):
    """The zygote ended."""


class Worker:
    """A running zygote. Must be made in the main thread, whose end the kernel reports to the zygote."""

    def __init__(self, command: list[str]) -> None:
        self._stderr = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115 - closed by stop()
        environment = dict(os.environ)
        environment.update(ONE_THREAD)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment)
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerDied("the zygote has no pipes")
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout
        self._lines = LineReader(self._stdout.fileno())

    @property
    def fd(self) -> int:
        """What to poll for events."""
        return self._lines.fd

    def alive(self) -> bool:
        """Tell whether the zygote runs."""
        return self._process.poll() is None

    def send(self, message: dict[str, Any]) -> None:
        """Give a job, or the word to kill its child. Raises WorkerDied."""
        try:
            self._stdin.write(dump(message) + b"\n")
            self._stdin.flush()
        except OSError as error:
            raise WorkerDied("the zygote takes no jobs") from error

    def fill(self) -> None:
        """Read what has come. Raises WorkerDied at the end."""
        if not self._lines.fill():
            raise WorkerDied("the zygote ended")

    def pop(self) -> tuple[bytes, dict[str, Any]] | None:
        """Return the next event, as it came and as it reads; half lines of killed children are skipped."""
        while True:
            line = self._lines.pop()
            if line is None:
                return None
            try:
                event = json.loads(line)
            except ValueError:
                continue
            return line, event

    def forget_stderr(self) -> None:
        """Make `stderr_tail` tell of the next child alone."""
        self._stderr.truncate(0)

    def stderr_tail(self) -> str:
        """Return the end of what the zygote and its child wrote to standard error, without notices."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 4 * TAIL_CHARACTERS))
        lines = self._stderr.read().decode(errors="replace").splitlines()
        told = [line for line in lines if line.strip() and not line.startswith("INFO:")]
        return "\n".join(told)[-TAIL_CHARACTERS:]

    def stop(self) -> None:
        """End the zygote, which ends its child."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._stderr.close()


def complaint(stderr: str) -> str:
    """Return the exceptions of a traceback in one line, or the last line, e.g. of the dynamic linker."""
    old_numpy = "built for NumPy 1, install numpy < 2; " if "compiled using NumPy 1.x" in stderr else ""
    exceptions = re.findall(r"^[\w.]+(?:Error|Exception)\b.*", stderr, re.MULTILINE)
    last = stderr.splitlines()[-1:] or ["it ended without a word"]
    return old_numpy + "; ".join(exceptions or last)


def describe_end(status: int) -> str:
    """Put a wait status into words: `SIGSEGV`, `exit code 70`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"
