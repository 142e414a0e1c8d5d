"""A pipeline file of a stream, checked and made into what the options of the command are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer
from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.chain import checked
from asyncbatch.cli import exit_codes
from asyncbatch.cli.etl import printable_lines
from asyncbatch.cli.streams import set_results_apart
from asyncbatch.errors import PipelineFileError, UsageError
from asyncbatch.pipeline_file import load_stream_file
from asyncbatch.pipeline_file.specs import transform_specs
from asyncbatch.pipeline_file.stream_sources import (
    EventFileTable,
    EventFolderTable,
    EventStdinTable,
    SimulatedTable,
)
from asyncbatch.pipeline_file.window import ARRIVAL
from asyncbatch.record_settings import RecordWorkSettings
from asyncbatch.records import STDIN
from asyncbatch.sources.selection import Selection
from asyncbatch.streams.delivering import Delivery
from asyncbatch.streams.opening import Reading, open_path
from asyncbatch.streams.origins import SIMULATE
from asyncbatch.streams.settings import StreamSettings
from asyncbatch.streams.simulator import Simulator
from asyncbatch.streams.sources import SimulatedSource
from asyncbatch.streams.stream import Stream
from asyncbatch.streams.targets import make_target
from asyncbatch.words import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.pipeline_file import StreamFile
    from asyncbatch.pipeline_file.stream_sources import EventSourceTable
    from asyncbatch.streams.chunks import Source

_BESIDE = frozenset(
    {
        *("source", "set_", "check", "max_failures", "workers", "call_concurrency", "timeout"),
        *("duration", "max_events", "report", "quiet"),
    }
)
"""Parameters of the command that go with a pipeline file: how it is run, not what it does."""


class FileJob(Struct, frozen=True):
    """What a pipeline file has the command do."""

    file: StreamFile
    settings: StreamSettings

    @property
    def delivery(self) -> Delivery:
        """Where windows go."""
        sink, checkpoint = self.file.sink, self.file.checkpoint
        made = Delivery()
        if sink is not None:
            made = replace(made, to=sink.to.reveal(), table=sink.table)
        if checkpoint is not None:
            made = replace(made, checkpoint=checkpoint.path, every=checkpoint.every)
        return made

    @property
    def late(self) -> str | None:
        """The file for late events."""
        return self.file.late.to if self.file.late else None

    @property
    def dead_letter(self) -> str | None:
        """The file for rejected records."""
        return self.file.dead_letter.to if self.file.dead_letter else None

    def sources(self) -> list[Source]:
        """Return the sources, opened. Raises UsageError."""
        return [_source(name, table) for name, table in _named(self.file.sources)]

    def __str__(self) -> str:
        names = ", ".join(name for name, _ in _named(self.file.sources))
        sources = f"{count(len(self.file.sources), 'source')} ({names})"
        transforms = count(len(self.file.transforms), "transform")
        sink = self.file.sink
        to = "" if sink is None else f", into {f'{sink.table} of ' if sink.table else ''}{sink.to}"
        return f"{sources}, {transforms}, {self.settings.window}{to}"


def file_job(path: str, overrides: Sequence[str], context: typer.Context) -> FileJob:
    """Return what the file at `path` says; ends the command if anything is wrong with that.

    Raises UsageError.
    """
    for parameter in context.command.params:
        name = str(parameter.name)
        origin = context.get_parameter_source(name)
        if origin is not None and origin.name == "COMMANDLINE" and name not in _BESIDE:
            raise UsageError(
                f"{parameter.opts[0]} is for the pipeline file to say: change it there, or with "
                "--set"
            )
    try:
        set_results_apart()  # what importing a user's function prints is no result
        file = load_stream_file(path, overrides)
    except PipelineFileError as error:
        typer.echo(f"Error: {printable_lines(str(error))}", err=True)
        raise typer.Exit(exit_codes.USAGE) from None
    settings = _settings(file)
    job = FileJob(file, settings)
    stream = Stream(settings)
    stream.check()
    if job.delivery.to is not None:
        make_target(job.delivery.to, stream, table=job.delivery.table)
    return job


def _settings(file: StreamFile) -> StreamSettings:
    window = file.window
    work = checked(RecordWorkSettings(transforms=transform_specs(file.transforms)))
    return StreamSettings(
        window=window.windows,
        aggregates=window.aggregate_columns,
        by=window.by,
        time=None if window.time == ARRIVAL else window.time,
        unit=window.time_unit,
        lateness=window.lateness,
        idle=window.idle_timeout,
        max_future=window.max_future,
        max_keys=window.max_keys,
        overflow_key=window.overflow_key,
        transforms=work.transforms,
        letters=file.dead_letter is not None,
    )


def _named(tables: Sequence[EventSourceTable]) -> Iterator[tuple[str, EventSourceTable]]:
    """Yield sources, each beside its name, simulated ones numbered from the second on."""
    simulated = 0
    for table in tables:
        if isinstance(table, SimulatedTable):
            simulated += 1
            yield SIMULATE if simulated == 1 else f"{SIMULATE}{simulated}", table
        else:
            yield STDIN if isinstance(table, EventStdinTable) else table.path, table


def _source(name: str, table: EventSourceTable) -> Source:
    if isinstance(table, EventFileTable | EventFolderTable):
        pattern = table.pattern if isinstance(table, EventFolderTable) else None
        selection = Selection(pattern) if pattern else Selection()
        return open_path(name, Reading(table.follow, table.from_end, selection))
    if not isinstance(table, SimulatedTable):
        return open_path(STDIN)
    start = time.time_ns() // 1000
    return SimulatedSource(
        name,
        Simulator(
            start,
            rate=table.rate,
            seed=table.seed,
            users=table.users,
            types=table.types,
            disorder=table.disorder,
        ),
    )
