"""What can be wrong with what the user gave us: exit code 2, one clear message."""

from __future__ import annotations


class ModelError(ValueError):
    """The model cannot be found, loaded, exported or converted."""


class DataError(ValueError):
    """The data do not have the form that is asked for, or do not fit the model."""


class ConversionMismatch(ModelError):
    """The converted float32 artifact does not compute what the PyTorch model does."""
