"""The command `asyncbatch generate`: write example data."""

import os
from typing import TYPE_CHECKING

import typer

from asyncbatch.cli import exit_codes
from asyncbatch.cli.command import CommandGroup, SectionedCommand
from asyncbatch.cli.options import stream as s
from asyncbatch.core.records import display_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from asyncbatch.sources.live.simulator import Simulator

generate = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Write example data.")

_EVENTS_PER_WRITE = 1000
EPILOG = """\
\b
Examples:
  asyncbatch generate events --count 100000 --seed 1 --to events.jsonl
  asyncbatch generate events --rate 10000 --duration 1m --start 2026-01-01T00:00:00Z
"""


@generate.command(cls=SectionedCommand, epilog=EPILOG)
def events(
    *,
    count: s.Count = None,
    duration: s.Duration = None,
    rate: s.Rate = 10.0,
    seed: s.Seed = None,
    users: s.Users = 1000,
    types: s.Types = None,
    start: s.Start = None,
    disorder: s.Disorder = "0",
    to: s.To = "-",
) -> None:
    """Write events as `stream simulate:` does, but without waiting.

    An event has a time, a user, a type and a value.
    """
    import time

    from asyncbatch.sources.live.simulator import Simulator
    from asyncbatch.windows.times import TimeReader

    if count is not None and duration is not None:
        raise typer.BadParameter("--count and --duration both set the number of events: choose one")
    try:
        first = time.time_ns() // 1000 if start is None else TimeReader().parse(start)
    except ValueError as error:
        raise typer.BadParameter(f"--start {start!r} {error}") from None
    if duration is not None:
        count = max(1, int(int(duration) * rate / 1_000_000))
    simulator = Simulator(
        first,
        rate=rate,
        seed=seed,
        users=users,
        types=type_names(types),
        disorder=int(disorder),
    )
    _write(simulator, count or 1000, to)


def type_names(text: str | None) -> "Sequence[str]":
    """Return the event types that `text` lists, or the default ones."""
    from asyncbatch.sources.live.simulator import DEFAULT_TYPES

    if text is None:
        return DEFAULT_TYPES
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise typer.BadParameter(f"--types {text!r} has a type without a name")
    if not text.isascii() and display_path(text) != text:
        raise typer.BadParameter(f"--types {text!r} is not UTF-8")
    return names


def _write(simulator: "Simulator", count: int, to: str) -> None:
    from asyncbatch.cli.terminal import stdout, to_stderr
    from asyncbatch.errors import (
        SinkError,
        UsageError,
    )
    from asyncbatch.storage.atomic import AtomicFile

    try:
        if to == "-":
            _write_events(simulator, count, stdout().buffer)
            stdout().buffer.flush()
            return
        file = AtomicFile(to)
        file.open()
        _write_events(simulator, count, file.stream)
        file.commit()
    except BrokenPipeError:
        os._exit(exit_codes.CLOSED_OUTPUT)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    except (OSError, SinkError) as error:
        to_stderr(f"Error: cannot continue: {error}")
        os._exit(exit_codes.FAILURES)


def _write_events(simulator: "Simulator", count: int, stream: "IO[bytes]") -> None:
    while count:
        size = min(count, _EVENTS_PER_WRITE)
        stream.write(simulator.lines(size))
        count -= size
