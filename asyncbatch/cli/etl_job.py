"""A pipeline file made into a job, as far as its parts can be carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.assembly import assembled
from asyncbatch.chain import checked
from asyncbatch.cli.ledger_job import ledger_settings
from asyncbatch.errors import UsageError
from asyncbatch.job import FileSource, Job
from asyncbatch.pipeline_file.sources import FilesSourceTable, HttpSourceTable
from asyncbatch.pipeline_file.specs import (
    dedupe_key,
    files_inputs,
    files_settings,
    http_settings,
    sink_target,
    transform_specs,
)
from asyncbatch.record_settings import LEAST_PATIENCE, PATIENCE, RecordWorkSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.http import HttpSettings
    from asyncbatch.ledger.settings import LedgerSettings
    from asyncbatch.pipeline_file import PipelineFile
    from asyncbatch.pipeline_file.sources import SourceTable
    from asyncbatch.settings import FileWorkSettings

_UNHEEDED = {"pool": None}
"""Keys of the sink that nothing obeys yet, and the values that ask for nothing."""


def etl_job(
    pipeline: PipelineFile,
    only: Sequence[str] | None,
    *,
    reports: Sequence[str],
    tracebacks: bool,
    full_refresh: bool = False,
    allow_duplicates: bool = False,
) -> Job:
    """Return the job that a pipeline, or `only` some of its sources, is. Raises UsageError."""
    sink = pipeline.sink
    for name, quiet in _UNHEEDED.items():
        if getattr(sink, name) != quiet:
            raise UsageError(f"sink.{name} cannot be obeyed yet; take it out of the file")
    tables = pipeline.only(only) if only else pipeline.sources
    work = _shared_work(pipeline, tables, tracebacks=tracebacks)
    sources = tuple(assembled(_origins(pipeline), work))  # each is named with regard to all
    files = [source.settings for source in sources if isinstance(source, FileSource)]
    chosen = zip(sources, pipeline.sources, strict=True)
    _check(pipeline, tables, work)
    return Job(
        tuple(source for source, table in chosen if table in tables),
        load_batch=sink.batch_size,
        ordered=not sink.unordered,
        dead_letter=pipeline.dead_letter.to if pipeline.dead_letter else None,
        reports=tuple(reports),
        ledger=_ledger(
            tables,
            files[0] if files else work,
            full_refresh=full_refresh,
            allow_duplicates=allow_duplicates,
        ),
    )


def _shared_work(
    pipeline: PipelineFile, tables: Sequence[SourceTable], *, tracebacks: bool
) -> RecordWorkSettings:
    """Return what is done to the records of every source."""
    return checked(
        RecordWorkSettings(
            transforms=transform_specs(pipeline.transforms),
            dedupe=dedupe_key(pipeline.transforms) or (),
            target=sink_target(pipeline.sink, _root(tables)),
            letters=pipeline.dead_letter is not None,
            tracebacks=tracebacks,
            patience=max(LEAST_PATIENCE, pipeline.sink.flush_interval or PATIENCE),
        )
    )


def _root(tables: Sequence[SourceTable]) -> str | None:
    roots = [table.root for table in tables if isinstance(table, FilesSourceTable)]
    return roots[0] if len(roots) == 1 else None


def _origins(pipeline: PipelineFile) -> Iterator[tuple[str, FileSource | HttpSettings]]:
    """Yield all sources of a pipeline, each beside its name."""
    for name, table in zip(pipeline.source_names(), pipeline.sources, strict=True):
        if isinstance(table, HttpSourceTable):
            yield name, http_settings(table)
        else:
            yield name, FileSource(files_inputs(table), files_settings(table), table.allow_empty)


def _check(pipeline: PipelineFile, tables: Sequence[SourceTable], work: RecordWorkSettings) -> None:
    """Raise UsageError for what cannot be done with these sources and this target."""
    target, sink = work.target, pipeline.sink
    https = [table for table in tables if isinstance(table, HttpSourceTable)]
    if target is None or not https:
        return
    if target.form == "folder":
        raise UsageError("sink.to is a folder, which mirrors files: a source of type http has none")
    if any(table.incremental for table in https):
        if not target.is_database:
            raise UsageError(
                "source.incremental needs a database as the sink: it keeps what is newest there"
            )
        if sink.mode == "replace":
            raise UsageError(
                'source.incremental asks for what is new only, and sink.mode = "replace" would '
                "leave nothing else: choose one"
            )


def _ledger(
    tables: Sequence[SourceTable],
    work: FileWorkSettings | RecordWorkSettings,
    *,
    full_refresh: bool,
    allow_duplicates: bool,
) -> LedgerSettings | None:
    """Return how the run is remembered: what is done is skipped, as for those that use --resume.

    `work` is that on the files of the first such source, if there is one.
    """
    target = work.target if isinstance(work, RecordWorkSettings) else None
    has_feeds = any(isinstance(table, HttpSourceTable) for table in tables)
    dedupes = isinstance(work, RecordWorkSettings) and bool(work.dedupe)
    if target is not None and not target.is_database and (has_feeds or dedupes):
        return None  # such a file is written anew from all there is
    is_stream = target is not None and target.form == "stdout"
    return ledger_settings(
        work,
        resume=not full_refresh and not is_stream,
        retry_failed=False,
        force=full_refresh,
        allow_duplicates=allow_duplicates,
        ledger=None,
        by_content=False,
        root=_root(tables),
    )
