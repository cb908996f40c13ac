"""Requests and replies over a channel: sequence numbers, heartbeats, checked fields."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from device_farm.errors import AgentMismatch, ChannelClosed, ChannelStalled
from device_farm.transport import Channel


@dataclass(frozen=True, slots=True)
class Message:
    """One line of the agent."""

    fields: Mapping[str, object]

    @classmethod
    def parse(cls, line: bytes) -> Message:
        """Read a line. Raises AgentMismatch when it is not a JSON object."""
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise AgentMismatch(f"expected a line of JSON from the agent, got {line[:80]!r}") from error
        if not isinstance(fields, dict):
            raise AgentMismatch(f"expected a JSON object from the agent, got {line[:80]!r}")
        return cls(fields)

    def _wrong(self, name: str, expected: str) -> AgentMismatch:
        what, got = self.fields.get("type"), self.fields.get(name)
        return AgentMismatch(f"the agent's {what}: {name}: expected {expected}, got {got!r}")

    def text(self, name: str) -> str:
        """Return a text field. Raises AgentMismatch."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text field or None. Raises AgentMismatch for another type."""
        return None if self.fields.get(name) is None else self.text(name)

    def number(self, name: str) -> float:
        """Return a number field. Raises AgentMismatch."""
        value = self.fields.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(name, "a number")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """Return a number field or None. Raises AgentMismatch for another type."""
        return None if self.fields.get(name) is None else self.number(name)

    def integer(self, name: str) -> int:
        """Return an integer field. Raises AgentMismatch."""
        value = self.fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name, "an integer")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of integers. Raises AgentMismatch."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise self._wrong(name, "a list of integers")
        return tuple(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts. Raises AgentMismatch."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts")
        return tuple(value)

    def rows(self, name: str) -> tuple[Message, ...]:
        """Return a list of lists, whose places are the names "0", "1"... of fields. Raises AgentMismatch."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
            raise self._wrong(name, "a list of lists")
        return tuple(Message({"type": self.fields.get("type"), **{str(i): field for i, field in enumerate(item)}})
                     for item in value)

    def part(self, name: str) -> Message:
        """Return an object inside this one. Raises AgentMismatch."""
        value = self.fields.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return Message(value)

    def parts(self, name: str) -> tuple[Message, ...]:
        """Return a list of objects. Raises AgentMismatch."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(name, "a list of objects")
        return tuple(Message(item) for item in value)


class AgentError(Exception):
    """The agent refused a request. Private to profilers: runners turn it into the caller's words."""

    def __init__(self, reply: Message) -> None:
        super().__init__(reply.text("message"))
        self.code = reply.text("code")
        self.reply = reply


class Conversation:
    """Asks one question after the other."""

    def __init__(self, channel: Channel, where: str, heartbeat_timeout_s: float) -> None:
        self._channel = channel
        self._where = where
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._seq = 0

    def hello(self, timeout_s: float) -> Message:
        """Return the agent's first line.

        Raises:
            AgentMismatch: something else answered, or what was started ended with a complaint.
            ChannelClosed, ChannelStalled: the connection was lost.
        """
        try:
            message = Message.parse(self._channel.receive(timeout_s))
        except ChannelClosed as error:
            tail = self._channel.stderr_tail().strip()
            if tail:
                raise AgentMismatch(f"{self._where}: the agent did not start: {tail}; it needs Python 3.8 "
                                    "or newer, see `python:` of this board in the inventory") from error
            raise
        if message.fields.get("type") != "hello":
            raise AgentMismatch(f"{self._where}: expected the agent's hello, got a "
                                f"{message.fields.get('type')!r} line")
        return message

    def ask(self, request: Mapping[str, object], limit_s: float | None = None) -> Message:
        """Send a request and return its reply.

        Args:
            request: `type` and fields, without `seq`.
            limit_s: longest wait for the reply; None waits as long as the agent's heart beats.

        Raises:
            AgentError: the agent refused.
            ChannelClosed: the connection or the agent is gone.
            ChannelStalled: no heartbeat, or no reply within `limit_s`.
        """
        self._seq += 1
        deadline = None if limit_s is None else time.monotonic() + limit_s
        self._channel.send(json.dumps({**request, "seq": self._seq}).encode())
        while True:
            if deadline is not None and time.monotonic() > deadline:
                raise ChannelStalled(f"{self._where}: the agent lives but did not answer `{request['type']}` "
                                     f"within {limit_s:g} s")
            message = Message.parse(self._channel.receive(self._heartbeat_timeout_s))
            kind = message.fields.get("type")
            if kind == "heartbeat" or message.fields.get("seq") != self._seq:
                continue  # a reply to an earlier request, which was given up
            if kind == "error":
                raise AgentError(message)
            return message
