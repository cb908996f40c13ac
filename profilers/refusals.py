"""What an agent refuses, in the words of the caller: the candidate's fault or the farm's."""

from __future__ import annotations

from device_farm.errors import AgentMismatch, BoardBusy, ChannelClosed, LeaseLost, PushFailed, Unfit
from profilers.agent import protocol
from profilers.conversation import AgentError
from recipes.artifact import Artifact
from search.errors import InfeasibleCandidate


class ArtifactDied(InfeasibleCandidate):
    """The artifact crashed or hung: unclear until the reference artifact passes on the same board."""


def translated(error: AgentError, where: str, artifact: Artifact | None = None) -> Exception:
    """Return what to raise: InfeasibleCandidate, a FarmError, or ValueError for wrong inputs."""
    message = f"{artifact.path.name} on {where}: {error}" if artifact else f"{where}: {error}"
    stderr = error.reply.fields.get("stderr") or "nothing"
    if error.code == protocol.CRASH:
        memory = " (the kernel kills so when memory runs out)" if error.reply.text("how") == "SIGKILL" else ""
        return ArtifactDied(f"{message}{memory}; it left on standard error: {stderr}")
    if error.code == protocol.HANG:
        return ArtifactDied(message)
    if error.code in (protocol.REJECTED, protocol.NOT_FINITE):
        return InfeasibleCandidate(message)
    if error.code == protocol.BAD_INPUTS:
        return ValueError(message)
    if error.code in (protocol.MISSING, protocol.CORRUPT, protocol.STORAGE):
        return PushFailed(message)
    if error.code == protocol.TOO_HOT:
        return Unfit(f"{message}; give it a heat sink or a fan, or another `cool_below` in the inventory")
    if error.code == protocol.LOCK_HELD:
        return BoardBusy(message)
    if error.code in (protocol.NOT_LOCKED, protocol.OLD_TOKEN):
        return LeaseLost(message)
    if error.code == protocol.RUNTIME_LOST:
        return ChannelClosed(message)
    if error.code == protocol.RUNTIME_BROKEN:
        return AgentMismatch(f"{message}; it left on standard error: {stderr}")
    return AgentMismatch(message)
