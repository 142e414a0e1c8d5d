"""A job for a cluster: the settings for its workers, and the size of tasks."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asyncbatch.config.job import FileSource
from asyncbatch.core.paths import ArchiveMember
from asyncbatch.core.records import STDIN
from asyncbatch.core.settings import MIB, FileWorkSettings, WorkLimit
from asyncbatch.workers.dask.code import CarriedCode, collect_code
from asyncbatch.workers.dask.worker import WorkerLocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncbatch.config.job import FeedJob, Job, RecordWorkSettings
    from asyncbatch.sinks.target import Target

    PrepareSettings = Callable[[RecordWorkSettings], RecordWorkSettings]

# A task is about a second of work; sending it then takes a small part of that.
TASK_LIMIT = WorkLimit(bytes=64 * MIB, seconds=1.0)
SPLIT_FACTOR = 4  # Splits of large files are longer by this factor, for the same reason.
_CHECKED_FILES = 8  # input files of each source that the workers check


def with_cluster_sizes(job: Job) -> Job:
    """Return the job with tasks and splits of a size for a cluster."""
    return replace(job, sources=tuple(map(_with_sizes, job.sources)))


def _with_sizes(source: FileSource | FeedJob) -> FileSource | FeedJob:
    if not isinstance(source, FileSource):
        return source  # its splits are its chunks
    work = source.record_work
    if work is None:
        return replace(source, settings=_files_with_sizes(source.files))
    return replace(source, settings=replace(work, files=_files_with_sizes(work.files)))


def _files_with_sizes(files: FileWorkSettings) -> FileWorkSettings:
    sizes = replace(files.sizes, split=files.sizes.split * SPLIT_FACTOR)
    return replace(files, sizes=sizes, portion=TASK_LIMIT)


def prepare_for_workers(job: Job) -> tuple[PrepareSettings, CarriedCode]:
    """Return a function that prepares settings for the workers, and their code.

    The settings lose the address of a server, which may have a password. Raises UsageError.
    """
    transforms = job.record_work.transforms if job.record_work else ()
    carried, code = collect_code(transforms)

    def ready(work: RecordWorkSettings) -> RecordWorkSettings:
        target = work.target and replace(work.target, address="")
        return replace(work, transforms=carried, target=target)

    return ready, code


def worker_location(
    job: Job, inputs: Iterable[Sequence[str]], probe_path: str | None
) -> WorkerLocation:
    """Return the current folder, and the first of each source's `inputs` as seen here."""
    named = [path for _, source in job.file_sources for path in source.inputs.paths]
    named += ["" for _, source in job.file_sources if source.inputs.files_from is not None]
    if job.target is not None and job.target.form == "folder":
        named.append(job.target.path)
    if job.record_work is not None and job.record_work.replay is not None:
        named.append(job.record_work.replay)
    needs_folder = any(not os.path.isabs(path) for path in named if not _is_remote(path))
    files = []
    for paths in inputs:
        for found in paths[:_CHECKED_FILES]:
            path = found.info.archive if isinstance(found, ArchiveMember) else found
            if path != STDIN and not _is_remote(path) and os.path.isfile(path):
                with suppress(OSError):  # it has just been deleted; its reader reports this
                    files.append((os.path.abspath(path), os.stat(path).st_size))
    return WorkerLocation(os.getcwd(), needs_folder, tuple(files), probe_path)


@contextmanager
def probe_file(target: Target | None) -> Iterator[str | None]:
    """Create a temporary file in the output folder, and provide its path."""
    if target is None or target.form != "folder" or _is_remote(target.path):
        yield None
        return
    folder = os.path.abspath(target.path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        descriptor, path = tempfile.mkstemp(prefix=".asyncbatch-", dir=folder)
    except OSError:  # the target reports this error
        yield None
        return
    os.close(descriptor)
    try:
        yield path
    finally:
        with suppress(OSError):
            os.unlink(path)


def _is_remote(path: str) -> bool:
    return "://" in path
