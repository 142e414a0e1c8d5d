"""What to do, and the start of doing it: all that needs no event loop.

The command launches its job before it imports the rest of the program: workers start and the
search begins meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.cpus import usable_cpus
from asyncbatch.errors import UsageError
from asyncbatch.identity import Naming
from asyncbatch.object_path import ObjectPath
from asyncbatch.record_settings import RecordWorkSettings
from asyncbatch.records import STDIN
from asyncbatch.settings import FileWorkSettings
from asyncbatch.sources.search import OPENING_PATHS, Search

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncbatch.budget import FailureBudget
    from asyncbatch.cloud.settings import StoreSettings
    from asyncbatch.executors.spawn import Spawned
    from asyncbatch.feeds import FeedSource
    from asyncbatch.guard import Guard
    from asyncbatch.ledger.settings import LedgerSettings
    from asyncbatch.retrying import Retries
    from asyncbatch.settings import DaskSettings
    from asyncbatch.sinks import Sink
    from asyncbatch.sinks.target import Target
    from asyncbatch.sources.inputs import Inputs

SMALL_BYTES = 32 * 1024 * 1024
"""A job of no more bytes, and no more files than a search's opening, starts no worker processes
unless told to: it is done before they would be up (0.2 s)."""
SMALL_RECORD_BYTES = 4 * 1024 * 1024
"""The same, if something is done to each record."""


class FileSource(Struct, frozen=True):
    """Files, and how they are read. Finding none is an error unless it `may_be_empty`.

    With several sources, the identities of one's files begin with its `prefix`.
    """

    inputs: Inputs
    settings: FileWorkSettings | RecordWorkSettings = FileWorkSettings()
    may_be_empty: bool = False
    name: str = "files"
    prefix: str = ""

    @property
    def kind(self) -> str:
        """What reports call it: see `FeedSource`."""
        return "files"

    @property
    def record_work(self) -> RecordWorkSettings | None:
        """What is done to records, if anything is."""
        return self.settings if isinstance(self.settings, RecordWorkSettings) else None

    @property
    def files(self) -> FileWorkSettings:
        """How files are read."""
        return self.record_work.files if self.record_work else self.settings  # type: ignore[return-value]  # one or the other

    @property
    def naming(self) -> Naming:
        """What its files are called for good."""
        return Naming(self.inputs.root, self.prefix)


class Job(Struct, frozen=True):
    """What to do. None means: chosen to fit.

    `sources` may differ in how they are read; what is done to records, and where they go, is the
    same for all. `workers` are processes (0: threads of this one; so by default for a small job),
    `concurrency` batches in flight, `batch_size` files in each, `pause` seconds between them
    (which then go one at a time). Rows reach a target `load_batch` at a time, and in the order
    of a source's inputs if `ordered`; rejected records and failed files also go to `dead_letter`.
    `reports` are other files that are written, and must be apart from these. What is done is
    remembered as `ledger` says, if at all. A file that takes longer than `timeout` seconds fails;
    since nothing else can be stopped, a process reads it. There are no more worker processes
    than `most_workers`, for want of memory. Of each source only the first `limit` records are
    read, which cannot be remembered. `sink` writes to the target if that is no place but an
    object of this process. With `dask` the workers are those of a cluster, of which `workers` are
    started if it has no scheduler yet.
    """

    sources: tuple[FileSource | FeedSource, ...]
    batch_size: int | None = None
    concurrency: int | None = None
    workers: int | None = None
    pause: float = 0.0
    budget: FailureBudget | None = None
    load_batch: int | None = None
    ordered: bool = True
    dead_letter: str | None = None
    reports: tuple[str, ...] = ()
    ledger: LedgerSettings | None = None
    timeout: float | None = None
    most_workers: int | None = None
    sink: Sink[Any] | None = None
    limit: int | None = None
    dask: DaskSettings | None = None

    @property
    def settings(self) -> FileWorkSettings | RecordWorkSettings:
        """What is done to each file or record, but for how the other sources are read."""
        first = self.sources[0]
        return first.settings if isinstance(first, FileSource) else first.record_work

    @property
    def file_sources(self) -> list[tuple[int, FileSource]]:
        """The sources that are files, each with its number."""
        numbered = enumerate(self.sources)
        return [(number, one) for number, one in numbered if isinstance(one, FileSource)]

    @property
    def has_feeds(self) -> bool:
        """Whether the records of any source arrive by themselves."""
        return len(self.file_sources) < len(self.sources)

    @property
    def reads_stdin(self) -> bool:
        """Whether standard input is one of the files."""
        return any(STDIN in source.inputs.paths for _, source in self.file_sources)

    @property
    def files(self) -> FileWorkSettings:
        """How files are read."""
        first = self.sources[0]
        return first.files if isinstance(first, FileSource) else first.record_work.files

    @property
    def record_work(self) -> RecordWorkSettings | None:
        """What is done to records, if anything is."""
        return self.sources[0].record_work

    @property
    def target(self) -> Target | None:
        """Where rows go, if anywhere."""
        return self.record_work.target if self.record_work else None

    @property
    def stores(self) -> StoreSettings:
        """How object stores are reached that are written to."""
        return (self.target and self.target.stores) or self.files.stores

    @property
    def retries(self) -> Retries:
        """How often what fails for the moment is tried again."""
        settings = self.settings
        files = settings.files if isinstance(settings, RecordWorkSettings) else settings
        return files.retries

    def output_files(self) -> dict[str, str]:
        """Return the paths that are written to, by the option that names them."""
        files = {} if self.dead_letter is None else {"--dead-letter": self.dead_letter}
        if self.target is not None and self.target.path not in (STDIN, ""):
            files["--to"] = self.target.path
        return files | {f"--report {path}": path for path in self.reports}

    def check(self) -> None:
        """Raise UsageError if this can't be meant."""
        if len(self.sources) != 1 and None in [source.record_work for source in self.sources]:
            raise UsageError("several sources need RecordWorkSettings each, and a job needs one")
        if "" in self.output_files().values():
            raise UsageError("the name of a file to be written is empty")
        work = self.record_work
        if work and work.dedupe and (work.target is None or work.target.form == "folder"):
            raise UsageError(
                "dedupe is for targets that hold the rows of all inputs: not for a folder, whose"
                " files are written side by side, nor for none"
            )
        for _, source in self.file_sources:
            source.inputs.check()
        if self.retries.count < 0 or self.retries.delay < 0:
            raise UsageError("neither retries nor their delay can be less than 0")
        least = {"batch_size": 1, "concurrency": 1, "workers": 0, "pause": 0, "load_batch": 1}
        least["limit"] = 1
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UsageError(f"{name} is {value}; it cannot be less than {bound}")
        if self.limit is not None and self.ledger is not None:
            raise UsageError("a run of the first records only has no ledger: they are not all")
        if self.timeout is not None and self.timeout <= 0:
            raise UsageError(f"timeout is {self.timeout:g}; it must be more than 0 seconds")
        if self.dask is not None:
            self._check_cluster(self.dask)

    def _check_cluster(self, dask: DaskSettings) -> None:
        if self.reads_stdin:
            raise UsageError(
                "standard input is here, and with --engine dask others read: put it in a file that"
                " they see"
            )
        if self.record_work and self.record_work.stays_here:
            raise UsageError(
                "functions that are async, or that only this process has, run in this process: "
                "leave --engine dask out, or write the function with a plain def"
            )
        if dask.scheduler is not None and self.workers is not None:
            raise UsageError(
                "with --scheduler, how many workers there are is for the cluster to say: leave"
                " --workers out"
            )
        if self.workers == 0:
            raise UsageError("--engine dask has workers: --workers 0 contradicts it")


