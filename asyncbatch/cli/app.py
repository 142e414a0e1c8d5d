"""The Typer application with all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from asyncbatch._version import __version__
from asyncbatch.cli.command import (
    CommandGroup,
    LockableCommand,
    ReportingCommand,
    SectionedCommand,
)
from asyncbatch.cli.etl import EPILOG as ETL_EPILOG
from asyncbatch.cli.etl import run_etl
from asyncbatch.cli.generate import generate
from asyncbatch.cli.init import EPILOG as INIT_EPILOG
from asyncbatch.cli.init import write_pipeline
from asyncbatch.cli.ledger import ledger
from asyncbatch.cli.merge_reports import EPILOG as MERGE_EPILOG
from asyncbatch.cli.merge_reports import merge_reports
from asyncbatch.cli.parameters import with_options
from asyncbatch.cli.run import EPILOG, run_files
from asyncbatch.cli.stream import EPILOG as STREAM_EPILOG
from asyncbatch.cli.stream import stream_events
from asyncbatch.cli.validate import EPILOG as VALIDATE_EPILOG
from asyncbatch.cli.validate import validate_files

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ASYNCBATCH"},
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"asyncbatch {__version__}")
        raise typer.Exit


@app.callback()
def asyncbatch(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Process folders of JSON files: fast, in bounded memory, with exact failure positions."""


app.add_typer(ledger, name="ledger")
app.command("run", cls=LockableCommand, epilog=EPILOG)(with_options(run_files))
app.command("validate", cls=SectionedCommand, epilog=VALIDATE_EPILOG)(with_options(validate_files))
app.command("etl", cls=LockableCommand, epilog=ETL_EPILOG)(with_options(run_etl))
app.command("stream", cls=ReportingCommand, epilog=STREAM_EPILOG)(with_options(stream_events))
app.add_typer(generate, name="generate")
app.command("init", cls=SectionedCommand, epilog=INIT_EPILOG)(write_pipeline)
app.command("merge-reports", cls=SectionedCommand, epilog=MERGE_EPILOG)(with_options(merge_reports))
