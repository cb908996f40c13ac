"""What a board says of itself: the part that does not change until it boots again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from device_farm.errors import AgentMismatch


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """Read by the agent when it starts; None where the system does not say."""

    machine: str
    """The architecture of the Python that runs there: `aarch64`, `x86_64`, `armv7l`."""
    model: str | None
    """The board's own name, e.g. `Raspberry Pi 4 Model B Rev 1.4`."""
    cpu_features: tuple[str, ...]
    """Sorted flags of /proc/cpuinfo."""
    cores: int
    memory_bytes: int
    os: str
    glibc: str | None
    """Version of the GNU C library; None with another C library."""
    python: str
    boot_id: str
    """Changes at every boot; two boards with the same one are the same machine."""

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> BoardFacts:
        """Read the `facts` of an agent's hello. Raises AgentMismatch naming the field that is wrong."""
        return cls(
            machine=_text(data, "machine"),
            model=_optional_text(data, "model"),
            cpu_features=_texts(data, "cpu_features"),
            cores=_count(data, "cores"),
            memory_bytes=_count(data, "memory_bytes"),
            os=_text(data, "os"),
            glibc=_optional_text(data, "glibc"),
            python=_text(data, "python"),
            boot_id=_text(data, "boot_id"),
        )


def _wrong(name: str, expected: str, got: object) -> AgentMismatch:
    return AgentMismatch(
        f"the board's facts: {name}: expected {expected}, got {got!r}; the agent needs Linux with /proc mounted"
    )


def _text(data: Mapping[str, object], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise _wrong(name, "a text", value)
    return value


def _optional_text(data: Mapping[str, object], name: str) -> str | None:
    return None if data.get(name) is None else _text(data, name)


def _texts(data: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = data.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(name, "a list of texts", value)
    return tuple(value)


def _count(data: Mapping[str, object], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(name, "a positive integer", value)
    return value
