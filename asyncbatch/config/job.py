"""What to run: sources, transforms, target, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.core.records import STDIN
from asyncbatch.core.settings import FileWorkSettings
from asyncbatch.errors import UsageError
from asyncbatch.sources.identity import InputNaming
from asyncbatch.transforms.chain import RowCheck, is_async, make_stages, reads_text
from asyncbatch.transforms.spec import CallSpec, FieldsSpec, FunctionSpec, JqSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.retry import Retries
    from asyncbatch.core.settings import DaskSettings, LedgerSettings, StoreSettings
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.sinks.base import BatchSink
    from asyncbatch.sinks.target import Target
    from asyncbatch.sources.base import FeedSource
    from asyncbatch.sources.inputs import Inputs
    from asyncbatch.transforms.spec import TransformSpec
    from asyncbatch.windows.aggregates import Aggregate
    from asyncbatch.windows.spec import WindowSpec
    from asyncbatch.windows.times import Unit

PATIENCE = 1.0
"""Seconds that rows wait for more of them, unless told otherwise."""
LEAST_PATIENCE = 0.01


class RecordWorkSettings(Struct, frozen=True):
    """What is done to each record: where records are in a document, transforms, a target.

    `records` is the JSON Pointer of the array whose elements are records, `whole` takes each
    document as one. Transforms run in the order given; if a function is async, on the event
    loop, for `call_concurrency` records at a time. Of what comes of them only the first with each
    key is written if `dedupe` names the paths of one. `letters` keeps what a dead
    letter file needs, `replay` is the path of one that is read again. Rows wait up to `patience`
    seconds to be loaded together; those of standard input also to be handed on by its worker.
    `newest` is the path of a field whose largest value is found, for a source that is asked for
    what is new.
    """

    files: FileWorkSettings = FileWorkSettings()
    records: str | None = None
    whole: bool = False
    transforms: tuple[TransformSpec, ...] = ()
    dedupe: tuple[str, ...] = ()
    call_is_async: bool = False
    call_concurrency: int = 100
    target: Target | None = None
    letters: bool = False
    replay: str | None = None
    tracebacks: bool = False
    patience: float = PATIENCE
    newest: str | None = None

    @property
    def reads_text(self) -> bool:
        """Whether the first transform takes a record's text instead of its value."""
        return reads_text(self.transforms)

    @property
    def row_check(self) -> RowCheck | None:
        """The check that a record can be a row of the target, if that is a table."""
        if self.target is None or not self.target.is_table:
            return None
        return RowCheck(self.target.name, self.target.key)

    @property
    def changes_records(self) -> bool:
        """Whether places in what becomes of a record may be others than in the record."""
        changing = JqSpec | CallSpec | FunctionSpec | FieldsSpec
        return any(isinstance(spec, changing) for spec in self.transforms)

    @property
    def runs_programs(self) -> bool:
        """Whether something runs that we do not know, and that may never end."""
        return any(isinstance(spec, JqSpec | CallSpec) for spec in self.transforms)

    @property
    def needs_this_process(self) -> bool:
        """Whether no other process can do it, for want of a function."""
        return self.call_is_async or any(isinstance(one, FunctionSpec) for one in self.transforms)


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
    def naming(self) -> InputNaming:
        """What its files are called for good."""
        return InputNaming(self.inputs.root, self.prefix)


class FeedJob(Struct, frozen=True):
    """A source of feeds, and the settings of the work on their records."""

    source: FeedSource
    record_work: RecordWorkSettings

    @property
    def name(self) -> str:
        """The name of the source in reports."""
        return self.source.name

    @property
    def kind(self) -> str:
        """The kind of the source in reports."""
        return self.source.kind


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

    sources: tuple[FileSource | FeedJob, ...]
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
    sink: BatchSink[Any] | None = None
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
        if self.record_work and self.record_work.needs_this_process:
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


def checked_settings(settings: RecordWorkSettings) -> RecordWorkSettings:
    """Return settings that also say whether a function of theirs is async. Raises UsageError."""
    try:
        stages = make_stages(settings.transforms, row_check=settings.row_check)
    except ValueError as error:  # a path that is none
        raise UsageError(str(error)) from None
    return replace(settings, call_is_async=is_async(stages))


MAX_KEYS = 100_000


class StreamSettings(Struct, frozen=True):
    """Which windows, of which events; all spans are in microseconds.

    `time` is the field that has an event's time, None for the time at which it arrives. `by`
    and the aggregates name fields by path. Events that are further than `max_future` ahead of
    the clock are rejected. A source that is silent for `idle` is not waited for. A window has
    `max_keys` keys at most; further ones are put together under `overflow_key`, or end the
    stream if that is None. `letters` keeps what a dead letter file needs.
    """

    window: WindowSpec
    aggregates: tuple[Aggregate, ...]
    by: tuple[str, ...] = ()
    time: str | None = "timestamp"
    unit: Unit = "auto"
    lateness: int = 0
    idle: int | None = None
    max_future: int | None = None
    max_keys: int = MAX_KEYS
    overflow_key: str | None = None
    transforms: tuple[TransformSpec, ...] = ()
    letters: bool = False
    tracebacks: bool = False

    def contradictions(self, *, has_late: bool = False) -> Iterator[tuple[str, str]]:
        """Yield what would have no effect, by name, and why; `has_late` if late events are kept."""
        if self.time is None:
            for name, value in (
                ("lateness", self.lateness),
                ("idle_timeout", self.idle),
                ("max_future", self.max_future),
                ("late", has_late),
            ):
                if value:
                    yield name, "is about the events' own time: not for the time of arrival"
        if self.overflow_key is not None and not self.by:
            yield "overflow_key", "is for events that are grouped by a field"
