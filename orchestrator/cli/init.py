"""`orchestrator init`: a study of one's own to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Output
from orchestrator.cli.outcome import Format, exit_codes

FILES = ("study.yaml", "model.py", "data.py")
SCHEMA = 1


def init(
    directory: Annotated[Path, typer.Option(help="Folder to write to; made where it is missing.")] = Path("."),
    format_: Output = Format.TEXT,
) -> None:
    """Write study.yaml, model.py and data.py: a small study that works, to be edited."""
    with exit_codes():
        files = write_templates(directory)
        command = "orchestrator search" if directory == Path(".") else f"cd {directory} && orchestrator search"
        if format_ is Format.JSON:
            document = {"schema": SCHEMA, "files": [str(file) for file in files], "next": command}
            typer.echo(json.dumps(document, indent=2))
            return
        for file in files:
            typer.echo(f"wrote {file}")
        typer.echo(f"try it: {command}\nthen put your own network into model.py and your own arrays into data.py")


def write_templates(directory: Path) -> list[Path]:
    """Write the templates into a folder, all or none.

    Raises:
        UsageError: when one of the files exists, or the folder cannot be written to.
    """
    from importlib import resources

    from orchestrator.errors import UsageError

    files = [directory / name for name in FILES]
    existing = [str(file) for file in files if file.exists() or file.is_symlink()]
    if existing:
        verb = "is" if len(existing) == 1 else "are"
        raise UsageError(f"nothing is overwritten, and {' and '.join(existing)} {verb} there already; choose another "
                         "folder with --directory")
    templates = resources.files("orchestrator").joinpath("templates")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.write_text(templates.joinpath(f"{file.name}.txt").read_text("utf-8"), "utf-8")
    except OSError as error:
        why = "that is a file" if directory.is_file() else error.strerror
        raise UsageError(f"--directory {directory}: the files cannot be written there ({why}); choose another "
                         "folder") from error
    return files
