"""Runs artifacts on a board or on the host, through one agent."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_farm.errors import AgentMismatch, FarmError, PushFailed
from device_farm.facts import BoardFacts
from device_farm.transport import Transport
from profilers.agent import protocol
from profilers.conversation import AgentError, Conversation, Message
from profilers.measurement import Care, Conditions, KernelTime, Measurement, MeasureSettings, Sensors
from profilers.refusals import translated
from recipes.artifact import Artifact

UNCARED = Care()
GRACE_S = 30.0
"""The agent may need this much longer than `timeout_s`: loading its runtime again, killing a child."""
START_S = 120.0
"""Of each runtime: the agent tries them all before its hello."""


@dataclass(frozen=True, slots=True)
class RuntimePlace:
    """A runtime and the Python that runs it."""

    name: str
    """`litert`, `tflite-runtime` or `tvm`."""
    python: str
    """A command or an absolute path, >= 3.8."""
    folder: str | None = None
    """Holds the runtime's packages; None: the Python's own."""


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredSession:
    """What one timed session brought home."""

    measurement: Measurement
    outputs: tuple[NDArray[Any], ...]
    """The outputs on the golden inputs, (examples, ...) each, in the artifact's order."""


class Runner(Protocol):
    """Something that runs artifacts."""

    @property
    def facts(self) -> BoardFacts:
        """What the machine is."""

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings,
                runtime: str | None = None) -> MeasuredSession:
        """Run the golden inputs, warm up, and time. Raises InfeasibleCandidate or FarmError."""

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None,
            runtime: str | None = None) -> None:
        """Run a file of examples (or the first `limit`). Raises InfeasibleCandidate or FarmError."""

    def close(self) -> None:
        """End what runs there; never raises."""


