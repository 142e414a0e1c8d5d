"""The class `Pipeline`: sources, transforms and a sink, composed by a program."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from asyncbatch.config.fingerprint import fingerprint
from asyncbatch.config.job import (
    DEFAULT_PATIENCE,
    MIN_PATIENCE,
    FeedJob,
    FileSource,
    Job,
    RecordWorkSettings,
    checked_settings,
)
from asyncbatch.core.origin import added_columns
from asyncbatch.core.report import Report, new_run_id
from asyncbatch.errors import UsageError, describe_error
from asyncbatch.pipeline.run import Run
from asyncbatch.sinks.callback import CallbackSink
from asyncbatch.sinks.groups import grouped_target
from asyncbatch.sinks.target import Target
from asyncbatch.sources.cursor import CursorField
from asyncbatch.sources.http.access.secret_names import ambiguous_urls
from asyncbatch.sources.http.settings import CONDITIONAL_SINK, HttpSettings
from asyncbatch.sources.http.source import Connections, HttpFeedSource
from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.iterables import IterableFeedSource, source_name, unique_names
from asyncbatch.transforms.fields import parse_path
from asyncbatch.transforms.spec import step_specs
from asyncbatch.windows.aggregates import parse_aggregates
from asyncbatch.windows.groups import GroupSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncbatch.core.batches import BatchPart
    from asyncbatch.core.settings import LedgerSettings
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.sinks.base import Mode, OnDelete, SchemaContract
    from asyncbatch.sinks.callback import Sink
    from asyncbatch.transforms.spec import Step

    # A source of records: files, URLs, or an iterable of a program.
    Origin: TypeAlias = FileSource | HttpSettings | AsyncIterable[Any] | Iterable[Any]
    Source: TypeAlias = Origin | str | os.PathLike[str]


def make_job_sources(
    origins: Iterable[tuple[str, Origin]], work: RecordWorkSettings, *, asks_ahead: bool = True
) -> Iterator[FileSource | FeedJob]:
    """Yield a source for each named origin, with `work` as the work on its records.

    The identities of a source's inputs depend on the sources before it. `asks_ahead`: pages may be
    requested before they are needed.
    """
    files, urls, connections = 0, set[str](), Connections()
    origins = list(origins)
    ambiguous = ambiguous_urls([one for _, one in origins if isinstance(one, HttpSettings)])
    for name, origin in origins:
        if isinstance(origin, HttpSettings):
            incremental = origin.incremental
            field = (
                CursorField(incremental.field, incremental.type, incremental.max)
                if incremental
                else None
            )
            settings = replace(work, records=origin.records or None, newest=field)
            if origin.conditional and not (work.target and work.target.replaces_rows):
                raise UsageError(f"{name}: conditional {CONDITIONAL_SINK}")
            is_alone = urls.isdisjoint(origin.urls)
            feeds = HttpFeedSource(
                name, origin, is_alone=is_alone, ambiguous=ambiguous, connections=connections,
                asks_ahead=asks_ahead,
            )  # fmt: skip
            yield FeedJob(feeds, settings)
            urls.update(origin.urls)
        elif isinstance(origin, FileSource):
            reading = origin.record_work or RecordWorkSettings(origin.files)
            settings = replace(
                work, files=reading.files, records=reading.records, whole=reading.whole
            )
            prefix = f"{name}:{fingerprint(reading)[:8]}//" if files else ""
            yield FileSource(origin.inputs, settings, origin.may_be_empty, name, prefix)
            files += 1
        else:
            yield FeedJob(IterableFeedSource(name, origin), work)


_ORIGINS = (FileSource, HttpSettings, AsyncIterable, Iterable)
USER_BATCH = 1000  # default number of records that a user's own sink gets in one call


class Pipeline:
    """Reads records from sources, transforms them and loads them into a sink, once.

    A `source` is an iterable of records, async or not (a generator, a list); files: a path or a
    `FileSource`; URLs: an `http.HttpSettings`; or a list of these, read concurrently. Transforms
    are functions or generators, async or not, and the results of `jq`, `fields`, `require`,
    `schema` and `call`. The `sink` is any target of `--to`, with its `table`, `key`, `mode`,
    `columns` and `schema_contract` (for the mode mirror, also `on_delete` and `max_delete`); a
    `Sink` of the program; or None, to count and check. With `dedupe`, the paths of a key, only the
    first record of each key is loaded. `with_source` and `add` add columns about the origin of each
    record, as the options of the command do; the id of the run is then in the report. With `by` or
    `aggregates`, the sink gets one row for each group of records in their place, at the end, as
    with `--by` and `--agg`.

    Rejected records and failed sources are data: in the report, and in the file `dead_letter`. The
    sink gets up to `batch_size` records at a time, in the order of their source if `ordered`;
    records wait at most `flush_interval` seconds for others. `concurrency` and `workers` are those
    of `Job`, `call_concurrency` that of the command. The run ends after more failures than
    `max_failures`.

    With `resume`, inputs that an earlier run of the same pipeline finished are skipped, as with
    `--resume`; `ledger` is the file that records them, if the sink is not a database. Both need
    files or URLs as sources, a sink with a name or None, and transforms with names (`call`).

    Raises UsageError for invalid or contradicting arguments.
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        transforms: Iterable[Step] = (),
        sink: str | os.PathLike[str] | Sink | None = None,
        *,
        table: str | None = None,
        key: str | Sequence[str] = (),
        mode: Mode | None = None,
        on_delete: OnDelete | None = None,
        max_delete: str | None = None,
        columns: Sequence[str] | None = None,
        schema_contract: SchemaContract | None = None,
        dedupe: str | Sequence[str] = (),
        by: str | Sequence[str] = (),
        aggregates: str | Sequence[str] | Mapping[str, str] = (),
        max_keys: int | None = None,
        with_source: bool = False,
        add: str | Sequence[str] = (),
        dead_letter: str | os.PathLike[str] | None = None,
        batch_size: int | None = None,
        flush_interval: float = DEFAULT_PATIENCE,
        ordered: bool = True,
        concurrency: int | None = None,
        call_concurrency: int = 100,
        workers: int | None = None,
        max_failures: FailureBudget | None = None,
        tracebacks: bool = False,
        resume: bool = False,
        ledger: str | os.PathLike[str] | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it cannot be less than 1")
        options = {
            "table": table,
            "key": _as_tuple(key),
            "mode": mode,
            "on_delete": on_delete,
            "max_delete": max_delete,
            "columns": None if columns is None else tuple(columns),
            "schema_contract": schema_contract,
        }
        self._callback_sink = None
        if sink is not None and not isinstance(sink, str | os.PathLike):
            self._callback_sink = CallbackSink(sink)
        self._user_sink: object = sink
        target = _make_target(sink, options)
        if by or aggregates:
            groups = _groups(by, aggregates or ("count",), max_keys)
            if target is None:
                raise UsageError("by and aggregates need a sink, which gets their rows")
            target = grouped_target(target, groups, has_mode=bool(mode or key))
        work = checked_settings(
            RecordWorkSettings(
                transforms=tuple(step_specs(transforms)),
                dedupe=_key_paths(dedupe),
                added=added_columns(_as_tuple(add), with_source=with_source, key=_as_tuple(key)),
                run_id=new_run_id(),
                call_concurrency=call_concurrency,
                target=target,
                letters=dead_letter is not None,
                tracebacks=tracebacks,
                patience=max(MIN_PATIENCE, flush_interval),
            )
        )
        origins = list(_iter_origins(source))
        sources = tuple(make_job_sources(_with_names(origins), work))
        feeds = (one.source for one in sources if isinstance(one, FeedJob))
        self._iterables = [source for source in feeds if isinstance(source, IterableFeedSource)]
        if work.target and work.target.form == "folder" and any(map(_is_feed_job, sources)):
            raise UsageError(
                f"{work.target.name} is a folder, which needs files as sources: name a file"
            )
        if workers is None and len(self._iterables) == len(sources):
            workers = 0  # the iterables run in this process, and are most of the work
        self.job: Job = Job(
            sources,
            concurrency=concurrency,
            workers=workers,
            budget=max_failures,
            load_batch=USER_BATCH if self._callback_sink and batch_size is None else batch_size,
            ordered=ordered,
            dead_letter=None if dead_letter is None else os.fspath(dead_letter),
            sink=self._callback_sink,
            ledger=self._ledger_settings(sources, work, resume=resume, path=ledger),
        )
        self.job.check()
        self._run: Run | None = None
        self._stopped = False

    def _ledger_settings(
        self,
        sources: Sequence[FileSource | FeedJob],
        work: RecordWorkSettings,
        *,
        resume: bool,
        path: str | os.PathLike[str] | None,
    ) -> LedgerSettings | None:
        """Return the settings of the ledger, or None without one. Raises UsageError."""
        is_mirror = work.target is not None and work.target.mode == "mirror"
        if not (resume or is_mirror) and path is None:
            return None
        if self._iterables:
            names = ", ".join(one.name for one in self._iterables)
            raise UsageError(f"resume and ledger need files or URLs as sources, but {names} is not")
        if self._callback_sink is not None:
            raise UsageError("resume and ledger need a sink with a name, as sqlite:///x.db")
        target = work.target
        if target is not None and target.groups is not None:
            raise UsageError("aggregates are made of all inputs: leave out resume and ledger")
        if not (target and target.is_database) and any(map(_is_feed_job, sources)):
            raise UsageError("resume and ledger of URLs need a database as the sink")
        from asyncbatch.config.ledger import ledger_settings
        from asyncbatch.config.options.target import LedgerFlags

        flags = LedgerFlags(resume=resume, ledger=None if path is None else os.fspath(path))
        files = [one.settings for one in sources if isinstance(one, FileSource)]
        return ledger_settings(files[0] if files else work, flags, None)

    @property
    def report(self) -> Report:
        """The report: live while the pipeline runs, final afterwards."""
        return self._run.report if self._run else Report()

    async def run(self) -> Report:
        """Run to the end; return the report. Raises the exceptions of `parts`.

        If this is cancelled, everything is closed; a running load of the sink gets 2 s to end.
        """
        async with aclosing(self.parts()) as parts:
            async for _ in parts:
                pass
        return self.report

    def stop(self) -> None:
        """Read no more input. Generators are closed, and the records they gave are loaded."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    async def parts(self) -> AsyncGenerator[BatchPart, None]:
        """Run, and yield the outcome of the records in parts, once they are loaded.

        Closing the generator ends the run. Raises UsageError if the run cannot begin, or has begun
        before. An exception of the program's own iterables or sink is raised at the end: after the
        earlier records are loaded, other sources are read, and all is closed. It is a failure in
        the report, too.
        """
        if self._run is not None:
            raise UsageError("a Pipeline runs only once: make a new one")
        self._run = Run(self.job)
        if self.job.record_work and self.job.record_work.added:
            self._run.report.run_id = self.job.record_work.run_id
        if self._stopped:
            self._run.stop()
        async with AsyncExitStack() as stack:
            for iterable in self._iterables:
                stack.push_async_callback(iterable.aclose)
            if self._callback_sink is not None:
                if isinstance(self._user_sink, AbstractAsyncContextManager):
                    await stack.enter_async_context(self._entered(self._user_sink))
                self._callback_sink.begin()
                stack.push_async_callback(self._callback_sink.abandon)
            async with aclosing(self._run.parts()) as parts:
                try:
                    async for part in parts:
                        yield part
                except (asyncio.CancelledError, GeneratorExit):
                    self.report.interrupted = True
                    raise
            self._raise_errors()

    @asynccontextmanager
    async def _entered(self, sink: AbstractAsyncContextManager[Any]) -> AsyncIterator[None]:
        """Enter a sink of the program. If its end fails, the report has the failure, too."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(sink)
            yield
            try:
                await stack.aclose()
            except Exception as error:
                name = type(sink).__name__
                self.report.lose_target(f"{name} failed: {describe_error(error)}")
                raise

    def _raise_errors(self) -> None:
        """Raise the exceptions of the program's own code."""
        errors = [iterable.error for iterable in self._iterables]
        errors += [self._callback_sink.error] if self._callback_sink else []
        raised = [error for error in errors if error is not None]
        if len(raised) > 1:
            raise BaseExceptionGroup("several sources, or a source and the sink, failed", raised)
        if raised:
            raise raised[0]


