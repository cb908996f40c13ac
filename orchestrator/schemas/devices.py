"""What `orchestrator devices` prints."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from orchestrator.schemas.search import RuntimeDocument
from orchestrator.schemas.strict import strict


@strict
class LeaseDocument(TypedDict):
    """Who works with a board now."""

    owner: str
    """Person and machine."""
    purpose: str
    since: str
    """UTC, as all times: 2026-11-23T08:00:00+00:00."""


@strict
class ReservationDocument(TypedDict):
    """Who alone may lease a board."""

    owner: str
    purpose: str
    until: str


@strict
class WaitingDocument(TypedDict):
    """Who waits for a board."""

    owner: str
    purpose: str
    priority: int


@strict
class QuarantineDocument(TypedDict):
    """Why nobody may lease a board."""

    since: str
    reason: str
    failures: int
    """Within a day."""
    waits_for_person: bool
    """It does not come back by itself."""


@strict
class Device(TypedDict):
    """A board of the inventory, or one that is built in."""

    name: str
    kind: str
    transport: Literal["ssh", "local", "sim"]
    address: str | None
    """user@host:port; null unless it is reached by SSH."""
    jump: list[str]
    """Jump hosts on the way, first to last."""
    fingerprint: str | None
    """Of the pinned host key, as ssh-keygen prints it."""
    runtime: RuntimeDocument | None
    """What the inventory asks for."""
    runtime_absent_because: NotRequired[str]
    notes: str | None
    lease: NotRequired[LeaseDocument]
    """Absent: nobody works with it."""
    reservation: NotRequired[ReservationDocument]
    quarantine: NotRequired[QuarantineDocument]
    waiting: NotRequired[list[WaitingDocument]]
    """The next one first."""


@strict
class DevicesList(TypedDict):
    """`orchestrator devices list`."""

    schema: Literal[1]
    inventory: str | None
    """Null when there is no inventory: then there are only the built-in devices."""
    devices: list[Device]


@strict
class DeviceAdded(TypedDict):
    """`orchestrator devices add NAME`."""

    schema: Literal[1]
    inventory: str
    inventory_created: bool
    device: Device
    connected: bool
    """Whether a connection worked after the device was written into the inventory."""
    connection_failed_because: NotRequired[str]


@strict
class FindingDocument(TypedDict):
    """One thing that was looked at."""

    what: str
    level: Literal["ok", "warning", "missing"]
    """warning: figures may be poor; missing: the board cannot measure."""
    detail: str
    remedy: str | None


@strict
class DeviceChecked(TypedDict):
    """`orchestrator devices check NAME`."""

    schema: Literal[1]
    device: str
    reachable: bool
    fit: bool
    """Nothing is missing."""
    findings: list[FindingDocument]
    returned: NotRequired[bool]
    """It was in quarantine, and serves again."""


@strict
class DevicesChecked(TypedDict):
    """`orchestrator devices check --all`."""

    schema: Literal[1]
    devices: list[DeviceChecked]


@strict
class DeviceSetUp(TypedDict):
    """`orchestrator devices setup NAME`."""

    schema: Literal[1]
    device: str
    folder: str | None
    """Where the runtime lies on the board; null when it is the one of this program's own environment."""
    folders: NotRequired[dict[str, str | None]]
    """Where several compilers were named: each one's; `folder` is the first's."""
    steps: list[str]


@strict
class DeviceRemoved(TypedDict):
    """`orchestrator devices remove NAME`."""

    schema: Literal[1]
    device: str
    inventory: str
    left_on_board: str
    """The folder on the board, which stays there."""


@strict
class DeviceReserved(TypedDict):
    """`orchestrator devices reserve NAME`."""

    schema: Literal[1]
    device: str
    """Of a kind: the board that was free."""
    owner: str
    purpose: str
    until: str


@strict
class DeviceReleased(TypedDict):
    """`orchestrator devices release NAME`."""

    schema: Literal[1]
    device: str
    owner: str
    """Whose reservation it was."""


@strict
class BoardEventDocument(TypedDict):
    """Something that happened to a board."""

    happened: str
    what: str
    """leased, released, lapsed, reserved, freed, quarantined, returned, power on, power off, power cycle."""
    who: str
    detail: str


@strict
class DeviceHistory(TypedDict):
    """`orchestrator devices history NAME`."""

    schema: Literal[1]
    device: str
    events: list[BoardEventDocument]
    """Oldest first."""


@strict
class DevicePower(TypedDict):
    """`orchestrator devices power NAME on|off|cycle`."""

    schema: Literal[1]
    device: str
    action: Literal["on", "off", "cycle"]


@strict
class DeviceLogs(TypedDict):
    """`orchestrator devices logs NAME`."""

    schema: Literal[1]
    device: str
    command: str
    """What printed them there: journalctl or dmesg."""
    lines: list[str]
    """Oldest first."""