class AgentRunner:
    """A runner that talks to an agent over a transport. Not shared between threads."""

    def __init__(self, transport: Transport, *, root: str, runtimes: Sequence[RuntimePlace], agent: Path, board: str,
                 kind: str, host: bool = False, lock_file: str | None = None, threads: int = 1,
                 heartbeat_timeout_s: float = 15.0, cache_bytes: int = 1 << 30,
                 pusher: Transport | None = None, warnings: Sequence[str] = (), care: Care = UNCARED) -> None:
        """Push the agent where it is missing, start it and check what it says.

        Args:
            transport: the way to the machine; the caller closes it.
            root: absolute folder on the machine for the agent, artifacts, inputs and outputs.
            runtimes: what runs artifacts there, all with one Python; the first one unless another is named.
            agent: what `build_agent` wrote.
            board: the board's name in the inventory.
            kind: the kind of board, e.g. `rpi4`.
            host: no lock, no measurements, and paths need no copies: for accuracy on this machine.
            lock_file: another place than the one that all boards of a boot share.
            threads: threads of the runtime in `run`; `measure` takes them from its settings.
            heartbeat_timeout_s: silence for so long is a stall.
            cache_bytes: the board keeps this much of artifacts, inputs and outputs.
            warnings: what may make the machine's figures poor.
            care: where measurements run there, and what they wait for.
            pusher: a second way to the machine, on which `prefetch` copies while something is measured.

        Raises:
            AgentMismatch: no fitting Python, agent or runtime there.
            FarmError: the machine is not reached.
        """
        self._transport, self._root, self._host, self._threads = transport, root.rstrip("/"), host, threads
        self._board, self._kind, self._pusher = board, kind, pusher
        self.warnings = tuple(warnings)
        self._care = care
        self._there: set[str] = set()
        """Digests of what the machine has, as far as we know."""
        [python] = {place.python for place in runtimes}
        self._where = f"{board} ({transport.address})"
        self._digests: dict[tuple[Path, int, int], str] = {}
        packed = Artifact.of(agent)
        program = f"{self._root}/agent-{packed.sha256[:12]}.pyz"
        if transport.run(["test", "-s", program], START_S).returncode != 0:
            transport.push(agent, program)
        argv = [python, program, "--root", self._root, "--cache-bytes", str(cache_bytes)]
        for place in runtimes:
            argv += ["--runtime", f"{place.name}={place.folder}" if place.folder else place.name]
        argv += ["--lock-file", lock_file] if lock_file else []
        argv += ["--host"] if host else []
        self._channel = transport.open(argv)
        try:
            self._talk = Conversation(self._channel, self._where, heartbeat_timeout_s)
            hello = self._talk.hello(START_S * len(runtimes))
            self.runtimes: Mapping[str, str] = self._check(hello, packed.sha256[:12])
            """Name -> version."""
            self.agent_version = hello.text("agent_version")
            self._facts = BoardFacts.from_json(hello.part("facts").fields)
        except FarmError:
            self._channel.close()
            raise

    def _check(self, hello: Message, agent_version: str) -> dict[str, str]:
        """Return the runtimes' versions. Raises AgentMismatch."""
        if hello.integer("protocol") != protocol.PROTOCOL:
            raise AgentMismatch(f"{self._where}: this controller speaks version {protocol.PROTOCOL} of the "
                                f"agent's protocol, the agent version {hello.integer('protocol')}")
        if hello.text("agent_version") != agent_version:
            raise AgentMismatch(f"{self._where}: expected agent {agent_version}, "
                                f"{hello.text('agent_version')} answers: delete "
                                f"{self._root}/agent-{agent_version}.pyz on the board")
        broken = [found.text("reason") for found in hello.parts("runtimes") if found.optional_text("version") is None]
        if broken:
            raise AgentMismatch(f"{self._where}: {'; '.join(broken)}; set the board up again")
        return {found.text("name"): found.text("version") for found in hello.parts("runtimes")}

    @property
    def facts(self) -> BoardFacts:
        """What the machine is, as it said when the agent started."""
        return self._facts

    def acquire(self, token: int, owner: str, series: str | None = None) -> None:
        """Take the machine's lock, or keep it with a newer token.

        Args:
            token: the lease's token; within `series` it only rises.
            owner: for the message that another controller gets.
            series: what the tokens belong to, e.g. store and board; default: the board's name.

        Raises:
            BoardBusy: another controller holds the lock.
            LeaseLost: our token is outdated.
        """
        reply = self._ask({"type": "lock", "token": token, "owner": owner, "series": series or self._board}, None)
        warning = reply.optional_text("warning")
        if warning is not None and f"{self._board}: {warning}" not in self.warnings:
            self.warnings += (f"{self._board}: {warning}",)

    def release(self) -> None:
        """Give the lock back and keep the agent."""
        self._ask({"type": "unlock"}, None)

    def sensors(self) -> Sensors:
        """Read temperature, frequency, governor, throttling and load now."""
        return _sensors(self._ask({"type": "sensors"}, None).part("sensors"))

    def free_bytes(self) -> int:
        """Return what the machine's disk has left."""
        return self._ask({"type": "free"}, None).integer("bytes")

    def has(self, artifact: Artifact) -> bool:
        """Tell whether the machine's cache holds the artifact."""
        reply = self._ask({"type": "has", "sha256": artifact.sha256, "size_bytes": artifact.size_bytes}, None)
        return reply.fields.get("present") is True

    def measure(self, artifact: Artifact, golden: Path, settings: MeasureSettings,
                runtime: str | None = None) -> MeasuredSession:
        """Run the golden inputs, warm up, and time; the lock must be held.

        Args:
            artifact: pushed when the board does not have it.
            golden: .npz file with `i0`, `i1`..., (examples, ...) each.
            settings: how long to warm up and to sample.
            runtime: which one; None: the first.

        Raises:
            InfeasibleCandidate: rejected by the runtime, NaN; ArtifactDied for a crash or a hang.
            ValueError: the golden inputs do not fit the artifact.
            FarmError: ours.
        """
        digest, runtime = self._digest(golden), runtime or next(iter(self.runtimes))
        request = {"type": "measure", "runtime": runtime, "sha256": artifact.sha256, "size_bytes": artifact.size_bytes,
                   "inputs": digest, "settings": asdict(settings), "care": asdict(self._care)}
        limit_s = settings.timeout_s + GRACE_S + (0.0 if self._care.cool_below_c is None else self._care.cool_down_s)
        reply = self._push_and_ask(request, artifact, golden, digest, limit_s)
        measurement = Measurement(
            artifact_sha256=artifact.sha256, board=self._board, kind=self._kind, boot_id=self._facts.boot_id,
            runtime=runtime, runtime_version=self.runtimes[runtime], agent_version=self.agent_version,
            threads=settings.threads, wall_ns=reply.integers("wall_ns"), cpu_ns=reply.integers("cpu_ns"),
            warmup_runs=reply.integer("warmup_runs"), load_s=reply.number("load_s"),
            before=_sensors(reply.part("before")), after=_sensors(reply.part("after")),
            peak_rss_bytes=reply.integer("peak_rss_bytes"), simulated=False,
            session_s=reply.number("session_s"), kernels=read_kernels(reply),
            conditions=read_conditions(reply.part("conditions")))
        return MeasuredSession(measurement, self._outputs(reply.part("outputs")))

    def run(self, artifact: Artifact, inputs: Path, outputs: Path, limit: int | None = None,
            runtime: str | None = None) -> None:
        """Run every example of `inputs` (.npz, `i0`...) and write `outputs` (.npz, `o0`...).

        Raises:
            InfeasibleCandidate: rejected by the runtime; ArtifactDied for a crash or a hang.
            ValueError: the inputs do not fit the artifact.
            FarmError: ours.
        """
        digest = self._digest(inputs)
        request: dict[str, object] = {"type": "run", "runtime": runtime or next(iter(self.runtimes)),
                                      "sha256": artifact.sha256, "threads": self._threads, "limit": limit}
        if self._host:
            self._ask({**request, "artifact": str(artifact.path.absolute()), "inputs": str(inputs.absolute()),
                       "outputs": str(outputs.absolute())}, artifact, None)
            return
        name = hashlib.sha256(f"{artifact.sha256}{digest}".encode()).hexdigest()
        there = f"{self._root}/outputs/{name}.npz"
        self._push_and_ask({**request, "inputs": self._inputs_path(digest), "outputs": there},
                           artifact, inputs, digest, None)
        self._transport.pull(there, outputs)

    def prefetch(self, artifact: Artifact, inputs: Path) -> None:
        """Push what the machine lacks while another thread measures there. Raises FarmError."""
        if self._pusher is None:
            return
        digest = self._digest(inputs)
        for what, source, there in ((artifact.sha256, artifact.path, self._artifact_path(artifact)),
                                    (digest, inputs, self._inputs_path(digest))):
            if what not in self._there and self._pusher.run(["test", "-s", there], GRACE_S).returncode != 0:
                self._pusher.push(source, there)
            self._there.add(what)

    def _artifact_path(self, artifact: Artifact) -> str:
        return f"{self._root}/artifacts/{artifact.sha256}.tflite"

    def _inputs_path(self, digest: str) -> str:
        return f"{self._root}/inputs/{digest}.npz"

    def close(self) -> None:
        """End the agent, which gives its lock back; never raises."""
        self._channel.close()
        if self._pusher is not None:
            self._pusher.close()

    def _push_and_ask(self, request: Mapping[str, object], artifact: Artifact, inputs: Path, digest: str,
                      limit_s: float | None) -> Message:
        """Ask; where the board lacks a file or has a damaged one, push it and ask once more."""
        try:
            return self._talk.ask(request, limit_s)
        except AgentError as error:
            if error.code == protocol.MISSING:
                missing = error.reply.texts("missing")
            elif error.code == protocol.CORRUPT:
                missing = ("artifact",)
            else:
                raise translated(error, self._where, artifact) from error
        if "artifact" in missing:
            self._transport.push(artifact.path, self._artifact_path(artifact))
        if "inputs" in missing:
            self._transport.push(inputs, self._inputs_path(digest))
        return self._ask(request, artifact, limit_s)

    def _ask(self, request: Mapping[str, object], artifact: Artifact | None,
             limit_s: float | None = GRACE_S) -> Message:
        try:
            return self._talk.ask(request, limit_s)
        except AgentError as error:
            raise translated(error, self._where, artifact) from error

    def _digest(self, path: Path) -> str:
        """Return a file's SHA-256, read again only when the file has changed."""
        stat = path.stat()
        key = (path.absolute(), stat.st_mtime_ns, stat.st_size)
        if key not in self._digests:
            self._digests[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._digests[key]

    def _outputs(self, outputs: Message) -> tuple[NDArray[Any], ...]:
        inline = outputs.optional_text("inline")
        try:
            if inline is not None:
                return read_outputs(io.BytesIO(base64.b64decode(inline)))
            with TemporaryDirectory() as folder:
                copy = Path(folder) / "outputs.npz"
                self._transport.pull(outputs.text("path"), copy)
                return read_outputs(copy)
        except (ValueError, KeyError, binascii.Error, zipfile.BadZipFile) as error:
            raise PushFailed(f"{self._where}: the outputs did not arrive whole: {error}") from error


def read_outputs(file: Path | io.BytesIO) -> tuple[NDArray[Any], ...]:
    """Read `o0`, `o1`... of an .npz file, in this order. Raises ValueError, KeyError or BadZipFile."""
    with np.load(file, allow_pickle=False) as arrays:
        return tuple(arrays[f"o{position}"] for position in range(len(arrays.files)))


def read_kernels(reply: Message) -> tuple[KernelTime, ...]:
    """Read [kernel, layer, nanoseconds] of every call. Raises AgentMismatch."""
    return tuple(KernelTime(row.text("0"), row.text("1"), row.integer("2")) for row in reply.rows("kernels"))


def read_conditions(message: Message) -> Conditions:
    """Read what else happened. Raises AgentMismatch."""
    return Conditions(
        cores=None if message.fields.get("cores") is None else message.integers("cores"),
        cooled_s=message.number("cooled_s"), discarded_runs=message.integer("discarded_runs"),
        throttled=message.texts("throttled"), still_throttled=message.fields.get("still_throttled") is True,
        others_cores=message.optional_number("others_cores"), hog=message.optional_text("hog"),
        waited_s=message.optional_number("waited_s"))


def _sensors(message: Message) -> Sensors:
    return Sensors(
        temperature_c=message.optional_number("temperature_c"),
        frequency_hz=message.optional_number("frequency_hz"),
        governor=message.optional_text("governor"), throttled=message.optional_text("throttled"),
        load_1m=message.optional_number("load_1m"))


if TYPE_CHECKING:
    from device_farm.local import LocalTransport

    _: Runner = AgentRunner(LocalTransport(), root="", runtimes=(RuntimePlace("", ""),), agent=Path(), board="",
                            kind="")
