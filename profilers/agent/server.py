"""The agent's main loop: one thread, which answers requests and watches the zygotes, one for each runtime."""

from __future__ import annotations

import os
import select
import time
from typing import Any, NamedTuple

from profilers.agent import facts, sensors
from profilers.agent import protocol as p
from profilers.agent.cache import Cache
from profilers.agent.governor import Governor
from profilers.agent.lines import LineReader, dump, write_line
from profilers.agent.lock import BoardLock
from profilers.agent.protocol import Refusal
from profilers.agent.requests import Request
from profilers.agent.worker import Worker, WorkerDied, complaint, describe_end

START_S = 90.0
"""Importing a runtime takes up to a few seconds on a slow board with a cold disk."""
NO_PROGRESS_S = 60.0
"""A batch run that finishes no inference in this time hangs."""
KILL_S = 5.0
COOLING_S = 1.0
"""Between two looks at the temperature."""


class ControllerGone(Exception):
    """The end of our input."""


class Settings(NamedTuple):
    """What the command line says."""

    root: str
    host: bool
    lock_file: str
    cache_bytes: int
    zygotes: dict[str, list[str]]
    """Runtime -> the command that starts its zygote."""
    version: str


def main(settings: Settings) -> None:
    """Serve until the controller closes our input."""
    out = os.dup(1)
    os.dup2(2, 1)  # what native libraries print must not reach the conversation
    server = Server(settings, out)
    try:
        server.serve()
    except (ControllerGone, BrokenPipeError):
        pass
    finally:
        server.stop()