def _as_tuple(one_or_more: str | Sequence[str]) -> tuple[str, ...]:
    return (one_or_more,) if isinstance(one_or_more, str) else tuple(one_or_more)


def _key_paths(one_or_more: str | Sequence[str]) -> tuple[str, ...]:
    """Return the paths of a key as a tuple. Raises UsageError for an invalid path."""
    paths = _as_tuple(one_or_more)
    try:
        for path in paths:
            parse_path(path)
    except ValueError as error:
        raise UsageError(f"dedupe: {error}") from None
    return paths


def _make_target(
    sink: str | os.PathLike[str] | Sink | None, options: Mapping[str, Any]
) -> Target | None:
    """Return the target, or None. Raises UsageError."""
    if isinstance(sink, str | os.PathLike):
        table, key, mode, on_delete, max_delete, columns, contract = options.values()
        return Target.parse(
            os.fspath(sink),
            table=table,
            key=key,
            mode=mode or ("upsert" if key else "append"),
            on_delete=on_delete or "delete",
            max_delete=max_delete,
            columns=columns,
            contract=contract or "evolve",
        )
    if any(options.values()):
        raise UsageError(f"{', '.join(options)} need a sink with a name, as sqlite:///x.db")
    if sink is None:
        return None
    name = type(sink).__name__
    if not callable(getattr(sink, "load", None)):
        raise UsageError(f"{name} is not a sink: it has no method load(records)")
    return Target(name, "program", "")


