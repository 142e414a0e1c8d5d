"""Conversion of a pipeline file to a Job, or to the job of a stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.cli.options.usage import NotBegunError
from asyncbatch.cli.options.values import has_library, memory_plan, replacing_flags
from asyncbatch.cli.terminal import separate_results, to_stderr
from asyncbatch.config.job import (
    DEFAULT_PATIENCE,
    MIN_PATIENCE,
    FileSource,
    Job,
    RecordWorkSettings,
    StreamSettings,
    checked_settings,
)
from asyncbatch.config.ledger import ledger_settings
from asyncbatch.config.options.streams import FollowOptions, PatternOptions
from asyncbatch.config.options.target import LedgerFlags
from asyncbatch.config.pipeline_file.build import (
    dedupe_key,
    files_inputs,
    files_settings,
    http_settings,
    sink_target,
    transform_specs,
)
from asyncbatch.config.pipeline_file.load import FLAG_KEYS, load_stream_file
from asyncbatch.config.pipeline_file.sources import (
    FilesSourceTable,
    HttpSourceTable,
    SimulatedTable,
    event_paths,
)
from asyncbatch.config.settings import simulator_of, stream_settings
from asyncbatch.core.origin import added_columns
from asyncbatch.core.records import STDIN
from asyncbatch.core.report import process_run_id
from asyncbatch.core.settings import Sizes
from asyncbatch.core.units import format_count
from asyncbatch.errors import PipelineFileError, UsageError
from asyncbatch.pipeline.builder import make_job_sources
from asyncbatch.pipeline.stream.delivery import DeliverySettings, check_stream_outputs
from asyncbatch.pipeline.stream.stream import StreamCore
from asyncbatch.sinks.groups import grouped_target
from asyncbatch.sinks.target import Target
from asyncbatch.sinks.windows import make_target
from asyncbatch.sources.live.distinct import check_distinct
from asyncbatch.sources.live.open import SIMULATE, LiveOptions, open_path
from asyncbatch.sources.live.simulator import SimulatedSource
from asyncbatch.sources.selection import DEFAULT_PATTERNS, Selection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.config.options.control import WorkerFlags
    from asyncbatch.config.options.pipelines import EtlFlags
    from asyncbatch.config.pipeline_file.files import PipelineFile, StreamFile
    from asyncbatch.config.pipeline_file.sinks import SinkTable
    from asyncbatch.config.pipeline_file.sources import EventSourceTable, SourceTable
    from asyncbatch.config.secret_sources import CommandPolicy
    from asyncbatch.core.settings import (
        DaskSettings,
        FileWorkSettings,
        LedgerSettings,
        WatchSettings,
    )
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.sources.base import LiveSource
    from asyncbatch.sources.http.settings import HttpSettings

_DRY_RUN_RECORDS = 10  # default number of records of each source in a dry run


def etl_job(
    pipeline: PipelineFile,
    options: EtlFlags,
    processes: WorkerFlags,
    *,
    reports: Sequence[str],
    log_file: str | None,
    reads: tuple[str, ...] = (),
    tracebacks: bool,
    timeout: float | None = None,
    budget: FailureBudget | None = None,
    dask: DaskSettings | None = None,
    watch: WatchSettings | None = None,
) -> Job:
    """Return the job of a pipeline, with all sources or those that `--only` names.

    In a dry run the parts of the run carry their rows to the preview, and nothing is written. With
    `dask`, a cluster does the work. With `watch`, the run waits for more files. Raises UsageError.
    """
    limit, dry_run, workers = options.limit, options.dry_run, processes.workers
    sink = pipeline.sink
    tables = pipeline.only(options.only) if options.only else pipeline.sources
    work = _shared_work(pipeline, tables, tracebacks=tracebacks)
    repeats = options.full_refresh or options.allow_duplicates
    if (dry_run or limit is not None) and repeats:
        raise UsageError(
            "--full-refresh and --allow-duplicates need a ledger, and runs with --max-records or "
            "--dry-run have none: leave them out"
        )
    if (options.resume or options.allow_duplicates) and pipeline.aggregate is not None:
        raise UsageError(
            "--resume and --allow-duplicates need a ledger, and aggregates are made of all inputs: "
            "leave them out"
        )
    if dry_run:
        work = replace(work, target=Target("", "parts", ""), letters=False)
        limit = limit or _DRY_RUN_RECORDS
    elif limit is not None:
        _check_limit(sink, work.target)
    plan = memory_plan(
        processes.max_memory,
        workers if dask is None else 0,  # the workers of a cluster have their own limits
        needs_process=(work.runs_programs or timeout is not None) and dask is None,
        has_library=has_library(str(sink.to)),
    )
    sizes = plan.sizes if plan else Sizes()
    work = replace(work, files=replace(work.files, sizes=sizes))
    # Made from all sources, not only the chosen ones: a name depends on the other sources.
    sources = tuple(
        make_job_sources(_named_sources(pipeline, sizes), work, asks_ahead=limit is None)
    )
    if watch is not None:
        sources = tuple(
            replace(source, may_be_empty=True) if isinstance(source, FileSource) else source
            for source in sources
        )
        _check_watched(tables)
    files = [source.settings for source in sources if isinstance(source, FileSource)]
    chosen = zip(sources, pipeline.sources, strict=True)
    return Job(
        tuple(source for source, table in chosen if table in tables),
        load_batch=sink.batch_size,
        ordered=not sink.unordered,
        dead_letter=pipeline.dead_letter.to if pipeline.dead_letter and not dry_run else None,
        reports=tuple(reports),
        log_file=log_file,
        reads=reads,
        workers=0 if dry_run else workers,
        most_workers=plan.workers if plan else None,
        budget=budget,
        timeout=None if dry_run else timeout,
        limit=limit,
        dask=None if dry_run else dask,
        watch=watch,
        has_format_key=True,
        ledger=None
        if limit is not None
        else _etl_ledger_settings(tables, files[0] if files else work, options),
    )


def _check_watched(tables: Sequence[SourceTable]) -> None:
    """Raise UsageError for a source that cannot be watched."""
    for table in tables:
        if isinstance(table, FilesSourceTable) and (table.files_from or table.limit):
            raise UsageError(
                "--watch, which waits for files without end, excludes the keys files_from and limit"
            )


def _shared_work(
    pipeline: PipelineFile, tables: Sequence[SourceTable], *, tracebacks: bool
) -> RecordWorkSettings:
    """Return the settings for the work on records that all sources share."""
    target = sink_target(pipeline.sink, _root(tables), job=pipeline.name)
    if pipeline.aggregate is not None:
        target = grouped_target(target, pipeline.aggregate.groups)
    return checked_settings(
        RecordWorkSettings(
            transforms=transform_specs(pipeline.transforms),
            dedupe=dedupe_key(pipeline.transforms) or (),
            target=target,
            added=added_columns(
                pipeline.sink.add,
                with_source=pipeline.sink.with_source,
                key=pipeline.sink.key,
            ),
            run_id=process_run_id(),
            letters=pipeline.dead_letter is not None,
            tracebacks=tracebacks,
            patience=max(MIN_PATIENCE, pipeline.sink.flush_interval or DEFAULT_PATIENCE),
        )
    )


def _root(tables: Sequence[SourceTable]) -> str | None:
    roots = [table.root for table in tables if isinstance(table, FilesSourceTable)]
    return roots[0] if len(roots) == 1 else None


def _named_sources(
    pipeline: PipelineFile, sizes: Sizes
) -> Iterator[tuple[str, FileSource | HttpSettings]]:
    """Yield the name and the settings of each source of a pipeline."""
    for name, table in zip(pipeline.source_names(), pipeline.sources, strict=True):
        if isinstance(table, HttpSourceTable):
            yield name, http_settings(table)
        else:
            settings = files_settings(table)
            settings = replace(settings, files=replace(settings.files, sizes=sizes))
            yield name, FileSource(files_inputs(table), settings, table.allow_empty)


def limit_notes(target: Target) -> list[str]:
    """Return the notes to print about a run with `--max-records`."""
    if not target.is_database or target.key:
        return []
    table = target.table
    return [
        f"--max-records keeps no ledger, and {table} has no key: the next run adds these rows again"
    ]


def _check_limit(sink: SinkTable, target: Target | None) -> None:
    """Raise UsageError for a target that a run with `--max-records` would damage."""
    if sink.mode == "replace":
        raise UsageError(
            '--max-records with sink.mode = "replace" would leave only those records in the table: '
            "look at them with --dry-run, or load them elsewhere with --set sink.table=NAME and "
            "--set sink.mode=append"
        )
    if target is not None and target.form == "folder":
        raise UsageError(
            "--max-records with a folder as the sink would leave files that hold only some of "
            "their records: use --dry-run, or --set sink.to=FILE.jsonl"
        )


def _etl_ledger_settings(
    tables: Sequence[SourceTable], work: FileWorkSettings | RecordWorkSettings, options: EtlFlags
) -> LedgerSettings | None:
    """Return the settings of the ledger. Done inputs are skipped, as with --resume.

    `work` is the work of the first file source, or the shared work if there is no file source.
    """
    target = work.target if isinstance(work, RecordWorkSettings) else None
    if target is not None and target.groups is not None:
        return None  # each run makes the aggregates of all inputs
    has_feeds = any(isinstance(table, HttpSourceTable) for table in tables)
    dedupes = isinstance(work, RecordWorkSettings) and bool(work.dedupe)
    is_object = target is not None and target.is_remote and target.form != "folder"
    if target is not None and not target.is_database and (has_feeds or dedupes or is_object):
        return None  # each run writes this file again from all inputs
    is_stream = target is not None and target.form == "stdout"
    flags = LedgerFlags(
        resume=not options.full_refresh and not is_stream,
        force=options.full_refresh,
        allow_duplicates=options.allow_duplicates,
    )
    return ledger_settings(work, flags, _root(tables))


# Parameters that are allowed with a pipeline file. They set how it runs; the file sets the work.
_ALLOWED_PARAMETERS = frozenset(
    {
        *("source", "set", "check", "max_failures", "workers", "call_concurrency", "timeout"),
        *("retries", "retry_delay"),
        *("duration", "max_events", "report", "quiet", "grace", "lock", "lock_wait"),
        *("signal_exit", "output", "verbose", "show_failures", "progress"),
        *("color", "config", "profile", "no_config", "ping", "history"),
        *("allow_commands", "command_timeout"),
        *("log_file", "log_format"),
        *FLAG_KEYS,
    }
)


class FileJob(Struct, frozen=True):
    """The job of a pipeline file of `asyncbatch stream`."""

    file: StreamFile
    settings: StreamSettings

    @property
    def delivery(self) -> DeliverySettings:
        """The target of windows, and the checkpoint."""
        sink, checkpoint = self.file.sink, self.file.checkpoint
        made = DeliverySettings()
        if sink is not None:
            made = replace(made, to=sink.to.reveal(), table=sink.table, csv_safe=sink.csv_safe)
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

    def check_files(self, others: Mapping[str, str]) -> None:
        """Raise UsageError if two outputs or two sources are one file, or an output is a source.

        `others` maps the names of options to files beside those of the pipeline file.
        """
        names = [name for name, _ in _named_tables(self.file.sources)]
        files = {"--late": self.late, "--dead-letter": self.dead_letter, **others}
        check_distinct(
            (name, _selection(table)) for name, table in _named_tables(self.file.sources)
        )
        check_stream_outputs(self.delivery, names, files)

    def sources(self) -> list[LiveSource]:
        """Open and return the sources. Raises UsageError."""
        return [_open_source(name, table) for name, table in _named_tables(self.file.sources)]

    def __str__(self) -> str:
        tables = list(_named_tables(self.file.sources))
        names = ", ".join(name for name, _ in tables)
        sources = f"{format_count(len(tables), 'source')} ({names})"
        transforms = format_count(len(self.file.transforms), "transform")
        sink = self.file.sink
        to = "" if sink is None else f", into {f'{sink.table} of ' if sink.table else ''}{sink.to}"
        return f"{sources}, {transforms}, {self.settings.window}{to}"


def file_job(
    path: str, overrides: Sequence[str], context: typer.Context, commands: CommandPolicy
) -> FileJob:
    """Return the job of the file at `path`. Exit with status 2 if it has mistakes.

    Raises UsageError for an option that is not allowed with a pipeline file.
    """
    flags: dict[str, Any] = {}
    for parameter in context.command.params:
        name = str(parameter.name)
        origin = context.get_parameter_source(name)
        if origin is None or origin.name != "COMMANDLINE":  # others are for streams without a file
            continue
        if name in FLAG_KEYS:
            flags[name] = context.params[name]
        if name not in _ALLOWED_PARAMETERS:
            raise UsageError(
                f"{parameter.opts[0]} is not allowed with a pipeline file: change it in the file, "
                "or with --set"
            )
    try:
        separate_results()  # an imported user module may print, and its prints are not results
        flags = replacing_flags(flags, overrides)
        file = load_stream_file(path, overrides, commands=commands, **flags)
    except PipelineFileError as error:
        to_stderr(f"Error: {error}")
        raise NotBegunError(str(error)) from None
    settings = _stream_settings(file, tracebacks=bool(context.params.get("verbose")))
    job = FileJob(file, settings)
    stream = StreamCore(settings)
    stream.check()
    if job.delivery.to is not None:
        make_target(job.delivery.to, stream.schema, table=job.delivery.table)
    return job


def _stream_settings(file: StreamFile, *, tracebacks: bool) -> StreamSettings:
    window = file.window
    work = checked_settings(RecordWorkSettings(transforms=transform_specs(file.transforms)))
    return stream_settings(
        window,
        window.windows,
        window.aggregate_columns,
        transforms=work.transforms,
        letters=file.dead_letter is not None,
        tracebacks=tracebacks,
    )


def _named_tables(tables: Sequence[EventSourceTable]) -> Iterator[tuple[str, EventSourceTable]]:
    """Yield the name and the table of each source; a table may have several.

    The second simulated source and later ones have a number in their names.
    """
    simulated = 0
    for table in tables:
        if isinstance(table, SimulatedTable):
            simulated += 1
            yield SIMULATE if simulated == 1 else f"{SIMULATE}{simulated}", table
        else:
            yield from ((path, table) for path in event_paths(table))


def _selection(table: EventSourceTable) -> Selection:
    """Return the selection of the files of a folder."""
    if isinstance(table, PatternOptions):
        return Selection(table.pattern or DEFAULT_PATTERNS, table.exclude)
    return Selection()


def _open_source(name: str, table: EventSourceTable) -> LiveSource:
    if isinstance(table, FollowOptions):
        return open_path(name, LiveOptions(table.follow, table.from_end, _selection(table)))
    if not isinstance(table, SimulatedTable):
        return open_path(STDIN)
    return SimulatedSource(name, simulator_of(table, time.time_ns() // 1000))