class Server:
    """Answers one request after the other; beats while one takes time."""

    def __init__(self, settings: Settings, out: int) -> None:
        self._settings = settings
        self._out = out
        self._requests = LineReader(0)
        self._lock = BoardLock(settings.lock_file)
        self._governor = Governor()
        self._cache = Cache(settings.root, settings.cache_bytes)
        self._workers: dict[str, Worker] = {}
        self._versions: dict[str, str] = {}
        self._greeted = False
        self._sent = time.monotonic()
        self._handlers = {"lock": self._take_lock, "unlock": self._release_lock, "sensors": self._sensors,
                          "has": self._has, "free": self._free, "measure": self._measure, "run": self._run}

    def serve(self) -> None:
        """Say hello, then answer until `bye` or the end of the input."""
        reasons: dict[str, str] = {}
        for name in self._settings.zygotes:
            try:
                self._ready_worker(name)
            except Refusal as refusal:
                reasons[name] = refusal.message
        self._send({"type": "hello", "protocol": p.PROTOCOL, "agent_version": self._settings.version,
                    "facts": facts.read(), "runtimes": [
                        {"name": name, "version": self._versions.get(name), "reason": reasons.get(name)}
                        for name in self._settings.zygotes]})
        self._greeted = True
        while True:
            line = self._requests.pop()
            if line is None:
                if not self._requests.fill():
                    return
            elif not self._answer(line):
                return

    def stop(self) -> None:
        """End the zygotes and give the lock back."""
        for name in list(self._workers):
            self._drop_worker(name)
        self._governor.release()
        self._lock.release()

    def _answer(self, line: bytes) -> bool:
        """Answer one line; False after `bye`."""
        seq = None
        try:
            request = Request.parse(line)
            seq = request.seq
            if request.type == "bye":
                self._send({"type": "ok", "seq": seq})
                return False
            handler = self._handlers.get(request.type)
            if handler is None:
                raise Refusal(p.UNKNOWN_REQUEST, "unknown request {!r}; known: bye, {}".format(
                    request.type, ", ".join(sorted(self._handlers))))
            reply = handler(request)
        except Refusal as refusal:
            reply = refusal.reply()
        except OSError as error:
            reply = Refusal(p.STORAGE, f"{error.filename or self._settings.root}: {error.strerror}").reply()
        if reply is not None:
            reply["seq"] = seq
            self._send(reply)
        return True

    def _send(self, message: dict[str, Any]) -> None:
        write_line(self._out, dump(message))
        self._sent = time.monotonic()

    # -- quick requests ---------------------------------------------------------------------------

    def _take_lock(self, request: Request) -> dict[str, Any]:
        self._lock.acquire(request.integer("token"), request.text("owner"), request.text("series"))
        self._governor.hold()
        return {"type": "ok", "warning": self._governor.complaint}

    def _release_lock(self, _: Request) -> dict[str, Any]:
        self._governor.release()
        self._lock.release()
        return {"type": "ok"}

    def _sensors(self, _: Request) -> dict[str, Any]:
        return {"type": "sensors", "sensors": sensors.read()}

    def _has(self, request: Request) -> dict[str, Any]:
        path = self._cache.path("artifacts", request.text("sha256"))
        return {"type": "has", "present": self._cache.has(path, request.optional_integer("size_bytes"))}

    def _free(self, _: Request) -> dict[str, Any]:
        return {"type": "free", "bytes": self._cache.free_bytes()}

    # -- work in the zygote's children ------------------------------------------------------------

    def _measure(self, request: Request) -> None:
        if self._settings.host:
            raise Refusal(p.BAD_REQUEST, "an agent that was started with --host does not measure")
        settings, care = request.measure_settings(), request.care()
        sha256, inputs = request.text("sha256"), request.text("inputs")
        job = {"type": "measure", "seq": request.seq, "runtime": self._runtime(request), "sha256": sha256,
               "settings": settings,
               "artifact": self._cache.path("artifacts", sha256),
               "inputs": self._cache.path("inputs", inputs), "outputs": self._cache.path("outputs", sha256),
               "cores": care["cores"]}
        self._work(job, request.optional_integer("size_bytes"), settings["timeout_s"], care)

    def _run(self, request: Request) -> None:
        sha256 = request.text("sha256")
        job = {"type": "run", "seq": request.seq, "runtime": self._runtime(request), "sha256": sha256,
               "threads": request.integer("threads"), "limit": request.optional_integer("limit"),
               "outputs": request.text("outputs"),
               "artifact": request.optional_text("artifact") or self._cache.path("artifacts", sha256),
               "inputs": request.text("inputs")}
        self._work(job, None, NO_PROGRESS_S)

    def _runtime(self, request: Request) -> str:
        """Return the runtime that a request names. Raises Refusal."""
        name = request.text("runtime")
        if name not in self._settings.zygotes:
            raise Refusal(p.BAD_REQUEST, "{}: no runtime {!r} here; this agent was started with {}".format(
                request.type, name, ", ".join(self._settings.zygotes)))
        return name

    def _cool_down(self, below_c: float | None, longest_s: float) -> float:
        """Wait until the processor is cool enough; return how long that took.

        Raises:
            Refusal: it stays hotter.
            ControllerGone: our input ended.
        """
        began = time.monotonic()
        while below_c is not None:
            temperature, waited = sensors.temperature_c(), time.monotonic() - began
            if temperature is None or temperature <= below_c:
                return waited
            if waited >= longest_s:
                raise Refusal(p.TOO_HOT, f"the processor is at {temperature:.0f} degrees C after {waited:.0f} s of "
                              f"rest, expected {below_c:g} or less")
            ready, _, _ = select.select([self._requests.fd], [], [], COOLING_S)
            if ready and not self._requests.fill():
                raise ControllerGone
            if time.monotonic() - self._sent >= p.HEARTBEAT_S:
                self._send({"type": "heartbeat"})
        return 0.0

    def _work(self, job: dict[str, Any], size_bytes: int | None, limit_s: float,
              care: dict[str, Any] | None = None) -> None:
        """Have a fresh child do the job; its reply goes out as soon as it is there.

        Raises:
            Refusal: something is missing, or the child crashed or hung.
        """
        if not self._settings.host and not self._lock.held:
            raise Refusal(p.NOT_LOCKED, "no measurement without the lock: send `lock` first")
        missing = [name for name, size in (("artifact", size_bytes), ("inputs", None))
                   if not self._cache.has(job[name], size)]
        if missing:
            raise Refusal(p.MISSING, f"not here: {', '.join(job[name] for name in missing)}", missing=missing)
        if care is not None:
            job["cooled_s"] = self._cool_down(care["cool_below_c"], care["cool_down_s"])
        worker = self._ready_worker(job["runtime"])
        worker.forget_stderr()
        try:
            worker.send(job)
            self._follow(worker, job, limit_s)
        except WorkerDied:
            tail = worker.stderr_tail()
            self._drop_worker(job["runtime"])
            raise Refusal(p.RUNTIME_LOST, "the process that holds the runtime ended; standard error: "
                          f"{tail or 'empty'}") from None
        self._cache.trim()

    def _follow(self, worker: Worker, job: dict[str, Any], limit_s: float) -> None:
        """Pass the child's reply on, or say how it died."""
        answered = killed = False
        deadline = time.monotonic() + limit_s
        while True:
            event = self._next_event(worker, deadline)
            if event is None:
                if killed:
                    raise WorkerDied("its child cannot be killed")
                worker.send({"type": "kill"})
                killed, deadline = True, time.monotonic() + KILL_S
                continue
            line, message = event
            if message["type"] == "progress":
                deadline = time.monotonic() + limit_s
            elif message["type"] == "ended":
                break
            elif not killed:
                self._drop_if_corrupt(message, job)
                write_line(self._out, line)
                answered = True
        if answered:
            return
        if killed:
            raise Refusal(p.HANG, f"the artifact did not finish within {limit_s:g} s")
        how, tail = describe_end(message["status"]), worker.stderr_tail()
        raise Refusal(p.CRASH, f"the runtime ended with {how} while running the artifact",
                      how=how, stderr=tail)

    def _drop_if_corrupt(self, message: dict[str, Any], job: dict[str, Any]) -> None:
        """Delete a damaged file of our cache, so that a good copy can replace it."""
        ours = job["artifact"] == self._cache.path("artifacts", job["sha256"])
        if ours and message.get("code") == p.CORRUPT:
            os.unlink(job["artifact"])

    # -- the zygotes ------------------------------------------------------------------------------

    def _ready_worker(self, runtime: str) -> Worker:
        """Return a zygote that has loaded a runtime. Raises Refusal when the runtime is broken."""
        if runtime in self._workers and self._workers[runtime].alive():
            return self._workers[runtime]
        self._drop_worker(runtime)
        worker = self._workers[runtime] = Worker(self._settings.zygotes[runtime])
        try:
            event = self._next_event(worker, time.monotonic() + START_S)
        except WorkerDied:
            event = None
        if event is None:
            tail = worker.stderr_tail()
            self._drop_worker(runtime)
            raise Refusal(p.RUNTIME_BROKEN, f"{runtime} does not start here: {complaint(tail)}", stderr=tail)
        self._versions[runtime] = event[1]["version"]
        return worker

    def _drop_worker(self, runtime: str) -> None:
        worker = self._workers.pop(runtime, None)
        if worker is not None:
            worker.stop()

    def _next_event(self, worker: Worker, deadline: float) -> tuple[bytes, dict[str, Any]] | None:
        """Wait for the zygote's next event; None at the deadline. Beats after the hello.

        Raises:
            ControllerGone: our input ended.
            WorkerDied: the zygote ended.
        """
        poll = select.poll()
        poll.register(worker.fd, select.POLLIN)
        poll.register(self._requests.fd, select.POLLIN)
        while True:
            event = worker.pop()
            if event is not None:
                return event
            now = time.monotonic()
            if now >= deadline:
                return None
            wait_s = deadline - now
            if self._greeted:
                if now - self._sent >= p.HEARTBEAT_S:
                    self._send({"type": "heartbeat"})
                wait_s = min(wait_s, self._sent + p.HEARTBEAT_S - now)
            ready = {fd for fd, _ in poll.poll(max(1.0, 1000 * wait_s))}
            if self._requests.fd in ready and not self._requests.fill():
                raise ControllerGone
            if worker.fd in ready:
                worker.fill()
