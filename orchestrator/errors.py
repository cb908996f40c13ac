"""What the command line turns into exit codes: 2 usage, 3 infrastructure."""

from __future__ import annotations


class UsageError(ValueError):
    """Something the user gave is wrong: exit code 2."""


class NothingRan(Exception):
    """Not one candidate could be built and measured: exit code 1, with the reasons."""
