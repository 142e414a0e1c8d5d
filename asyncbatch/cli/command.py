"""Command base class: help sections, the lock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from asyncbatch.cli import exit_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_DEFAULT_SECTION = "Other"


class SectionedCommand(TyperCommand):
    """A command whose options are listed by panel."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then a section for each panel, in order of appearance."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            is_argument = parameter.param_type_name == "argument"
            panel = getattr(parameter, "rich_help_panel", None) or _DEFAULT_SECTION
            sections.setdefault("Arguments" if is_argument else panel, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


AUTO_LOCK = "auto"  # The value that `--lock` alone stands for.


class LockableCommand(SectionedCommand):
    """A command with `--lock [FILE]`, a form that its parser does not know of itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, `--lock` having its value."""
        parsed: list[str] = super().parse_args(ctx, with_lock_file(args))
        return parsed


def with_lock_file(arguments: Sequence[str]) -> list[str]:
    """Give each `--lock` its value: the next word, unless that is an option or an input."""
    given: list[str] = []
    for place, word in enumerate(arguments):
        if word == "--":
            return [*given, *arguments[place:]]
        following = arguments[place + 1] if place + 1 < len(arguments) else "-"
        alone = word == "--lock" and (following.startswith("-") or _is_input(following))
        given.append(f"--lock={AUTO_LOCK}" if alone else word)
    return given


def _is_input(word: str) -> bool:
    """Whether a word is an input, not a lock file: a folder, a glob, a JSON or TOML name."""
    from asyncbatch.sources.selection import (
        DEFAULT_PATTERNS,
        Patterns,
        has_magic,
    )

    name = os.path.basename(word)
    return (
        word.endswith(("/", ".toml"))
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

    `options` are all else that distinguishes the job. Raises UsageError.
    """
    from asyncbatch.core.units import printable
    from asyncbatch.errors import (
        LockHeldError,
        UsageError,
    )
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
    if any(os.path.realpath(file) == os.path.realpath(path) for path in (*outputs, *inputs)):
        raise UsageError(f"--lock {file} is an input or an output: name a file of its own")
    lock = default_lock(job_key(inputs, target, options)) if file == AUTO_LOCK else Lock(file)
    try:
        try:
            lock.acquire()
        except LockHeldError as error:
            if not wait_seconds:
                raise
            if not quiet:
                typer.echo(
                    f"Waiting: {printable(str(error))}, for {wait_seconds:g} s at most", err=True
                )
            lock.acquire(wait_seconds)
    except LockHeldError as error:
        waited = f" (waited {wait_seconds:g} s)" if wait_seconds else ""
        typer.echo(f"Not run: {printable(str(error))}{waited}", err=True)
        raise typer.Exit(exit_codes.LOCKED) from None


def print_note(text: str) -> None:
    """Print a result; ends the command if that is not possible."""
    from asyncbatch.cli.terminal import stdout

    try:
        typer.echo(text, file=stdout())
    except BrokenPipeError:  # the rest of the buffer cannot be written either
        os._exit(exit_codes.CLOSED_OUTPUT)
    except OSError as error:
        typer.echo(f"Error: could not go on: {error}", err=True)
        os._exit(exit_codes.FAILURES)


def printable_lines(text: str) -> str:
    """Return text of several lines with control characters escaped."""
    from asyncbatch.core.units import printable

    return "\n".join(map(printable, text.split("\n")))
