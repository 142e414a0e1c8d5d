"""The Typer application with all commands."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer

from asyncbatch._version import __version__
from asyncbatch.cli.command import (
    CommandGroup,
    LockableCommand,
    ReportingCommand,
    SectionedCommand,
)

# The commands, and their lines in the help of the program.
COMMANDS = {
    "run": "Process many JSON files at once, and report each failure.",
    "validate": "Check JSON documents against a JSON Schema.",
    "profile": "Show the fields of records: types, values, formats, and files that differ.",
    "schema": "Infer a JSON Schema from files, and compare schemas.",
    "etl": "Run a pipeline file: load APIs and files into a target.",
    "stream": "Count and sum events in time windows.",
    "init": "Write an example of a pipeline file, to edit.",
    "ledger": "Show or clear ledgers: the lists of inputs that are done.",
    "history": "List past runs, and the files that began or ceased to fail.",
    "config": "Show options from configuration files and variables.",
    "merge-reports": "Merge the reports of several runs, or of shards.",
    "generate": "Write example events.",
    "man": "Print the manual page, to save as asyncbatch.1.",
}

EPILOG = """\
\b
Start with:
  asyncbatch run FOLDER     # read its JSON files, and report the bad ones
  asyncbatch run --help     # options and examples; so for each command

Documentation: README.md and docs/ in the source repository. All options are in docs/options.md;
cron, systemd, Kubernetes and CI are in docs/automation.md.
"""


class Program(CommandGroup):
    """The group of all commands. A command is loaded when it is asked for: start-up is quick."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: dict[str, Any | None] = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # only the names are read

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's signature
        """Return a command, or None for an unknown name."""
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer's signature
        """Write the names of the commands and their lines of help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@cache
def load_command(name: str) -> Any:  # noqa: C901, PLR0911, PLR0912 - one case a command
    """Import a command, and return it as Typer makes it."""
    match name:
        case "run":
            from asyncbatch.cli.commands.run import EPILOG, run_files

            return _make(name, run_files, LockableCommand, EPILOG)
        case "validate":
            from asyncbatch.cli.commands.validate import EPILOG, validate_files

            return _make(name, validate_files, ReportingCommand, EPILOG)
        case "profile":
            from asyncbatch.cli.commands.profile import EPILOG, profile_files

            return _make(name, profile_files, ReportingCommand, EPILOG)
        case "etl":
            from asyncbatch.cli.commands.etl import EPILOG, run_etl

            return _make(name, run_etl, LockableCommand, EPILOG)
        case "stream":
            from asyncbatch.cli.commands.stream import EPILOG, stream_events

            return _make(name, stream_events, LockableCommand, EPILOG)
        case "init":
            from asyncbatch.cli.commands.init import EPILOG, write_pipeline

            return _make(name, write_pipeline, SectionedCommand, EPILOG)
        case "merge-reports":
            from asyncbatch.cli.commands.merge_reports import EPILOG, merge_reports

            return _make(name, merge_reports, SectionedCommand, EPILOG)
        case "man":
            from asyncbatch.cli.commands.man import EPILOG, print_manual

            return _make(name, print_manual, SectionedCommand, EPILOG)
        case "schema":
            from asyncbatch.cli.commands.schema import schema as group
        case "config":
            from asyncbatch.cli.commands.config import config as group
        case "ledger":
            from asyncbatch.cli.commands.ledger import ledger as group
        case "history":
            from asyncbatch.cli.commands.history import history as group
        case _:
            from asyncbatch.cli.commands.generate import generate as group
    return typer.main.get_group(group)


def _make(name: str, function: Any, kind: type[SectionedCommand], epilog: str) -> Any:
    from asyncbatch.cli.options.parameters import with_options

    program = typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    program.command(name, cls=kind, epilog=epilog)(with_options(function))
    return typer.main.get_command(program)


app: typer.Typer = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ASYNCBATCH"},
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from asyncbatch.cli.terminal import stdout

        typer.echo(f"asyncbatch {__version__}", file=stdout())
        raise typer.Exit


@app.callback()
def asyncbatch(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "-V",
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Process folders of JSON files: fast, in bounded memory, with exact failure positions."""
