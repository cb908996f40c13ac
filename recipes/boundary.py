"""The line where code that is not ours (a user's factory, a converter) may raise anything."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    except (Exception, SystemExit) as cause:  # noqa: BLE001 - foreign code may raise anything; it is reported, chained
        lines = [line for line in str(cause).splitlines() if line.strip()] or ["no message"]
        more = f"; --debug shows the other {len(lines) - 1} lines" if len(lines) > 1 else ""
        raise error(f"{what} failed with {type(cause).__name__}: {lines[0].strip()} ({_place(cause)}{more})") from cause


def _place(cause: BaseException) -> str:
    """Return file and line: of a syntax error, else of the frame that matters."""
    if isinstance(cause, SyntaxError) and cause.filename:
        return f"{cause.filename}:{cause.lineno}"
    frame = origin(cause)
    return f"{frame.filename}:{frame.lineno}"


def origin(cause: BaseException) -> traceback.FrameSummary:
    """Return where an error comes from: the last frame that is no library's, else the last."""
    frames = traceback.extract_tb(cause.__traceback__)[1:] or traceback.extract_tb(cause.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith("<") and not _is_library(Path(f.filename))]
    return (theirs or frames)[-1]


def _is_library(file: Path) -> bool:
    """Tell whether a file is of an installed package, of Python, or ours."""
    ours = Path(__file__).parent
    return any(file.is_relative_to(folder) for folder in (ours, sys.prefix, sys.base_prefix))
