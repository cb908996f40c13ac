"""What may stand in the inventory for one board."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from device_farm.hostkeys import parse_host_key

SCHEMA_VERSION = 1
BUILT_IN = ("local", "sim")
SSH_KEYS = ("host", "user", "host_key")
"""Without these no board is reached by SSH."""
KEYS_MISSING = "keys_missing"
"""Type of the error when one of them is not given."""
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
RuntimeName = Literal["litert", "tflite-runtime"]
RUNTIME_NAMES: tuple[str, ...] = get_args(RuntimeName)

WORD_PATTERN = r"^[^\s@]+$"
VERSION_PATTERN = r"^\d+(\.\d+)+$"
ROOT_PATTERN = r"^(~|~?/.+)$"
FILE_PATTERN = r"^/.+$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
MODULE_PATTERN = r"^[a-z][a-z0-9_]*$"
PATTERN_WORDS = {
    NAME_PATTERN: "small letters, digits, '.', '_' and '-', beginning with a letter or digit",
    WORD_PATTERN: "one word without '@' (host and user are two keys)",
    VERSION_PATTERN: 'numbers with dots, e.g. "2.3.0"',
    ROOT_PATTERN: "an absolute path on the board or one that starts with ~",
    FILE_PATTERN: "an absolute path on the board",
    MODULE_PATTERN: "small letters, digits and '_'",
    VARIABLE_PATTERN: "letters, digits and '_', not beginning with a digit",
}
"""What the patterns mean, for messages."""

NamePattern = Annotated[str, Field(pattern=NAME_PATTERN)]
Word = Annotated[str, Field(pattern=WORD_PATTERN)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Keys(_Strict):
    """What every machine on the way to a board has in common."""

    identity_file: str | None = None
    """Private key on this computer (absolute, or from ~). Without it: the SSH agent, then ~/.ssh/id_*."""

    @field_validator("host_key", check_fields=False)
    @classmethod
    def _whole_key(cls, value: str | None) -> str | None:
        return None if value is None else str(parse_host_key(value))

    @field_validator("identity_file")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("/", "~")):
            raise ValueError(f"expected an absolute path or one that starts with ~, got {value!r}")
        return value


class Hop(_Keys):
    """A machine that is reached by SSH: a board, or a jump host before it."""

    host: Word
    """Name or address."""
    user: Word
    """The user to log in as."""
    host_key: str
    """The machine's public key, `ssh-ed25519 AAAA...`: any other key is refused."""
    port: int = Field(default=22, ge=1, le=65535)

    @property
    def address(self) -> str:
        """For messages: `pi@10.0.0.7:22`."""
        return f"{self.user}@{self.host}:{self.port}"


class RuntimeSpec(_Strict):
    """The runtime that executes artifacts on a board."""

    name: RuntimeName
    version: str = Field(pattern=VERSION_PATTERN)
    """In quotes, e.g. "2.3.0"."""


