"""The words of the conversation between a controller and an agent; see docs/agent-protocol.md."""

from __future__ import annotations

PROTOCOL = 3
HEARTBEAT_S = 1.0
INLINE_BYTES = 256 * 1024
"""Outputs up to this size travel in the reply."""
LOCK_FILE = "/tmp/hil-orchestrator.lock"  # noqa: S108 - one well-known place for all users of one boot
RUNTIMES = {"litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
            "tflite-runtime": ("tflite_runtime.interpreter", "tflite-runtime"),
            "tvm": ("profilers.agent.tvm_interpreter", "apache-tvm")}
"""Name -> (module, distribution)."""

# Codes of error replies: the candidate's fault,
REJECTED = "rejected"
NOT_FINITE = "not_finite"
CRASH = "crash"
HANG = "hang"
# the board's or the farm's,
LOCK_HELD = "lock_held"
OLD_TOKEN = "old_token"  # noqa: S105 - not a password
NOT_LOCKED = "not_locked"
MISSING = "missing"
CORRUPT = "corrupt"
STORAGE = "storage"
TOO_HOT = "too_hot"
RUNTIME_BROKEN = "runtime_broken"
RUNTIME_LOST = "runtime_lost"
# and the controller's.
BAD_REQUEST = "bad_request"
BAD_INPUTS = "bad_inputs"
UNKNOWN_REQUEST = "unknown_request"


class Refusal(Exception):
    """A request that cannot be met; becomes an `error` reply with this code, message and details."""

    def __init__(self, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def reply(self) -> dict[str, object]:
        """Return the reply's fields."""
        fields: dict[str, object] = {"type": "error", "code": self.code, "message": self.message}
        fields.update(self.details)
        return fields
