"""`orchestrator doctor`: is this computer fit?"""

from __future__ import annotations

import os
from pathlib import Path

import typer

from orchestrator.cli.options import Debug, InventoryFile, Output, StoreFolder, print_document, print_hanging, verb
from orchestrator.cli.outcome import NOT_MET, Format


def doctor(
    store: StoreFolder = None,
    inventory: InventoryFile = None,
    format_: Output = Format.TEXT, debug: Debug = False,
) -> None:
    """Check this computer: Python, packages, store, inventory, SSH keys, governor, load. Exit code 1 for an error."""
    with verb(debug):
        from orchestrator.doctor import diagnose

        document = diagnose(store, inventory, os.environ, Path.cwd(), Path.home())

        def as_text() -> None:
            for check in document["checks"]:
                print_hanging(f"{check['level']:<8} ", f"{check['name']}: {check['detail']}")
                if check["remedy"] is not None:
                    typer.echo(f"{'':8} -> {check['remedy']}")

        print_document(document, format_, as_text)
        if not document["ok"]:
            raise typer.Exit(NOT_MET)
