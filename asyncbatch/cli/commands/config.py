"""The command `asyncbatch config`: show where options come from, and the schema of the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from asyncbatch.cli.command import CommandGroup, SectionedCommand, print_note
from asyncbatch.cli.options.defaults import command_settings, open_config, option_table
from asyncbatch.cli.options.parameters import with_options
from asyncbatch.cli.options.values import command_policy
from asyncbatch.cli.terminal import to_stderr
from asyncbatch.config.config_search import COMMANDS
from asyncbatch.config.options.control import ConfigFlags
from asyncbatch.core.options import Options, option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.cli.options.flags import Flag
    from asyncbatch.config.configuration import ConfigFile
    from asyncbatch.config.secret_sources import CommandPolicy

config: typer.Typer = typer.Typer(
    name="config",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Show options from configuration files and variables.",
)

EPILOG = """\
\b
Examples:
  asyncbatch config show
  asyncbatch config show run --profile nightly
  asyncbatch config show run -o json
"""


class ShowFlags(Options, frozen=True, kw_only=True):
    """The output of `config show`."""

    panel: ClassVar[str] = "Output"

    output: Annotated[
        Literal["text", "json"],
        option("Print lines of TOML, or one JSON object.", short="-o"),
    ] = "text"


@config.command(cls=SectionedCommand, epilog=EPILOG)
@with_options
def show(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="[COMMAND]", help="run, validate, etl or stream.  [default: all of them]"
        ),
    ] = None,
    *,
    source: ConfigFlags,
    output: ShowFlags,
) -> None:
    """Show each option that is set, and where its value comes from.

    A variable of the environment goes before the profile, the profile before the rest of the file.
    Passwords are not shown.
    """
    if command not in (None, *COMMANDS):
        raise typer.BadParameter(f"{command} is not a command with options: {', '.join(COMMANDS)}")
    notes: list[str] = []
    file, profile = open_config(
        source.config, source.profile, no_config=source.no_config, notes=notes
    )
    for note in notes:
        to_stderr(f"Note: {note}")
    found = {
        name: list(_values(name, made, file, profile, command_policy(source)))
        for name, made in _commands(context).items()
        if command in (None, name)
    }
    if output.output == "json":
        values = [{"command": name, **one} for name, given in found.items() for one in given]
        shown = {"file": file.path if file else None, "profile": profile, "options": values}
        print_note(json.dumps(shown, indent=2))
        return
    print_note(f"# {file.path}" if file else "# no configuration file")
    for name, given in found.items():
        if given:
            print_note(f"\n[{name}]")
        for one in given:
            shown_value = json.dumps(one["value"], ensure_ascii=False)
            print_note(f"{one['option']} = {shown_value}  # {_place(one)}")


@config.command(cls=SectionedCommand)
def schema(context: typer.Context) -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from asyncbatch.config.configuration import config_schema

    tables = {
        name: option_table(name, made.callback.flags) for name, made in _commands(context).items()
    }
    print_note(json.dumps(config_schema(tables), indent=2))


def _commands(context: typer.Context) -> dict[str, Any]:
    """Return the commands that have a table in the file."""
    program: Any = context.find_root().command
    return {name: program.get_command(context.find_root(), name) for name in COMMANDS}


def _values(
    name: str,
    command: Any,
    file: ConfigFile | None,
    profile: str | None,
    commands: CommandPolicy,
) -> Iterator[dict[str, Any]]:
    """Yield the option, the value and the place of each value that is given to a command."""
    flags: dict[str, Flag] = command.callback.flags
    settings = command_settings(file, name, flags, profile, commands) if file else {}
    context = typer.Context(
        command, info_name=name, auto_envvar_prefix=f"ASYNCBATCH_{name.upper()}"
    )
    variables = {one.name: one for one in command.get_params(context)}
    for key, flag in flags.items():
        if flag.is_eager:
            continue
        one = variables[key]
        text = one.value_from_envvar(context)
        if text is not None:
            value = _shown(flag, one.type_cast_value(context, text))
            yield {"option": key, "value": value, "variable": one.envvar}
        elif key in settings and file is not None:
            setting = settings[key]
            yield {
                "option": key,
                "value": _shown(flag, setting.value),
                "file": file.path,
                "line": file.line(setting.path),
                "table": file.table(setting.path),
            }


def _place(found: dict[str, Any]) -> str:
    if "variable" in found:
        return str(found["variable"])
    return f"{found['file']}:{found['line']} {found['table']}"


def _shown(flag: Flag, value: Any) -> Any:
    """Return a value without passwords; a text with variables as it was written."""
    from asyncbatch.config.options.forms import FromEnvironment
    from asyncbatch.core.secrets import (
        REDACTED,
        is_secret_name,
        redact_address,
        secret_path_url,
        secret_url,
    )

    if isinstance(value, list | tuple):
        return [_shown(flag, one) for one in value]
    if not isinstance(value, str):
        return value
    text = value.written if isinstance(value, FromEnvironment) else value
    name, _, value = text.partition("=")
    if flag.field == "set" and (is_secret_name(name) or ("://" in value and "?" in value)):
        return f"{name}={REDACTED}"
    try:
        if flag.form == "ping_url":
            is_variable = text.startswith("${")
            return text if is_variable else secret_path_url(text).redacted
        return redact_address(str(secret_url(text)) if "://" in text else text)
    except ValueError:
        return REDACTED
