"""Imports the runtime once and forks a fresh child for every artifact."""

from __future__ import annotations

import base64
import gc
import importlib
import importlib.metadata
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from profilers.agent.lines import LineReader, dump, write_line
from profilers.agent.processes import die_first, die_with_parent
from profilers.agent.protocol import RUNTIMES

FAILED = 70
"""Exit code of a child that ended with a Python exception."""
PROBE = (
    "GAAAAFRGTDMAAA4AGAAUABAADAAIAAQADgAAABQAAABEAAAATAAAAFgBAAADAAAAAgAAACwAAAAMAAAAAAAGAAgABAAGAAAABAAAABAAAAAA"
    "AIA/AAAAQAAAQEAAAIBAnP///wUAAABwcm9iZQAAAAEAAAAQAAAADAAUABAADAAIAAQADAAAABAAAABYAAAAXAAAAGAAAAABAAAAFAAAAAAA"
    "DgAUAAAAEAAMAAsABAAOAAAAFAAAAAAAAAgQAAAAFAAAAAQABAAEAAAAAQAAAAIAAAADAAAAAAAAAAEAAAD/////AQAAAAIAAAABAAAAAAAA"
    "AAMAAABoAAAANAAAAAQAAACw////CAAAAAwAAAABAAAAeQAAAAIAAAABAAAAAgAAAAwAEAAMAAAACAAEAAwAAAAMAAAAAQAAAAwAAAABAAAA"
    "dwAAAAIAAAACAAAAAgAAAAwADAAIAAAAAAAEAAwAAAAIAAAADAAAAAEAAAB4AAAAAgAAAAEAAAACAAAAAQAAABAAAAAMAAwACwAAAAAABAAM"
    "AAAACQAAAAAAAAk=")
"""A model of 416 bytes: one float FULLY_CONNECTED, [[1, 2], [3, 4]] x."""


def main(runtime_name: str, folder: str | None) -> None:
    """Load and try the runtime, then fork a child per job line until the input ends.

    A runtime that cannot be imported ends the process with the reason on standard error.
    """
    die_with_parent(os.getppid())
    out = os.dup(1)
    os.dup2(2, 1)
    if folder:
        sys.path.insert(0, folder)
    module_name, distribution = RUNTIMES[runtime_name]
    runtime = importlib.import_module(module_name)
    if hasattr(runtime, "try_out"):
        runtime.try_out()
    else:
        _try(runtime)
    from profilers.agent.session import perform  # needs NumPy, which may lie in `folder`

    write_line(out, dump({"type": "ready", "version": importlib.metadata.version(distribution)}))
    gc.collect()
    gc.freeze()
    Zygote(runtime, perform, out).serve()


def _try(runtime: Any) -> None:
    """Run the probe: some runtimes import well and fail when an interpreter is made (NumPy 2)."""
    import numpy as np

    interpreter = runtime.Interpreter(model_content=base64.b64decode(PROBE), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones((1, 2), np.float32))
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist()
    if got != [[3.0, 7.0]]:
        sys.exit(f"the runtime computes [[1, 2], [3, 4]] x [1, 1] = {got}, expected [[3, 7]]")


class Zygote:
    """Serves one job at a time."""

    def __init__(self, runtime: Any, perform: Callable[..., None], out: int) -> None:
        self._runtime = runtime
        self._perform = perform
        self._out = out
        self._jobs = LineReader(0)

    def serve(self) -> None:
        """Take jobs until the input ends."""
        while True:
            line = self._jobs.pop()
            if line is None:
                if not self._jobs.fill():
                    return
                continue
            job = json.loads(line)
            if job["type"] != "kill":  # else its child has just ended by itself
                self._run(job)

    def _run(self, job: dict[str, Any]) -> None:
        """Fork a child for the job, and tell how it ended."""
        parent = os.getpid()
        ended, alive = os.pipe()  # closed by the child's end, whatever that is
        pid = os.fork()
        if pid == 0:
            self._be_child(job, parent)
        os.close(alive)
        go_on = self._watch(pid, ended)
        os.close(ended)
        _, status = os.waitpid(pid, 0)
        # The child may have been killed in the middle of a line.
        write_line(self._out, b"\n" + dump({"type": "ended", "status": status}))
        if not go_on:
            sys.exit(0)

    def _watch(self, pid: int, ended: int) -> bool:
        """Wait for the child's end; kill it when told to, or when the agent is gone (then return False)."""
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self._jobs.fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if ended in ready:
                return True
            if not self._jobs.fill():
                os.kill(pid, signal.SIGKILL)
                return False
            if self._jobs.pop() is not None:  # while a child runs, the only word is "kill"
                os.kill(pid, signal.SIGKILL)

    def _be_child(self, job: dict[str, Any], parent: int) -> None:
        """Do the job and end. Never returns."""
        code = FAILED
        try:
            die_with_parent(parent)
            die_first()
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            self._perform(job, self._runtime, lambda message: write_line(self._out, dump(message)))
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)  # no destructors: they belong to the zygote
