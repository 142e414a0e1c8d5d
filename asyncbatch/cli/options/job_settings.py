"""The settings of a job or a stream in words, for reports. They contain no secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.config.fingerprint import describe, describe_transforms
from asyncbatch.config.job import FileSource, RecordWorkSettings
from asyncbatch.core.paths import is_object_url, redact_url
from asyncbatch.core.records import STDIN, display_path
from asyncbatch.core.secrets import redact_address
from asyncbatch.core.units import format_count, format_duration, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.config.job import Job, StreamSettings
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.pipeline.stream.delivery import DeliverySettings
    from asyncbatch.sinks.target import Target
    from asyncbatch.windows.aggregates import Aggregate

_MAX_INPUTS = 20
AUTOMATIC = "chosen automatically"
NO_WORKERS = "threads of one process"


def job_settings(job: Job) -> dict[str, str]:
    """Return the settings of a job, by their names."""
    settings, target, ledger = job.settings, job.target, job.ledger
    if isinstance(settings, RecordWorkSettings):
        # `records` may differ between sources.
        is_only = len(job.sources) == 1
        settings = replace(settings, target=None, records=settings.records if is_only else None)
    shown = {
        "inputs": _listed([*_inputs(job)]) + (", watched until stopped" if job.watch else ""),
        "work": describe(settings),
        "target": "none" if target is None else display_path(redact_address(target.name)),
    }
    if target is not None:
        shown |= _target_settings(target, ordered=job.ordered)
    shown["workers"] = _count(job.workers, NO_WORKERS if job.workers == 0 else None)
    if job.dask is not None:
        shown["engine"] = "dask"
    shown["files in a batch"] = _count(job.batch_size)
    shown["batches in flight"] = _count(job.concurrency)
    if job.pause:
        shown["pause between batches"] = format_seconds(job.pause)
    if job.load_batch is not None:
        shown["rows of a load"] = f"{job.load_batch:,}"
    shown["failures allowed"] = _budget(job.budget)
    if not job.has_feeds:  # these have retries of their own
        shown["retries"] = f"{job.retries.count:,}"
    if job.timeout is not None:
        shown["time for a file"] = format_seconds(job.timeout)
    if job.limit is not None:
        shown["limit"] = f"{format_count(job.limit, 'record')} of each source"
    if job.dead_letter is not None:
        shown["dead letters"] = _path(job.dead_letter)
    if ledger is not None:
        shown["resumed"] = "yes" if ledger.is_resuming else "no"
    return shown


def _target_settings(target: Target, *, ordered: bool) -> dict[str, str]:
    shown = {}
    if target.groups is not None:
        shown["key"] = ", ".join(target.groups.by) or "none"
        shown["aggregates"] = _aggregates(target.groups.aggregates)
    else:
        shown["order of rows"] = "as the inputs" if ordered else "as they are done"
    if target.is_database:
        key = f" by {', '.join(target.key)}" if target.key else ""
        shown["table"] = f"{target.table or ''}, {target.mode}{key}"
    return shown


def stream_settings(
    settings: StreamSettings,
    sources: Sequence[str],
    delivery: DeliverySettings,
    budget: FailureBudget | None,
    workers: int | None,
) -> dict[str, str]:
    """Return the settings of a stream, by their names. `sources` are their names."""
    shown = {
        "sources": _listed([_path(one) for one in sources]),
        "window": str(settings.window),
        "key": ", ".join(settings.by) or "none",
        "aggregates": _aggregates(settings.aggregates),
        "time": settings.time or "of arrival",
        "lateness allowed": format_duration(settings.lateness),
        "target": "none" if delivery.to is None else _path(delivery.to),
    }
    if settings.transforms:
        shown["work"] = " ".join(text for text, _ in describe_transforms(settings.transforms))
    if delivery.table is not None:
        shown["table"] = delivery.table
    if delivery.checkpoint is not None:
        every = format_duration(delivery.every)
        shown["checkpoint"] = f"{_path(delivery.checkpoint)}, every {every}"
    shown["workers"] = _count(workers)
    shown["failures allowed"] = _budget(budget, without="any number")
    return shown


def _inputs(job: Job) -> Iterator[str]:
    """Yield the inputs, each source by its name if there are several."""
    for source in job.sources:
        if not isinstance(source, FileSource):
            yield f"{source.name} ({source.kind})"
            continue
        prefix = f"{source.name}: " if len(job.sources) > 1 else ""
        inputs = source.inputs
        if inputs.files_from is not None:
            yield f"{prefix}the list {_path(inputs.files_from)}"
        yield from (f"{prefix}{_path(path)}" for path in inputs.paths)


def _aggregates(aggregates: Sequence[Aggregate]) -> str:
    return ", ".join(
        f"{one.name}={one.kind}:{one.field}" if one.field else one.kind for one in aggregates
    )


def _path(path: str) -> str:
    """Return a path or URL without secrets."""
    if path == STDIN:
        return "standard input or output"
    return display_path(redact_url(path) if is_object_url(path) else redact_address(path))


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    more = len(names) - _MAX_INPUTS
    return ", ".join(names[:_MAX_INPUTS]) + (f" and {more:,} more" if more > 0 else "")


def _count(number: int | None, words: str | None = None) -> str:
    return words or (AUTOMATIC if number is None else f"{number:,}")


def _budget(budget: FailureBudget | None, *, without: str = "none") -> str:
    return without if budget is None else str(budget)
