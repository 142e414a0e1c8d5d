"""The launch of a job: the search for its files, and the start of its worker processes.

Needs no event loop: the workers start while this process imports one, and the rest of the run.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from asyncbatch.core.paths import ArchiveMember, ObjectPath
from asyncbatch.core.records import display_path
from asyncbatch.core.system import stdout_file, usable_cpus
from asyncbatch.formats.validator import make_validator
from asyncbatch.sources.search import OPENING_PATHS, Search
from asyncbatch.sources.selection import has_magic, static_root
from asyncbatch.workers.spawn import choose_workers, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncbatch.config.job import FileSource, Job, RecordWorkSettings
    from asyncbatch.pipeline.output_guard import OutputGuard
    from asyncbatch.sources.inputs import Inputs
    from asyncbatch.sources.live.watched_search import WatchedSearch
    from asyncbatch.workers.engine import WorkFactory
    from asyncbatch.workers.spawn import WorkerHandle

# By default a job starts no worker processes if it has at most this number of bytes, and the first
# chunk of its searches has all its files: it is done before processes have started (0.2 s).
SMALL_BYTES = 32 * 1024 * 1024
SMALL_RECORD_BYTES = 4 * 1024 * 1024  # the same for a job that transforms records


class Launch:
    """The first steps of a job: opens its searches, and starts its worker processes.

    Call `prepare` first, in a thread since it blocks, then `start`.
    """

    def __init__(self, job: Job) -> None:
        self.searches: dict[int, Search | WatchedSearch] = {
            number: _search(job, source) for number, source in job.file_sources
        }
        self.guards: dict[int, OutputGuard] = {}  # by the number of their source
        self.workers: list[WorkerHandle] = []
        self._job = job
        self._worker_count = 0

    def prepare(self) -> None:
        """Open the search, and choose the number of worker processes.

        Raises UsageError for a contradiction.
        """
        job, searches = self._job, self.searches.values()
        job.check()
        files, printed = job.output_files(), stdout_file()
        if printed and not any(_may_hold(source.inputs, printed) for _, source in job.file_sources):
            printed = None
        if files or printed or (job.target is not None and job.target.layout is not None):
            from asyncbatch.pipeline.output_guard import (
                STDOUT,
                OutputGuard,
                check_live_outputs,
                check_outputs,
            )

            reads, is_live = job.other_inputs(), job.watch is not None
            places = check_outputs(files, reads, None if job.target is None else job.target.layout)
            redirected = {} if printed is None or printed in places else {STDOUT: printed}
            for number, source in job.file_sources:
                if is_live:
                    followed = {name: path for name, path in files.items() if name != "--ledger"}
                    inputs = source.inputs
                    check_live_outputs(inputs.paths, followed, selection=inputs.selection)
                ledger = job.ledger.path if job.ledger else None
                guard = OutputGuard(
                    *(files | redirected, job.target, source.inputs, ledger),
                    reads=reads,
                    is_live=is_live,
                )
                self.guards[number] = guard
                self.searches[number].leaves_out = guard.is_own_output
        for search in searches:
            search.open()
        is_small = job.workers is None and not job.has_feeds and _is_small(searches, job)
        must_stay = job.record_work is not None and job.record_work.needs_this_process
        wanted = choose_workers(
            job.workers, 0 if is_small else usable_cpus(),
            needs_process=_needs_process(job), must_stay=must_stay or job.dask is not None,
        )  # fmt: skip
        if job.most_workers is not None:
            wanted = min(wanted, job.most_workers)
        in_flight = 1 if job.pause else job.concurrency or wanted
        self._worker_count = min(wanted, in_flight)

    def notes(self) -> list[str]:
        """Return the notes for the user about inputs that were left out."""
        outputs = [path for guard in self.guards.values() for path in guard.left_out]
        if not outputs:
            return []
        names = ", ".join(map(display_path, outputs))
        return [f"not read, because earlier runs of this command wrote them: {names}"]

    def start(self, *, may_fork: bool = False) -> None:
        """Start the worker processes. Raises OSError.

        With `may_fork` they may be copies of this process. A user's module is not copied: it may
        have opened connections.
        """
        work = self._job.record_work
        may_fork = may_fork and not (work is not None and work.calls_function)
        if may_fork and self._worker_count:  # import what each worker needs, but only once
            make_task(self._job)
            make_validator()
        self.workers = [
            spawn(reads_stdin=self._job.reads_stdin, may_fork=may_fork)
            for _ in range(self._worker_count)
        ]


def make_task(
    job: Job, prepare: Callable[[RecordWorkSettings], RecordWorkSettings] = lambda work: work
) -> WorkFactory:
    """Return the factory of the job's task. `prepare` makes settings ready for sending."""
    if len(job.sources) > 1:
        from asyncbatch.workers.tasks.transform_sources import SourcesTask

        works = (source.record_work for source in job.sources)
        return partial(SourcesTask, tuple(prepare(work) for work in works if work is not None))
    if job.record_work is not None and job.record_work.profile is not None:
        from asyncbatch.workers.tasks.profile import ProfileTask

        return partial(ProfileTask, prepare(job.record_work))
    if job.target is not None and job.target.groups is not None and job.record_work is not None:
        from asyncbatch.workers.tasks.groups import GroupTask

        return partial(GroupTask, prepare(job.record_work))
    if job.record_work is not None:
        from asyncbatch.workers.tasks.transform import TransformTask

        return partial(TransformTask, prepare(job.record_work))
    from asyncbatch.workers.tasks.count import CountTask

    return partial(CountTask, job.files)


def _search(job: Job, source: FileSource) -> Search | WatchedSearch:
    if job.watch is None:
        return Search(source.inputs)
    from asyncbatch.sources.live.watched_search import WatchedSearch

    return WatchedSearch(source.inputs, job.watch)


def _is_small(searches: Iterable[Search | WatchedSearch], job: Job) -> bool:
    """Whether all files are few and small. An unreadable file counts as small."""
    if not all(search.is_exhausted for search in searches):
        return False
    paths = [path for search in searches for path in search.opening]
    if len(paths) > OPENING_PATHS:
        return False
    most = SMALL_BYTES if job.record_work is None else SMALL_RECORD_BYTES
    size = 0
    for path in paths:
        try:
            if isinstance(path, ObjectPath):
                size += path.size or 0
            elif isinstance(path, ArchiveMember):
                size += path.info.size
            else:
                size += os.stat(path).st_size
        except OSError:
            continue
    return size <= most


def _may_hold(inputs: Inputs, path: str) -> bool:
    """Whether a file, by its real path, may be among the inputs as they are named."""
    if inputs.files_from is not None:
        return True
    own = os.stat(path)
    for name in inputs.paths:
        root = static_root(name) if has_magic(name) else name
        with suppress(OSError):  # it is no file of this machine
            status = os.stat(root)
            above = os.path.join(os.path.realpath(root), "") if stat.S_ISDIR(status.st_mode) else ""
            if os.path.samestat(own, status) or (above and path.startswith(above)):
                return True
    return False


def _needs_process(job: Job) -> bool:
    """Whether the task may block or crash its process, or has a timeout.

    Async functions, and functions of this process alone, have no choice.
    """
    work = job.record_work
    if work is not None and work.needs_this_process:
        return False
    return job.timeout is not None or (work is not None and work.runs_programs)