def _groups(
    by: str | Sequence[str],
    aggregates: str | Sequence[str] | Mapping[str, str],
    max_keys: int | None,
) -> GroupSettings:
    """Return the settings of groups. Raises UsageError."""
    if max_keys is not None and max_keys < 1:
        raise UsageError(f"max_keys is {max_keys}; it cannot be less than 1")
    try:
        return GroupSettings(_as_tuple(by), parse_aggregates(aggregates), max_keys)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _iter_origins(source: Source | Sequence[Source]) -> Iterator[Origin]:
    """Yield the origins of a source. Raises UsageError for an unsupported object."""
    several = source if isinstance(source, list | tuple) and any(map(_is_origin, source)) else None
    for one in [source] if several is None else several:
        if isinstance(one, str | os.PathLike):
            yield FileSource(Inputs((os.fspath(one),)))
        elif isinstance(one, _ORIGINS) and not isinstance(one, Mapping | bytes):
            yield one
        else:
            advice = ": call it" if callable(one) else ""
            raise UsageError(f"{one!r} is not a source of records{advice}")


def _is_origin(item: object) -> bool:
    """Whether an item of a list is a source, and not a record."""
    kinds = (FileSource, HttpSettings, AsyncIterable, Iterator, os.PathLike, str)
    return isinstance(item, kinds)


def _with_names(origins: Sequence[Origin]) -> Iterator[tuple[str, Origin]]:
    """Yield each origin with its name in failures."""
    return zip(unique_names(map(_origin_name, origins)), origins, strict=True)


def _origin_name(origin: Origin) -> str:
    if isinstance(origin, FileSource):
        return origin.name
    if isinstance(origin, HttpSettings):
        return "http"
    return source_name(origin)


def _is_feed_job(source: object) -> bool:
    return not isinstance(source, FileSource)
