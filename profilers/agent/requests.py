"""Reading requests: every field is checked before it is used."""

from __future__ import annotations

import json
from typing import Any

from profilers.agent.protocol import BAD_REQUEST, Refusal

COUNTS = ("threads", "min_runs", "max_runs")
TIMES = ("max_sampling_s", "target_ci", "max_warmup_s", "max_profile_s", "timeout_s")


class Request:
    """One line from the controller: `type`, `seq` and fields."""

    def __init__(self, fields: dict[str, Any], type_: str, seq: int) -> None:
        self._fields = fields
        self.type = type_
        self.seq = seq

    @classmethod
    def parse(cls, line: bytes) -> Request:
        """Read a line. Raises Refusal when it is not a JSON object with `type` and `seq`."""
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise Refusal(BAD_REQUEST, f"expected a line of JSON, got {line[:80]!r}: {error}") from error
        if not isinstance(fields, dict):
            raise Refusal(BAD_REQUEST, f"expected a JSON object, got {line[:80]!r}")
        seq, type_ = fields.get("seq"), fields.get("type")
        if not isinstance(seq, int) or not isinstance(type_, str):
            raise Refusal(BAD_REQUEST, "expected an integer `seq` and a text `type`, "
                          f"got {seq!r} and {type_!r}")
        return cls(fields, type_, seq)

    def text(self, name: str) -> str:
        """Return a text field. Raises Refusal."""
        value = self.optional_text(name)
        if value is None:
            raise Refusal(BAD_REQUEST, f"{self.type}: `{name}` is missing")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text field or None. Raises Refusal for another type."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            raise Refusal(BAD_REQUEST, f"{self.type}: `{name}`: expected a text, got {value!r}")
        return value

    def integer(self, name: str) -> int:
        """Return an integer field. Raises Refusal."""
        value = self.optional_integer(name)
        if value is None:
            raise Refusal(BAD_REQUEST, f"{self.type}: `{name}` is missing")
        return value

    def optional_integer(self, name: str) -> int | None:
        """Return an integer field or None. Raises Refusal for another type."""
        value = self._fields.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise Refusal(BAD_REQUEST, f"{self.type}: `{name}`: expected an integer, got {value!r}")
        return value

    def care(self) -> dict[str, Any]:
        """Return the fields of `Care`. Raises Refusal."""
        care = self._fields.get("care")
        if not isinstance(care, dict):
            raise Refusal(BAD_REQUEST, f"{self.type}: `care`: expected an object, got {care!r}")
        cores, below, wait = care.get("cores"), care.get("cool_below_c"), care.get("cool_down_s")
        if not (cores is None or cores == "fastest"
                or isinstance(cores, list) and all(type(core) is int and core >= 0 for core in cores)):
            raise Refusal(BAD_REQUEST, f"{self.type}: `care.cores`: expected `fastest`, a list of numbers or null, "
                          f"got {cores!r}")
        for name, value in (("cool_below_c", below), ("cool_down_s", wait)):
            if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
                raise Refusal(BAD_REQUEST, f"{self.type}: `care.{name}`: expected a number, got {value!r}")
        return {"cores": cores, "cool_below_c": below, "cool_down_s": wait or 0.0}

    def measure_settings(self) -> dict[str, Any]:
        """Return the fields of `MeasureSettings`. Raises Refusal for one that is missing or too small."""
        settings = self._fields.get("settings")
        if not isinstance(settings, dict):
            raise Refusal(BAD_REQUEST, f"{self.type}: `settings`: expected an object, got {settings!r}")
        for name in COUNTS + TIMES:
            value = settings.get(name)
            kind, least = (int, 1) if name in COUNTS else ((int, float), 0)
            if not isinstance(value, kind) or isinstance(value, bool) or value < least:
                raise Refusal(BAD_REQUEST, f"{self.type}: `settings.{name}`: expected a number of at least "
                              f"{least}, got {value!r}")
        return settings
