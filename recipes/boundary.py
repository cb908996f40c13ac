"""The line where code that is not ours (a user's factory, a converter) may raise anything."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from recipes.errors import DataError, ModelError


@contextmanager
def foreign(what: str, error: type[ModelError] | type[DataError]) -> Iterator[None]:
    """Turn whatever foreign code raises into one `error` that says what failed, where and why.

    Args:
        what: completes the sentence "... failed", e.g. "net.py:make()".
        error: the type to raise.
    """
    try:
        yield
    except (ModelError, DataError):
        raise
    except Exception as cause:  # noqa: BLE001 - foreign code may raise anything; it is reported, chained
        frame = traceback.extract_tb(cause.__traceback__)[-1]
        reason = (str(cause).strip().splitlines() or ["no message"])[0]
        raise error(f"{what} failed with {type(cause).__name__}: {reason} "
                    f"({frame.filename}:{frame.lineno})") from cause
