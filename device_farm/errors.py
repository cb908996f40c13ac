"""Failures of the farm: retried a bounded number of times, never told to the proposer."""

from __future__ import annotations


class FarmError(Exception):
    """Something that is ours: the network, the board, its set-up. Never a candidate's result."""


class BoardUnreachable(FarmError):
    """No connection: refused, no route, no answer."""


class HostKeyMismatch(FarmError):
    """The board shows another key than the inventory pins."""


class AuthenticationFailed(FarmError):
    """The board refuses the user or the key."""


class ChannelClosed(FarmError):
    """The connection or the process at its other end is gone."""


class ChannelStalled(FarmError):
    """Nothing came within the time allowed."""


class PushFailed(FarmError):
    """A file did not arrive whole: full disk, read-only folder, lost connection."""


class BoardBusy(FarmError):
    """Another controller holds the board's lock: waiting may help."""


class LeaseLost(FarmError):
    """Our token is older than the board's, or we do not hold its lock: another controller was there since."""


class AgentMismatch(FarmError):
    """The agent or the runtime on the board is missing, or of another version."""


class SetupFailed(FarmError):
    """A runtime cannot be fetched for a board, or does not run there."""


class PowerFailed(FarmError):
    """A board's power cannot be switched."""


class Unfit(FarmError):
    """The board cannot measure as it is: no space, no permission, no fitting Python."""
