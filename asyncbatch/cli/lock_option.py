"""`--lock [FILE]`: an option whose value may be left out, and what it does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from asyncbatch.cli import exit_codes
from asyncbatch.cli.help import SectionedCommand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

AUTO = "auto"
"""The value that `--lock` alone stands for."""


class LockableCommand(SectionedCommand):
    """A command with `--lock [FILE]`, a form that its parser does not know of itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer moves these types about
        """Parse the arguments, `--lock` having its value."""
        parsed: list[str] = super().parse_args(ctx, with_lock_file(args))
        return parsed


def with_lock_file(arguments: Sequence[str]) -> list[str]:
    """Give each `--lock` its value: the next word, unless that is an option or plainly an input."""
    given: list[str] = []
    for place, word in enumerate(arguments):
        if word == "--":
            return [*given, *arguments[place:]]
        following = arguments[place + 1] if place + 1 < len(arguments) else "-"
        alone = word == "--lock" and (following.startswith("-") or _is_input(following))
        given.append(f"--lock={AUTO}" if alone else word)
    return given


def _is_input(word: str) -> bool:
    """Whether a word can be no lock file: a folder, a glob, or named like JSON or a pipeline."""
    from asyncbatch.sources.patterns import DEFAULT_PATTERNS, Patterns, has_magic  # noqa: PLC0415 - if --lock is there

    name = os.path.basename(word)
    return (
        word.endswith(("/", ".toml"))
        or os.path.isdir(word)
        or has_magic(word)
        or Patterns(DEFAULT_PATTERNS).fit(name, "")
    )


def take_lock(
    file: str,
    wait_s: float,
    *,
    inputs: Sequence[str],
    target: str | None,
    outputs: Iterable[str],
    wishes: Mapping[str, object],
    quiet: bool,
) -> None:
    """Take the lock until this process ends, or leave with the status that says it is held.

    `wishes` are what besides inputs and target makes it another job. Raises UsageError.
    """
    from asyncbatch.errors import LockHeldError, UsageError  # noqa: PLC0415 - if asked for
    from asyncbatch.lock import Lock, default_lock, job_key  # noqa: PLC0415 - if asked for
    from asyncbatch.words import printable  # noqa: PLC0415 - if asked for

    if not file:
        raise UsageError("--lock= names no file: write --lock for the default, or --lock=FILE")
    if not inputs:
        hint = "" if file == AUTO else f" (--lock took {file!r} as its file: is that the input?)"
        raise UsageError(f"no input: name a folder, a file, a glob, '-' or --files-from{hint}")
    if any(os.path.realpath(file) == os.path.realpath(path) for path in (*outputs, *inputs)):
        raise UsageError(f"--lock {file} is an input or an output: name a file of its own")
    lock = default_lock(job_key(inputs, target, wishes)) if file == AUTO else Lock(file)
    try:
        try:
            lock.acquire()
        except LockHeldError as error:
            if not wait_s:
                raise
            if not quiet:
                typer.echo(f"Waiting: {printable(str(error))}, for {wait_s:g} s at most", err=True)
            lock.acquire(wait_s)
    except LockHeldError as error:
        waited = f" (waited {wait_s:g} s)" if wait_s else ""
        typer.echo(f"Not run: {printable(str(error))}{waited}", err=True)
        raise typer.Exit(exit_codes.LOCKED) from None
