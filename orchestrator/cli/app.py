"""`orchestrator`: verbs, options, exit codes. Heavy imports happen only when a verb runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli import boards, costmodel, devices, doctor, init, leases, recipes, search, studies, tune

app = typer.Typer(
    name="orchestrator", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Find per-layer bit-widths for a trained network by measuring candidates on your own board.",
    epilog="Exit codes: 0 goal met, 1 not met, 2 usage or configuration, 3 infrastructure, 130 interrupted.")
app.command("search")(search.search)
app.command("init")(init.init)
app.command("tune")(tune.tune)
app.command("doctor")(doctor.doctor)
for verb in (leases.reserve, leases.release, leases.history, boards.power, boards.logs):
    devices.app.command()(verb)
devices.app.command(context_settings={"ignore_unknown_options": True})(boards.ssh)
app.add_typer(devices.app, name="devices")
app.add_typer(studies.app, name="studies")
app.add_typer(recipes.app, name="recipes")
app.add_typer(costmodel.app, name="costmodel")


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"orchestrator {version('hil-orchestrator')}")
        raise typer.Exit


@app.callback()
def _verbs(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version,
                                          is_eager=True)] = False,
) -> None:
    """Find per-layer bit-widths for a trained network by measuring candidates on your own board."""


def main() -> None:
    """Run the command line."""
    sys.exit(app())


if __name__ == "__main__":
    main()
