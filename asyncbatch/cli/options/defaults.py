"""The defaults of options that a configuration file gives."""

from __future__ import annotations

import os
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import typer

from asyncbatch.cli.options.usage import NotBegunError
from asyncbatch.cli.terminal import to_stderr
from asyncbatch.config.config_search import FILE_NAME, find_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.cli.options.flags import Flag
    from asyncbatch.config.configuration import ConfigFile, Setting
    from asyncbatch.config.secret_sources import CommandPolicy
    from asyncbatch.core.options import Options

FILE_VARIABLE = "ASYNCBATCH_CONFIG_FILE"
PROFILE_VARIABLE = "ASYNCBATCH_PROFILE"


class FileDefaults(dict[str, Any]):
    """The values of a command's options in its configuration file: a `default_map`.

    The file is found and read when the first option asks, not for `--help`: options of the command
    line and the environment do not ask. `notes` are about files that are passed over, and names
    that options of the command `line` had before.
    """

    def __init__(self, context: Any, line: Sequence[str]) -> None:
        super().__init__()
        self._context = context
        self._arguments: dict[str, Any] | None = None
        self.path: str | None = None  # the configuration file, if it was read
        self.notes: list[str] = []
        words = {word.partition("=")[0] for word in takewhile("--".__ne__, line)}
        for flag in context.command.callback.flags.values():
            if flag.old in words:
                self.notes.append(f"{flag.old} is now called {flag.names[0]}")

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of an option as its parameter takes it. Raises BadParameter, Exit."""
        flag = self._context.command.callback.flags.get(name)
        if flag is None or flag.is_eager or self._context.resilient_parsing:
            return default
        if flag.old is not None and (value := self._old_variable(flag)) is not None:
            return value
        if self._arguments is None:
            self._arguments = {}  # a file with mistakes is read once
            self._arguments = self._read()
        return self._arguments.get(name, default)

    def _read(self) -> dict[str, Any]:
        command = self._context.command
        options = {name: self._option(name) for name in ("config", "profile", "no_config")}
        file, profile = open_config(**options, notes=self.notes)
        if file is None:
            return {}
        self.path = file.path
        flags = command.callback.flags
        found = command_settings(file, command.name, flags, profile, self._command_policy(flags))
        return {key: _argument(flags[key], setting.value) for key, setting in found.items()}

    def _old_variable(self, flag: Flag) -> str | None:
        """Return the value of the variable that an option had before."""
        prefix = f"{self._context.auto_envvar_prefix}_"
        old, new = (
            prefix + name.removeprefix("--").replace("-", "_").upper()
            for name in (flag.old or "", flag.names[0])
        )
        if value := os.environ.get(old):
            self.notes.append(f"the variable {old} is now called {new}")
        return value or None

    def _command_policy(self, flags: Mapping[str, Flag]) -> CommandPolicy:
        """Return whether `${cmd:…}` may run commands. Raises BadParameter."""
        from asyncbatch.config.secret_sources import CommandPolicy

        seconds = self._option("command_timeout")
        flag = flags.get("command_timeout")
        if seconds is None or flag is None:
            return CommandPolicy(bool(self._option("allow_commands")))
        return CommandPolicy(bool(self._option("allow_commands")), flag.value(seconds))

    def _option(self, name: str) -> Any:
        return self._context.params.get(name)


def open_config(
    config: str | None, profile: str | None, *, no_config: bool, notes: list[str]
) -> tuple[ConfigFile | None, str | None]:
    """Return the configuration file of these options, and the name of the profile.

    Raises BadParameter; Exit for mistakes in the file.
    """
    if no_config:
        for option, value in (("--config", config), ("--profile", profile)):
            if value:
                raise typer.BadParameter(
                    f"{option} and --no-config contradict each other: give only one of them"
                )
        return None, None
    named = config or os.environ.get(FILE_VARIABLE)
    profile = profile or os.environ.get(PROFILE_VARIABLE) or None
    path = named or find_config(notes.append)
    if path is None:
        if profile is not None:
            reason = f"there is no {FILE_NAME} in this folder or above, and no --config"
            raise typer.BadParameter(f"{profile!r}: {reason}", param_hint="'--profile'")
        return None, None
    from asyncbatch.config.configuration import read_config
    from asyncbatch.errors import PipelineFileError

    try:
        return read_config(path, is_found=not named), profile
    except PipelineFileError as error:
        to_stderr(f"Error: {error}")
        raise NotBegunError(str(error)) from None


def command_settings(
    file: ConfigFile,
    command: str,
    flags: Mapping[str, Flag],
    profile: str | None,
    commands: CommandPolicy,
) -> dict[str, Setting]:
    """Return the options of a command in a file. Raises Exit for mistakes."""
    from asyncbatch.errors import PipelineFileError

    trusted = {key for key, flag in flags.items() if flag.is_trusted}
    outputs = {key for key, flag in flags.items() if flag.is_output}
    try:
        return file.settings(
            command, option_table(command, flags), profile, trusted, outputs, commands=commands
        )
    except PipelineFileError as error:
        to_stderr(f"Error: {error}")
        raise NotBegunError(str(error)) from None


def option_table(command: str, flags: Mapping[str, Flag]) -> type[Options]:
    """Return the type of a command's table in a configuration file."""
    from msgspec import defstruct

    from asyncbatch.core.options import Options

    made: Any = defstruct(
        command,
        [(key, flag.hint | None, None) for key, flag in flags.items() if not flag.is_eager],
        bases=(Options,),
        namespace={"__doc__": f"The options of `asyncbatch {command}`."},
        frozen=True,
        kw_only=True,
    )
    return made  # type: ignore[no-any-return]  # a subclass of Options


def _argument(flag: Flag, value: Any) -> Any:
    """Return a checked value of a file as the option's parameter takes it."""
    if isinstance(value, list):
        texts = list(map(str, value))
        if not flag.splits:
            return texts
        # Quoted, because a name in the file may have commas.
        return ['"{}"'.format(text.replace('"', '""')) for text in texts]
    if isinstance(value, str):
        return str(value)  # plain text, also of a variable
    is_number = flag.form is not None and isinstance(value, float)
    return format(value, "f") if is_number else value