class Launch:
    """A job's first steps: `look` (which blocks) opens the search, `start` the workers."""

    def __init__(self, job: Job) -> None:
        self.searches = {number: Search(source.inputs) for number, source in job.file_sources}
        self.guards: dict[int, Guard] = {}
        """By the number of their source."""
        self.workers: list[Spawned] = []
        self._job = job
        self._wanted = 0

    def look(self) -> None:
        """Open the search, and decide how many worker processes the job is worth.

        Raises UsageError if the job cannot be meant.
        """
        job, searches = self._job, self.searches.values()
        job.check()
        if files := job.output_files():
            from asyncbatch.guard import Guard  # noqa: PLC0415 - only if anything is written

            for number, source in job.file_sources:
                self.guards[number] = Guard(files, job.target, source.inputs)
        for search in searches:
            search.open()
        wanted = usable_cpus() if job.workers is None else job.workers
        if job.workers is None and not job.has_feeds and _is_small(searches, job):
            wanted = 0
        if _needs_process(job):
            wanted = max(1, wanted)
        if job.dask is not None:
            wanted = 0
        if job.record_work and job.record_work.stays_here:
            wanted = 0
        if job.most_workers is not None:
            wanted = min(wanted, job.most_workers)
        in_flight = 1 if job.pause else job.concurrency or wanted
        self._wanted = min(wanted, in_flight)

    def start(self) -> None:
        """Start the worker processes. Raises OSError."""
        from asyncbatch.executors.spawn import spawn  # noqa: PLC0415 - small jobs need none

        reads_stdin = self._job.reads_stdin
        self.workers = [spawn(reads_stdin=reads_stdin) for _ in range(self._wanted)]


def _is_small(searches: Iterable[Search], job: Job) -> bool:
    """Whether all files are few and small; what cannot be looked at is no work either."""
    if not all(search.exhausted for search in searches):
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
            else:
                size += os.stat(path).st_size
        except OSError:
            continue
    return size <= most


def _needs_process(job: Job) -> bool:
    """Whether what is done can hold up, or end, the process that does it, or is to be stopped.

    There is no choice for async functions, which have to be on this one's event loop, and for
    those that only this one has.
    """
    work = job.record_work
    if work is not None and work.stays_here:
        return False
    return job.timeout is not None or (work is not None and work.runs_programs)