def _as_list(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(f"got {value!r}; write host, user and host_key: a jump host's key is pinned too")
    return [value] if isinstance(value, Mapping) else value


class PowerSpec(_Strict):
    """How the board's power is switched: commands, a labgrid driver, or a plug-in."""

    on_command: tuple[str, ...] = ()
    """Run on this computer: a list of words, no shell reads it. (YAML takes a plain `on` for true.)"""
    off_command: tuple[str, ...] = ()
    labgrid: str | None = Field(default=None, pattern=MODULE_PATTERN)
    """Model of a power distribution unit that labgrid knows, e.g. `gude24`, `netio`, `simplerest`."""
    host: str | None = None
    """Of that unit: its name, address or URL."""
    port: int | None = Field(default=None, ge=1, le=65535)
    index: Annotated[str, BeforeValidator(str)] | None = None
    """Which outlet."""
    plugin: str | None = Field(default=None, min_length=1)
    """Name of an entry point in the group `hil_orchestrator.power`."""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Of the plug-in."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [bool(self.on_command or self.off_command), self.labgrid is not None, self.plugin is not None]
        if sum(ways) != 1:
            raise ValueError("expected one of: on_command and off_command, labgrid, plugin")
        if ways[0] and not (self.on_command and self.off_command):
            raise ValueError("on_command and off_command are needed both, each a list of words")
        if self.labgrid is not None and (self.host is None or self.index is None):
            raise ValueError("labgrid needs host and index")
        return self


class BoardEntry(_Keys):
    """One board. The built-in `local` and `sim` have no host."""

    name: SkipJsonSchema[NamePattern]
    kind: NamePattern
    """What the board is, e.g. rpi4: boards of one kind are interchangeable."""
    host: Word | None = None
    """Name or address."""
    user: Word | None = None
    """The user to log in as."""
    host_key: str | None = None
    """The board's public key, `ssh-ed25519 AAAA...`: any other key is refused."""
    port: int = Field(default=22, ge=1, le=65535)
    jump: Annotated[tuple[Hop, ...], BeforeValidator(_as_list, json_schema_input_type=Hop | list[Hop])] = ()
    """Jump hosts, first to last; one may stand alone. Each has its own pinned key."""
    python: str = Field(default="python3", min_length=1)
    """Python on the board, 3.8 or newer: a name on its PATH or an absolute path."""
    root: str = Field(default="~/.hil-orchestrator", pattern=ROOT_PATTERN)
    """Folder on the board for the runtime, the agent and the artifacts."""
    runtime: RuntimeSpec | None = None
    """Runtime to use; without it the newest one that the board can execute."""
    shares_host: Literal["forbidden", "allowed"] = "forbidden"
    """`allowed`: may measure while this computer works, although it is the same machine (test boards)."""
    lock_file: str | None = Field(default=None, pattern=FILE_PATTERN)
    """The board's lock, if several users of one board have different root folders."""
    env: dict[Annotated[str, Field(pattern=VARIABLE_PATTERN)], str] = Field(default_factory=dict)
    """Environment of everything that runs on the board."""
    cores: Annotated[Literal["fastest", "all"] | tuple[Annotated[int, Field(ge=0)], ...] | None,
                     Field(min_length=1)] = None
    """Cores that measurements are pinned to: `fastest` (as many as threads), `all`, or their numbers."""
    cool_below: float | None = Field(default=None, gt=0, lt=150)
    """Each measurement waits until the processor is at or below that, in degrees Celsius."""
    power: PowerSpec | None = None
    """How its power is switched; a board that does not come back is then power-cycled."""
    notes: str | None = None
    """Free text."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.name in BUILT_IN:
            return self
        if self.kind in BUILT_IN:
            raise ValueError(f"kind {self.kind!r} is built in: choose another")
        missing = [key for key in SSH_KEYS if getattr(self, key) is None]
        if missing:
            text = f"{' and '.join(missing)} missing; 'orchestrator devices add' fills them in"
            raise PydanticCustomError(KEYS_MISSING, "{text}", {"text": text})
        return self

    @property
    def transport(self) -> Literal["ssh", "local", "sim"]:
        """How the board is reached."""
        if self.host is not None:
            return "ssh"
        return "local" if self.name == "local" else "sim"

    def hops(self) -> tuple[Hop, ...]:
        """Return the machines on the way, the board last. Raises ValueError for `local` and `sim`."""
        if self.host is None or self.user is None or self.host_key is None:
            raise ValueError(f"board {self.name!r} is not reached by SSH but as {self.transport!r}")
        board = Hop(
            host=self.host,
            port=self.port,
            user=self.user,
            host_key=self.host_key,
            identity_file=self.identity_file,
        )
        return (*self.jump, board)


class InventoryFile(_Strict):
    """Boards of one user or team."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this format: 1."""
    boards: dict[NamePattern, BoardEntry]
    """Name -> board. `local` and `sim` exist without being written here."""

    @model_validator(mode="before")
    @classmethod
    def _name_boards(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic hands over whatever the file holds
        if not isinstance(data, dict):
            return data
        boards = {} if data.get("boards") is None else data["boards"]
        if isinstance(boards, dict):
            boards = {name: {**row, "name": name} if isinstance(row, dict) else row for name, row in boards.items()}
        return {**data, "boards": boards}
