"""A pipeline file made into a job, as far as its parts can be carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.chain import make_stages
from asyncbatch.cli.ledger_job import ledger_settings
from asyncbatch.errors import UsageError
from asyncbatch.job import Job
from asyncbatch.pipeline_file.sources import FilesSourceTable
from asyncbatch.pipeline_file.specs import (
    dedupe_key,
    files_inputs,
    files_settings,
    sink_target,
    transform_specs,
)
from asyncbatch.transforms.call import AsyncCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.pipeline_file import PipelineFile
    from asyncbatch.pipeline_file.sources import SourceTable

_UNHEEDED = {"schema_contract": "evolve", "flush_interval": None}
"""Keys of the sink that nothing obeys yet, and the values that ask for nothing."""


def etl_job(
    pipeline: PipelineFile,
    sources: Sequence[SourceTable],
    *,
    reports: Sequence[str],
    tracebacks: bool,
) -> Job:
    """Return the job that some sources of a pipeline file are. Raises UsageError."""
    source = _source(sources)
    if dedupe_key(pipeline.transforms) is not None:
        raise UsageError("transform: dedupe cannot be carried out yet; take it out of the file")
    sink = pipeline.sink
    for name, quiet in _UNHEEDED.items():
        if getattr(sink, name) != quiet:
            raise UsageError(f"sink.{name} cannot be obeyed yet; take it out of the file")
    settings = replace(
        files_settings(source),
        transforms=transform_specs(pipeline.transforms),
        target=sink_target(sink, source.root, job=pipeline.name),
        letters=pipeline.dead_letter is not None,
        tracebacks=tracebacks,
    )
    is_async = any(isinstance(stage, AsyncCall) for stage in make_stages(settings))
    settings = replace(settings, call_is_async=is_async)
    # A file of today is new tomorrow: what is done is skipped, as for those that use --resume.
    ledger = ledger_settings(
        settings,
        resume=True,
        retry_failed=False,
        force=False,
        allow_duplicates=False,
        ledger=None,
        by_content=False,
        root=source.root,
    )
    return Job(
        files_inputs(source),
        settings,
        allow_empty=source.allow_empty,
        load_batch=sink.batch_size,
        ordered=not sink.unordered,
        dead_letter=pipeline.dead_letter.to if pipeline.dead_letter else None,
        reports=tuple(reports),
        ledger=ledger,
    )


def _source(sources: Sequence[SourceTable]) -> FilesSourceTable:
    """Return the one source that can be carried out."""
    if len(sources) != 1:
        raise UsageError(
            f"the file has {len(sources)} sources, and one at a time can be carried out so far: "
            "choose it with --only"
        )
    (source,) = sources
    if not isinstance(source, FilesSourceTable):
        raise UsageError(
            "a source of type http cannot be carried out yet (programs read such with "
            "asyncbatch.http); --check checks it"
        )
    return source
