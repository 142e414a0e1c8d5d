"""The command `asyncbatch generate`: write example data."""

import os
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from asyncbatch.cli import exit_codes
from asyncbatch.cli.command import CommandGroup, SectionedCommand
from asyncbatch.cli.options.parameters import with_options
from asyncbatch.config.options.streams import SimulatorOptions
from asyncbatch.core.options import Count, Name, Options, Span, option

if TYPE_CHECKING:
    from typing import IO

    from asyncbatch.sources.live.simulator import Simulator

generate: typer.Typer = typer.Typer(
    name="generate",
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Write example events.",
)

_EVENTS_PER_WRITE = 1000
EPILOG = """\
\b
Examples:
  asyncbatch generate events --count 100000 --seed 1 --to events.jsonl
  asyncbatch generate events --duration 1m --start 2026-01-01T00:00:00Z
"""


class EventFlags(Options, frozen=True, kw_only=True):
    """The events that are written, and their file."""

    panel: ClassVar[str] = "Control"

    count: Annotated[
        Count | None, option("Write N events.", short="-n", metavar="N", default="1,000")
    ] = None
    duration: Annotated[
        Span | None, option("Write the events of DURATION.", metavar="DURATION")
    ] = None
    start: Annotated[
        str | None,
        option(
            "Begin with an event at TIME.", metavar="TIME", default="now", panel="Simulated events"
        ),
    ] = None
    to: Annotated[
        Name,
        option("Write to FILE; '-' is standard output.", metavar="FILE", panel="Output"),
    ] = "-"


@generate.command(cls=SectionedCommand, epilog=EPILOG)
@with_options
def events(*, control: EventFlags, simulator: SimulatorOptions) -> None:
    """Write events as `stream simulate:` does, but without waiting.

    An event has a time, a user, a type and a value.
    """
    import time

    from asyncbatch.config.settings import simulator_of
    from asyncbatch.windows.times import TimeReader

    count, duration, start = control.count, control.duration, control.start
    if count is not None and duration is not None:
        raise typer.BadParameter("--count and --duration both set the number of events: choose one")
    try:
        first = time.time_ns() // 1000 if start is None else TimeReader().parse(start)
    except ValueError as error:
        raise typer.BadParameter(f"--start {start!r} {error}") from None
    if duration is not None:
        count = max(1, int(duration * simulator.rate / 1_000_000))
    _write(simulator_of(simulator, first), count or 1000, control.to)


def _write(simulator: "Simulator", count: int, to: str) -> None:
    from asyncbatch.cli.terminal import stdout, stdout_error, to_stderr
    from asyncbatch.errors import (
        SinkError,
        UsageError,
        error_reason,
    )
    from asyncbatch.storage.atomic import AtomicFile

    try:
        if to == "-":
            try:
                _write_events(simulator, count, stdout().buffer)
                stdout().buffer.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise stdout_error(error) from None
            return
        file = AtomicFile(to)
        file.open()
        _write_events(simulator, count, file.stream)
        file.commit()
    except BrokenPipeError:
        os._exit(exit_codes.CLOSED_OUTPUT)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    except SinkError as error:
        to_stderr(f"Error: {error}")
        os._exit(exit_codes.FAILURES)
    except OSError as error:
        to_stderr(f"Error: cannot continue: {error_reason(error)}")
        os._exit(exit_codes.FAILURES)


def _write_events(simulator: "Simulator", count: int, stream: "IO[bytes]") -> None:
    while count:
        size = min(count, _EVENTS_PER_WRITE)
        stream.write(simulator.lines(size))
        count -= size
