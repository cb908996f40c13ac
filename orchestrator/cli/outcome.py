"""Errors become one message and an exit code; no traceback reaches a user who did not ask for it."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path

import typer

GOAL_MET, NOT_MET, USAGE, INFRASTRUCTURE, INTERRUPTED = 0, 1, 2, 3, 130


class Format(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


def fail(message: str, code: int) -> typer.Exit:
    """Print a message to standard error and return what to raise."""
    typer.echo(f"orchestrator: {message}", err=True)
    return typer.Exit(code)


@contextmanager
def exit_codes(log_file: Path | None = None, resume: Callable[[], str | None] = lambda: None,
               debug: bool = False) -> Iterator[None]:
    """Turn every error into its exit code.

    Args:
        log_file: where details are, for errors that nobody foresaw.
        resume: returns the command that continues what there is in the store; None where there is nothing.
        debug: print where an error comes from, before its message.
    """

    def again() -> str:
        command = resume()
        return f"\nNothing finished is lost; continue with: {command}" if command else ""

    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt as error:
        raise fail(f"interrupted{again()}", INTERRUPTED) from error
    except Exception as error:  # noqa: BLE001 - the last line of defence: logged with its traceback
        if debug:
            traceback.print_exception(error)
        code = _code_of(error)
        if code is not None:
            raise fail(f"{error}{again() if code == INFRASTRUCTURE else ''}", code) from error
        where = "run again with --debug for details"
        if log_file is not None:
            with suppress(OSError):  # the log itself may be what cannot be written
                logging.getLogger(__name__).exception("unforeseen")
                where = f"details: {log_file}"
        raise fail(f"internal error: {type(error).__name__}: {error}\n"
                   f"This is a defect, please report it; {where}{again()}", INFRASTRUCTURE) from error


def _code_of(error: Exception) -> int | None:
    """Return an error's exit code; None for one that nobody foresaw."""
    # Imported when there is an error: half a second that no successful command need wait for.
    from device_farm.errors import FarmError
    from device_farm.inventory_file import InventoryError
    from orchestrator.errors import NothingRan, UsageError
    from orchestrator.store.errors import DiskFull, StoreBusy, StoreError, StoreUnreachable
    from recipes.bundle.schema import BundleError, PlaceTaken
    from recipes.errors import DataError, ModelError

    if isinstance(error, UsageError | ModelError | DataError | InventoryError | PlaceTaken):
        return USAGE
    if isinstance(error, StoreBusy | StoreUnreachable | DiskFull | BundleError | FarmError):
        return INFRASTRUCTURE
    if isinstance(error, StoreError):
        return USAGE
    return NOT_MET if isinstance(error, NothingRan) else None


class _LogFile(logging.FileHandler):
    """A log file that is made with its first line: a command that is refused leaves none."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()


def start_logging(log_file: Path | None, debug: bool) -> None:
    """Log to a file, from INFO or DEBUG; without a file to standard error, and only when debugging."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    if log_file is not None:
        handler: logging.Handler = _LogFile(log_file)
    elif debug:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    for noisy in ("paramiko", "fabric", "matplotlib", "alembic"):
        logging.getLogger(noisy).setLevel(logging.INFO if debug else logging.ERROR)
    logging.getLogger("sqlalchemy").setLevel(logging.ERROR)  # 300 lines about its mappings


def log_optuna_too() -> None:
    """Send Optuna's lines to our log and nowhere else; for the verbs that import it anyway."""
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
