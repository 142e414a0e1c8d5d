"""Base classes of commands, the lock, and printed notes."""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager, suppress
from copy import copy
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from asyncbatch.cli import exit_codes
from asyncbatch.cli.options.defaults import FileDefaults
from asyncbatch.cli.options.usage import (
    NotBegunError,
    refuse_second_file,
    suggested_names,
    unknown_variables,
    usage_message,
)
from asyncbatch.cli.terminal import stderr_is_log, stdout, to_stderr, write_stderr
from asyncbatch.config.config_search import COMMANDS
from asyncbatch.core.units import printable, printable_lines
from asyncbatch.errors import OutputClashError, UsageError, error_reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from asyncbatch.cli.observers.base import RunObserver
    from asyncbatch.cli.report_files import ReportFile
    from asyncbatch.config.options.control import MonitorFlags, OutputFlags
    from asyncbatch.core.settings import StoreSettings

_DEFAULT_SECTION = "Other"


# Repeatable options whose values may contain blanks: their variables have one value a line.
_BY_LINE = frozenset({"--jq", "--call", "--set", "--agg"})
# Options that print something and end the command. A variable of this name is the pin
# (ASYNCBATCH_VERSION=0.1.0), and must not replace the work by a text and exit status 0.
_NO_SETTINGS = frozenset(
    {
        *("--version", "--help", "--help-all", "--print-schema"),
        *("--install-completion", "--show-completion"),
    }
)


def set_variables(parameters: Iterable[Any], prefix: str | None) -> None:
    """Name the environment variable of each option: `prefix`, and the option's longest name."""
    for parameter in parameters:
        if parameter.param_type_name != "option" or prefix is None:
            continue
        name = max(parameter.opts, key=len)
        parameter.allow_from_autoenv = False
        if name in _NO_SETTINGS:
            continue
        parameter.envvar = f"{prefix}_{name.removeprefix('--').replace('-', '_').upper()}"
        if name in _BY_LINE:
            parameter.type = copy(parameter.type)  # other options share the type
            parameter.type.split_envvar_value = _filled_lines


def _filled_lines(text: str) -> list[str]:
    """Return the lines of a text that are not blank."""
    return [line for line in text.splitlines() if line.strip()]


