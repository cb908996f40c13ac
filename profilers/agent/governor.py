"""Has a helper hold the frequency governor while the machine's lock is held."""

from __future__ import annotations

import contextlib
import os
import subprocess

HELPER = "/usr/local/sbin/hil-orchestrator-helper"
ANSWER_S = 5.0


class Governor:
    """Runs the helper's `hold`, which ends with its input: with this process at the latest.

    Args:
        helper: path of the helper; nothing happens where there is none.
    """

    def __init__(self, helper: str = HELPER) -> None:
        self._helper = helper
        self._process: subprocess.Popen[bytes] | None = None
        self.complaint: str | None = None
        """Why the governor is not held, where there is a helper."""

    def hold(self) -> None:
        """Set `performance` until `release` or this process's end; what fails is in `complaint`."""
        if self._process is not None or not os.path.exists(self._helper):
            return
        command = [self._helper, "hold"] if os.geteuid() == 0 else ["sudo", "-n", self._helper, "hold"]
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        except OSError as error:
            self.complaint = f"{command[0]}: {error.strerror}"
            return
        said = process.stdout.readline().decode(errors="replace").strip() if process.stdout else ""
        if said == "held":
            self._process = process
            return
        _end(process)
        self.complaint = f"{' '.join(command)}: {said[:200] or 'it ended without a word'}"

    def release(self) -> None:
        """Have the governor put back as it was."""
        if self._process is not None:
            _end(self._process)
            self._process = None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(ANSWER_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
