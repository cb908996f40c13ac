"""What can go wrong with the store. Every message says what to do."""

from __future__ import annotations


class StoreError(Exception):
    """Something about the store itself: its place, its file, or what is asked of it."""


class StoreUnsupported(StoreError):
    """The place is a kind of store that this version cannot use."""


class StoreUnusable(StoreError):
    """The file is damaged, foreign, read-only or cannot be opened."""


class StoreTooNew(StoreError):
    """A newer version of the program has changed the tables."""


class StoreBusy(StoreError):
    """Another process kept the database locked for longer than we wait."""


class StoreUnreachable(StoreError):
    """No connection to the database's server: it is restarted, or not there."""

    def __init__(self, message: str, uncertain: bool = False) -> None:
        super().__init__(message)
        self.uncertain = uncertain
        """Whether the transaction may have been committed all the same."""


class DiskFull(StoreError):
    """The database could not grow."""


class StudyExists(StoreError):
    """A new study was asked for under a name that is taken."""


class StudyNotFound(StoreError):
    """No study has this name or id."""


class StudyInUse(StoreError):
    """Another live controller works on the study."""


class CandidateExists(StoreError):
    """The study has a trial of this candidate already."""


class TrialNotFound(StoreError):
    """No trial has this id."""


class TrialFinished(StoreError):
    """A result was offered for a trial that has one."""


class MeasurementExists(StoreError):
    """The trial has a measurement of this purpose, session and board already."""