class CommandGroup(TyperGroup):
    """A group of commands."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command; print an error of usage, which quotes arguments, and exit."""
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except TyperException as error:
            text = io.StringIO()
            error.show(text)  # type: ignore[attr-defined]  # only its private subclasses are raised
            # Without the name of an option, the error is not about one value.
            shown = text.getvalue().replace("Error: Invalid value: ", "Error: ", 1)
            if not stderr_is_log():  # the end of the log has the message
                write_stderr(shown.rstrip("\n"))
            sys.exit(error.exit_code)
        sys.exit(code)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, each with its environment variable."""
        parameters: list[Any] = super().get_params(ctx)
        set_variables(parameters, ctx.auto_envvar_prefix)
        return parameters


class SectionedCommand(TyperCommand):
    """A command whose help lists the main options, or with `--help-all` all by panel."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; errors suggest the next step."""
        parameters = self.get_params(ctx)
        with suggested_names(parameters):
            refuse_second_file(parameters, args)
            if self.name in COMMANDS:
                ctx.default_map = FileDefaults(ctx, args)
            parsed: list[str] = super().parse_args(ctx, args)
        _refuse_empty_arguments(ctx)
        self._refuse_idle_options(ctx)
        return parsed

    def _refuse_idle_options(self, ctx: Any) -> None:
        """Raise BadParameter for an option that has no meaning without another one.

        A configuration file or a variable may set it for those commands that have the other.
        """
        flags = getattr(self.callback, "flags", {})
        is_file = any(word.endswith(".toml") for word in ctx.params.get("source") or ())
        for name, flag in flags.items():
            # With a pipeline file, the other may be there.
            if not flag.needs or is_file or any(map(ctx.params.get, flag.needs)):
                continue
            if is_typed(ctx, name):
                others = [flags[other].names[0] for other in flag.needs if other in flags]
                raise typer.BadParameter(f"{flag.names[0]} needs {' or '.join(others)}")

    def invoke(self, ctx: Any) -> Any:
        """Run the command; first print the notes about its options."""
        if isinstance(ctx.default_map, FileDefaults) and not ctx.params.get("quiet"):
            for note in ctx.default_map.notes:
                to_stderr(f"Note: {note}")
        flags = getattr(self.callback, "flags", {}).values()
        if flags and ctx.auto_envvar_prefix and not ctx.params.get("quiet"):
            for warning in unknown_variables(
                f"{ctx.auto_envvar_prefix}_",
                self.get_params(ctx),
                [flag.old for flag in flags if flag.old is not None],
            ):
                to_stderr(f"Warning: {warning}")
        return super().invoke(ctx)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, each with its environment variable."""
        parameters: list[Any] = super().get_params(ctx)
        set_variables(parameters, ctx.auto_envvar_prefix)
        return parameters

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one help section per panel, in order of appearance; or only the main options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        flags = getattr(self.callback, "flags", {})
        main = {name for name, flag in flags.items() if flag.is_main}
        if ctx.params.get("help_all"):
            main = set()
        others = 0
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            flag = flags.get(parameter.name)
            if flag is not None and flag.old is not None:
                record = (record[0].replace(f", {flag.old}", ""), record[1])
            is_argument = parameter.param_type_name == "argument"
            panel = getattr(parameter, "rich_help_panel", None) or _DEFAULT_SECTION
            if main and not is_argument and parameter.name not in main:
                others += 1
            elif main and not is_argument:
                sections.setdefault("Main options", []).append(record)
            else:
                sections.setdefault("Arguments" if is_argument else panel, []).append(record)
        if others:
            sections["Main options"].append(
                ("--help-all", f"Show all options: {others} more, by subject.")
            )
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def is_typed(ctx: Any, name: str) -> bool:
    """Whether the command line, and no file or variable, gives an option."""
    origin = ctx.get_parameter_source(name)
    return origin is not None and origin.name == "COMMANDLINE"


def _refuse_empty_arguments(ctx: Any) -> None:
    """Raise BadParameter for an argument without a text: a variable of a shell that is not set."""
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name)
        if parameter.param_type_name == "argument" and (
            value == "" or (isinstance(value, list | tuple) and "" in value)
        ):
            raise typer.BadParameter("is empty", param_hint=f"'{parameter.metavar}'")


# The options that say how a command that cannot begin tells of it.
_TELLING = frozenset({"report", "ping", "log_file", "log_format", "dry_run", "check", "quiet"})


class ReportingCommand(SectionedCommand):
    """A command that writes its reports and its log, and sends its ping, also if it cannot begin.

    Otherwise the metrics of the last good run would stay, and nobody would be alarmed. This holds
    for each mistake, also for one in the arguments, as far as these options can be read.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, after giving each `--live` a value; report a mistake in them."""
        words = with_live_address(args)
        try:
            # The parser takes them from the list.
            parsed: list[str] = super().parse_args(ctx, list(words))
        except (TyperException, NotBegunError):
            given = self._readable_options(ctx, words)
            with self._reported(given), self._logged(given):
                raise
        return parsed

    def invoke(self, ctx: Any) -> Any:
        """Run the command; report an exit status 2."""
        with self._reported(ctx.params), self._logged(ctx.params):
            return super().invoke(ctx)

    def _readable_options(self, ctx: Any, words: list[str]) -> dict[str, Any]:
        """Return the values of the options that tell of a failure, in spite of a mistake."""
        ctx.ignore_unknown_options = ctx.allow_extra_args = True
        try:
            found, _, _ = self.make_parser(ctx).parse_args(words)
        except TyperException:  # an option without its value
            return {}
        for name in ("config", "profile", "no_config"):  # they may give these values
            ctx.params.setdefault(name, found.get(name))
        values = {}
        for one in self.get_params(ctx):
            if one.name in _TELLING:
                with suppress(TyperException, typer.Exit):
                    value, _ = one.consume_value(ctx, found)
                    values[one.name] = one.type_cast_value(ctx, value)
        return values

    @contextmanager
    def _reported(self, given: Mapping[str, Any]) -> Iterator[None]:
        """Report a mistake in the use of the command, with the options that it got."""
        try:
            yield
        except TyperException as error:
            if isinstance(error.__context__, OutputClashError):
                given = {**given, "report": ()}  # one of them may be the output
            self._report_failure(given, usage_message(error))
            raise
        except NotBegunError as error:
            self._report_failure(given, error.reason)
            raise

    @contextmanager
    def _logged(self, given: Mapping[str, Any]) -> Iterator[None]:
        """Open the log, if the options ask for one. Raises BadParameter."""
        path, form = given.get("log_file") or None, given.get("log_format")
        if path is None and form is None:
            yield
            return
        from asyncbatch.cli.observers.log import MachineLog
        from asyncbatch.errors import UsageError

        log = MachineLog(path, form or "text")
        try:
            log.open(self.name or "")
        except UsageError as error:
            raise typer.BadParameter(str(error)) from None
        with log:
            yield

    def _report_failure(self, given: Mapping[str, Any], error: str) -> None:
        if given.get("dry_run") or given.get("check"):
            return
        if paths := [path for path in given.get("report") or () if path]:
            import asyncio

            from asyncbatch.cli.report_files import write_failed_reports

            asyncio.run(write_failed_reports(paths, self.name or "", error, exit_codes.USAGE))
        if given.get("ping"):
            from asyncbatch.cli.observers.ping import Ping
            from asyncbatch.config.options.forms import PARSERS

            with suppress(ValueError):  # the wrong option may be --ping itself
                Ping(PARSERS["ping_url"](given["ping"])).fail(error, exit_codes.USAGE)


_AUTO_ADDRESS = ":0"  # The value that `--live` alone stands for: a free port of the loopback.


def with_live_address(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a value for each `--live` that has none.

    The next word is the value if it is an address. A number is a port, unless there is such a file.
    """
    completed: list[str] = []
    for index, word in enumerate(arguments):
        if word == "--":
            return [*completed, *arguments[index:]]
        if word == "--live" and not _is_address("".join(arguments[index + 1 : index + 2])):
            word = f"--live={_AUTO_ADDRESS}"  # noqa: PLW2901 - the completed word
        completed.append(word)
    return completed


