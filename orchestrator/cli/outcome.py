"""Errors become one message and an exit code; no traceback reaches a user."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
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
def exit_codes(log_file: Path | None = None, resume: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Turn every error into its exit code.

    Args:
        log_file: where details are, for errors that nobody foresaw.
        resume: returns the command that continues what there is in the store; None where there is nothing.
    """
    from device_farm.errors import FarmError
    from device_farm.inventory import InventoryError
    from orchestrator.errors import NothingRan, UsageError
    from orchestrator.store.errors import DiskFull, StoreBusy, StoreError
    from recipes.bundle.schema import BundleError
    from recipes.errors import DataError, ModelError

    def again() -> str:
        command = resume()
        return f"\nNothing finished is lost; continue with: {command}" if command else ""

    try:
        yield
    except (UsageError, ModelError, DataError, InventoryError) as error:
        raise fail(str(error), USAGE) from error
    except (StoreBusy, DiskFull) as error:
        raise fail(f"{error}{again()}", INFRASTRUCTURE) from error
    except StoreError as error:
        raise fail(str(error), USAGE) from error
    except BundleError as error:
        raise fail(str(error), INFRASTRUCTURE) from error
    except NothingRan as error:
        raise fail(str(error), NOT_MET) from error
    except FarmError as error:
        raise fail(f"{error}{again()}", INFRASTRUCTURE) from error
    except KeyboardInterrupt as error:
        raise fail(f"interrupted{again()}", INTERRUPTED) from error
    except (typer.Exit, typer.Abort, SystemExit):
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: logged with its traceback
        logging.getLogger(__name__).exception("unforeseen")
        where = f"details: {log_file}" if log_file else "run again with --debug for details"
        raise fail(f"internal error: {type(error).__name__}: {error}\n"
                   f"This is a defect, please report it; {where}{again()}", INFRASTRUCTURE) from error


def start_logging(log_file: Path | None, debug: bool) -> None:
    """Log to a file, from INFO or DEBUG; without a file to standard error, and only when debugging."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handler: logging.Handler = logging.FileHandler(log_file)
    elif debug:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    for noisy in ("paramiko", "fabric", "matplotlib", "alembic", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(logging.INFO if debug else logging.ERROR)