def _is_address(word: str) -> bool:
    from asyncbatch.config.options.forms import LISTEN_ADDRESS

    return LISTEN_ADDRESS.fullmatch(word) is not None and not os.path.exists(word)


AUTO_LOCK = "auto"  # The value that `--lock` alone stands for.


class LockableCommand(ReportingCommand):
    """A command with the option `--lock [FILE]`, whose value may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments after giving each `--lock` a value."""
        parsed: list[str] = super().parse_args(ctx, with_lock_file(args))
        return parsed


def with_lock_file(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a value for each `--lock` that has none.

    The next word is the value, unless it is an option or an input.
    """
    completed: list[str] = []
    for index, word in enumerate(arguments):
        if word == "--":
            return [*completed, *arguments[index:]]
        following = arguments[index + 1] if index + 1 < len(arguments) else "-"
        is_alone = word == "--lock" and (following.startswith("-") or _is_input(following))
        completed.append(f"--lock={AUTO_LOCK}" if is_alone else word)
    return completed


def _is_input(word: str) -> bool:
    """Whether a word names an input: a folder, a glob, a JSON or TOML file, `simulate:`."""
    from asyncbatch.sources.selection import (
        DEFAULT_PATTERNS,
        Patterns,
        has_magic,
    )

    name = os.path.basename(word)
    return (
        word.endswith(("/", ".toml", "simulate:"))
        or os.path.isdir(word)
        or has_magic(word)
        or Patterns(DEFAULT_PATTERNS).matches(name, "")
    )


def take_lock(
    file: str,
    wait_seconds: float,
    *,
    inputs: Sequence[str],
    target: str | None,
    outputs: Iterable[str],
    options: Mapping[str, object],
    quiet: bool,
) -> None:
    """Take the lock until this process ends, or exit with the status for a held lock.

    The default lock file depends on `inputs`, `target` and `options`. Raises UsageError.
    """
    from asyncbatch.errors import LockHeldError
    from asyncbatch.state.lock import (
        Lock,
        default_lock,
        job_key,
    )

    if not file:
        raise UsageError("--lock= names no file: write --lock for the default, or --lock=FILE")
    if not inputs:
        hint = (
            "" if file == AUTO_LOCK else f" (--lock took {file!r} as its file: is that the input?)"
        )
        raise UsageError(f"no input: name a folder, a file, a glob, '-' or --files-from{hint}")
    files = (path.partition(":///")[2] or path for path in outputs)  # also those of databases
    if any(os.path.realpath(file) == os.path.realpath(path) for path in (*files, *inputs)):
        raise UsageError(f"--lock {file} is an input or an output: name another file")
    lock = default_lock(job_key(inputs, target, options)) if file == AUTO_LOCK else Lock(file)
    try:
        try:
            lock.acquire()
        except LockHeldError as error:
            if not wait_seconds:
                raise
            if not quiet:
                to_stderr(f"Waiting for at most {wait_seconds:g} s: {printable(str(error))}")
            lock.acquire(wait_seconds)
    except LockHeldError as error:
        waited = f" (waited {wait_seconds:g} s)" if wait_seconds else ""
        to_stderr(f"Not run: {printable(str(error))}{waited}")
        raise typer.Exit(exit_codes.LOCKED) from None


def config_files(context: typer.Context) -> tuple[str, ...]:
    """Return the path of the configuration file that the command has read, if any."""
    defaults = context.default_map
    path = defaults.path if isinstance(defaults, FileDefaults) else None
    return () if path is None else (path,)


def open_reports(
    paths: Sequence[str], stores: StoreSettings | None = None, *, command: str = "run"
) -> list[ReportFile]:
    """Open the report files. Raises UsageError, OSError."""
    if not paths:
        return []
    from asyncbatch.cli.report_files import ReportFile

    return [ReportFile(path, stores, command=command) for path in paths]


def open_servers(
    flags: MonitorFlags, command: str, *, metrics_port: int | None = None
) -> list[RunObserver]:
    """Open the ports that the options ask for: live page and metrics. Raises UsageError."""
    servers: list[RunObserver] = []
    if flags.live is not None:
        from asyncbatch.cli.live.page import LivePage

        servers.append(LivePage(flags.live, command, hold=flags.live_hold))
    if metrics_port is not None:
        from asyncbatch.cli.render.prometheus import MetricsServer

        servers.append(MetricsServer(metrics_port, command))
    return servers


def refuse_results(output: OutputFlags) -> None:
    """Raise BadParameter for outputs that only a run with results has."""
    if output.report:
        raise typer.BadParameter("--dry-run has no results: leave out --report")
    if output.output not in ("text", "json", "jsonl"):
        raise typer.BadParameter(f"--dry-run has no results: leave out --output {output.output}")


def print_note(text: str) -> None:
    """Print a result. End the process if standard output cannot be written."""
    try:
        typer.echo(printable_lines(text), file=stdout())
    except BrokenPipeError:  # the rest of the buffer cannot be written either
        os._exit(exit_codes.CLOSED_OUTPUT)
    except OSError as error:
        to_stderr(f"Error: cannot write to standard output: {error_reason(error)}")
        os._exit(exit_codes.FAILURES)
