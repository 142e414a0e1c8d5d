"""A job: sources, transforms, target, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from asyncbatch.config.options.aggregates import DEFAULT_MAX_KEYS
from asyncbatch.core.origin import OWN_COLUMNS
from asyncbatch.core.records import STDIN
from asyncbatch.core.retry import Retries
from asyncbatch.core.settings import FileWorkSettings
from asyncbatch.errors import UsageError
from asyncbatch.sources.identity import InputNaming
from asyncbatch.transforms.chain import RowCheck, is_async, make_stages, reads_text
from asyncbatch.transforms.spec import CallSpec, FieldsSpec, FunctionSpec, JqSpec, files_read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.origin import AddedColumn
    from asyncbatch.core.settings import (
        DaskSettings,
        LedgerSettings,
        ProfileSettings,
        StoreSettings,
        WatchSettings,
    )
    from asyncbatch.core.tally import FailureBudget
    from asyncbatch.sinks.base import BatchSink
    from asyncbatch.sinks.target import Target
    from asyncbatch.sources.base import FeedSource
    from asyncbatch.sources.cursor import CursorField
    from asyncbatch.sources.inputs import Inputs
    from asyncbatch.transforms.base import Transform
    from asyncbatch.transforms.spec import TransformSpec
    from asyncbatch.windows.aggregates import Aggregate
    from asyncbatch.windows.spec import WindowSpec
    from asyncbatch.windows.times import Unit

DEFAULT_PATIENCE = 1.0  # default seconds that rows wait for more rows
MIN_PATIENCE = 0.01


class RecordWorkSettings(Struct, frozen=True):
    """The work on each record: finding it, transforms, target."""

    files: FileWorkSettings = FileWorkSettings()
    records: str | None = None  # the JSON Pointer of the array whose elements are the records
    whole: bool = False  # each document is one record
    # run in this order; async functions on the event loop
    transforms: tuple[TransformSpec, ...] = ()
    dedupe: tuple[str, ...] = ()  # the paths of the key, of which only the first record is written
    added: tuple[AddedColumn, ...] = ()  # columns that tell of the origin of each record
    run_id: str = ""  # the id of the run, if a column has it
    call_is_async: bool = False
    call_concurrency: int = 100  # async calls at a time
    target: Target | None = None
    letters: bool = False  # whether dead letters are written
    replay: str | None = None  # the path of a dead letter file that is read again
    tracebacks: bool = False
    patience: float = DEFAULT_PATIENCE  # seconds that rows wait to be loaded together
    newest: CursorField | None = None  # the cursor field of an incremental source
    profile: ProfileSettings | None = None  # the records are profiled, not transformed

    @property
    def reads_text(self) -> bool:
        """Whether the first transform takes a record's text instead of its value."""
        return reads_text(self.transforms)

    @property
    def row_check(self) -> Transform | None:
        """The check that a record can be a row of the target, None without a table.

        For aggregates: that it has their fields.
        """
        if self.target is not None and self.target.groups is not None:
            from asyncbatch.sinks.group_encoding import group_check

            return group_check(self.target.groups)
        if self.target is None or not self.target.is_table:
            return None
        names = {column.name for column in self.added}  # which no record may have
        key = [name for name in self.target.key if name not in names]
        own = OWN_COLUMNS if self.target.mode == "mirror" else frozenset()
        return RowCheck(self.target.name, key, own)

    def check(self) -> None:
        """Raise UsageError for settings that the target does not allow."""
        if self.dedupe and (self.target is None or self.target.form == "folder"):
            raise UsageError(
                "dedupe needs a target that holds the rows of all inputs: a file or a database,"
                " not a folder"
            )
        if self.added:
            self._check_added()

    def _check_added(self) -> None:
        """Raise UsageError for added columns that the target does not allow."""
        target = self.target
        if target is None:
            raise UsageError("columns can be added only to the records of a target: name it")
        if target.groups is not None:
            raise UsageError(
                "the rows of aggregates have no origin: leave out --add and --with-source"
            )
        own = OWN_COLUMNS if target.mode == "mirror" and target.is_table else frozenset()
        for column in self.added:
            if column.name.lower() in own:
                raise UsageError(
                    f"a table of --mode mirror has the column {column.name} already: leave out "
                    f"{column.field}, or give it another name: --add {column.field}=NAME"
                )
            if column.name not in (target.columns or [column.name]):
                raise UsageError(
                    f"--columns leaves out the added column {column.name}: name it there, too"
                )

    @property
    def only_counts(self) -> bool:
        """Whether records are only counted, so that those of a failed file do not count."""
        return self.target is None and self.profile is None and not self.transforms

    @property
    def changes_records(self) -> bool:
        """Whether the outputs of a record may differ from it in structure."""
        changing = JqSpec | CallSpec | FunctionSpec | FieldsSpec
        return any(isinstance(spec, changing) for spec in self.transforms)

    @property
    def runs_programs(self) -> bool:
        """Whether a user's program or function runs, which may never end."""
        return any(isinstance(spec, JqSpec | CallSpec) for spec in self.transforms)

    @property
    def calls_function(self) -> bool:
        """Whether a function of a user's module is called."""
        return any(isinstance(spec, CallSpec) for spec in self.transforms)

    @property
    def needs_this_process(self) -> bool:
        """Whether a function exists in this process only."""
        return self.call_is_async or any(isinstance(one, FunctionSpec) for one in self.transforms)


class FileSource(Struct, frozen=True):
    """Input files and their settings. Without any file it fails, unless it `may_be_empty`.

    With several sources, the identities of this source's files begin with `prefix`.
    """

    inputs: Inputs
    settings: FileWorkSettings | RecordWorkSettings = FileWorkSettings()
    may_be_empty: bool = False
    name: str = "files"
    prefix: str = ""

    @property
    def kind(self) -> str:
        """The kind of the source in reports."""
        return "files"

    @property
    def record_work(self) -> RecordWorkSettings | None:
        """The settings of the work on records, None for counting."""
        return self.settings if isinstance(self.settings, RecordWorkSettings) else None

    @property
    def files(self) -> FileWorkSettings:
        """The settings for reading files."""
        return self.record_work.files if self.record_work else self.settings  # type: ignore[return-value]  # one or the other

    @property
    def naming(self) -> InputNaming:
        """The identities of its files."""
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
    """The description of a run. `None` means: chosen automatically."""

    # may differ in how they are read, not in transforms and target
    sources: tuple[FileSource | FeedJob, ...]
    batch_size: int | None = None  # files of a batch
    concurrency: int | None = None  # batches in flight
    workers: int | None = None  # processes; 0: threads of this process
    pause: float = 0.0  # seconds between batches, which then run one at a time
    budget: FailureBudget | None = None
    load_batch: int | None = None  # rows of one load
    ordered: bool = True  # rows reach the target in the order of a source's inputs
    dead_letter: str | None = None  # the file for rejected records and failed files
    reports: tuple[str, ...] = ()  # other output files, none of which may be the same
    log_file: str | None = None  # the file that the caller logs to
    reads: tuple[str, ...] = ()  # files that the caller has read, none of which may be an output
    ledger: LedgerSettings | None = None  # None: nothing is remembered
    timeout: float | None = None  # seconds for a file; needs a worker process, which can be killed
    most_workers: int | None = None  # the limit of worker processes by memory
    sink: BatchSink[Any] | None = None  # an object of this process that takes the rows
    limit: int | None = None  # records read of each source; such a run has no ledger
    # the cluster that does the work; without a scheduler it starts `workers` workers
    dask: DaskSettings | None = None
    watch: WatchSettings | None = None  # wait for more files; None: the run ends with the present
    has_format_key: bool = False  # a pipeline file, whose sources have no option --input-format

    @property
    def settings(self) -> FileWorkSettings | RecordWorkSettings:
        """The settings of the first source: for transforms and target, the same for all."""
        first = self.sources[0]
        return first.settings if isinstance(first, FileSource) else first.record_work

    @property
    def file_sources(self) -> list[tuple[int, FileSource]]:
        """The sources that are files, each with its number."""
        numbered = enumerate(self.sources)
        return [(number, one) for number, one in numbered if isinstance(one, FileSource)]

    @property
    def has_feeds(self) -> bool:
        """Whether any source is a feed, which delivers records by itself."""
        return len(self.file_sources) < len(self.sources)

    @property
    def reads_stdin(self) -> bool:
        """Whether standard input is one of the files."""
        return any(STDIN in source.inputs.paths for _, source in self.file_sources)

    @property
    def files(self) -> FileWorkSettings:
        """The settings for reading files."""
        first = self.sources[0]
        return first.files if isinstance(first, FileSource) else first.record_work.files

    @property
    def record_work(self) -> RecordWorkSettings | None:
        """The settings of the work on records, None for counting."""
        return self.sources[0].record_work

    @property
    def target(self) -> Target | None:
        """The target, or None."""
        return self.record_work.target if self.record_work else None

    @property
    def stores(self) -> StoreSettings:
        """The settings of the object stores of the target."""
        return (self.target and self.target.stores) or self.files.stores

    @property
    def retries(self) -> Retries:
        """The retries after transient errors."""
        settings = self.settings
        files = settings.files if isinstance(settings, RecordWorkSettings) else settings
        return files.retries

    def output_files(self) -> dict[str, str]:
        """Return the paths that are written to, by the option that names them."""
        files = {} if self.dead_letter is None else {"--dead-letter": self.dead_letter}
        target = self.target
        if target is not None and target.path not in (STDIN, "") and target.layout is None:
            files["--to"] = target.path
        if self.log_file is not None:
            files["--log-file"] = self.log_file
        if self.ledger is not None and not (target is not None and target.is_database):
            files["--ledger"] = self.ledger.path
        return files | {f"--report {path}": path for path in self.reports}

    def other_inputs(self) -> list[str]:
        """Return the files that the run needs besides its inputs: programs, schemas, lists, tokens.

        None of them may be an output.
        """
        work = self.record_work
        lists = (source.inputs.files_from for _, source in self.file_sources)
        feeds = (one.source for one in self.sources if isinstance(one, FeedJob))
        return [
            *self.reads,
            *(path for source in feeds for path in source.files),
            *(path for path in lists if path is not None and path != STDIN),
            *(files_read(work.transforms) if work is not None else ()),
        ]

    def check(self) -> None:
        """Raise UsageError for a contradiction."""
        if len(self.sources) != 1 and None in [source.record_work for source in self.sources]:
            raise UsageError(
                "a job needs a source; if it has several, each needs RecordWorkSettings"
            )
        if "" in self.output_files().values():
            raise UsageError("the name of an output file is empty")
        work = self.record_work
        if work:
            work.check()
        for _, source in self.file_sources:
            source.inputs.check()
        if self.retries.count < 0 or self.retries.delay < 0:
            raise UsageError("retries and their delay cannot be less than 0")
        least = {"batch_size": 1, "concurrency": 1, "workers": 0, "pause": 0, "load_batch": 1}
        least["limit"] = 1
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UsageError(f"{name} is {value}; it cannot be less than {bound}")
        if self.limit is not None and self.ledger is not None:
            raise UsageError(
                "a run with a limit of records cannot have a ledger: it does not read all records"
            )
        if self.timeout is not None and self.timeout <= 0:
            raise UsageError(f"timeout is {self.timeout:g}; it must be more than 0 seconds")
        self._check_kind()

    def _check_kind(self) -> None:
        if self.dask is not None:
            self._check_cluster(self.dask)
        if self.watch is not None:
            self._check_watch()
        if self.target is not None and self.target.mode == "mirror":
            self._check_mirror()

    def _check_mirror(self) -> None:
        """Raise UsageError unless a mirror sees all of its files in each run."""
        if len(self.sources) != 1 or self.has_feeds:
            raise UsageError("--mode mirror needs one source, and it must be files")
        inputs = self.file_sources[0][1].inputs
        watch = self.watch
        for name, value in (
            ("standard input", self.reads_stdin or inputs.files_from == STDIN),
            ("--limit", inputs.limit),
            ("--shard", inputs.shard),
            ("a limit of records", self.limit),
            ("dedupe", self.record_work and self.record_work.dedupe),
            ("--move-done", watch and watch.move_done),
            ("--move-failed", watch and watch.move_failed),
            ("--delete-done", watch and watch.delete_done),
        ):
            if value:
                raise UsageError(
                    f"--mode mirror makes the target equal to the files that are there: it excludes"
                    f" {name}"
                )
        if self.ledger is None:
            raise UsageError("--mode mirror needs a ledger, which this run does not have")

    def _check_watch(self) -> None:
        if self.has_feeds:
            raise UsageError("--watch waits for files: all sources must be folders")
        target = self.target
        if target is not None and target.groups is not None:
            raise UsageError(
                "--watch has no end, and aggregates are written at the end of a run: leave out "
                "--by and --agg, or use asyncbatch stream, which writes them window by window"
            )
        if target is not None and not target.keeps_loads:
            place = "the table appears" if target.is_database else f"{target.name} appears"
            raise UsageError(
                f"--watch has no end, and {place} only at the end of a run: write to a folder, or "
                "to a database in the mode append, upsert or mirror"
            )
        if target is not None and (target.format, target.compression) != ("keep", "keep"):
            raise UsageError(
                "--watch excludes --to-format and --to-compression: the outputs of two files could "
                "have one name"
            )
        if self.ledger is None:
            raise UsageError(
                "--watch remembers finished files, and this target cannot: write to a folder or a "
                "database"
            )

    def _check_cluster(self, dask: DaskSettings) -> None:
        if self.reads_stdin:
            raise UsageError(
                "with --engine dask, other processes read the inputs, and standard input exists"
                " only in this one: write it to a file that they can read"
            )
        if self.record_work and self.record_work.needs_this_process:
            raise UsageError(
                "async functions, and functions that exist only in this process, run in this"
                " process: leave out --engine dask, or write the function with a plain def"
            )
        if dask.scheduler is not None and self.workers is not None:
            raise UsageError(
                "with --scheduler, the cluster decides the number of workers: leave out --workers"
            )
        if self.workers == 0:
            raise UsageError("--engine dask needs workers: --workers 0 is not possible")


def checked_settings(settings: RecordWorkSettings) -> RecordWorkSettings:
    """Return settings with `call_is_async` set. Raises UsageError."""
    try:
        stages = make_stages(settings.transforms, row_check=settings.row_check)
    except ValueError as error:  # the path of a field is invalid
        raise UsageError(str(error)) from None
    return replace(settings, call_is_async=is_async(stages))


class StreamSettings(Struct, frozen=True):
    """The windows of a stream, and its events. Spans are in microseconds."""

    window: WindowSpec
    aggregates: tuple[Aggregate, ...]
    by: tuple[str, ...] = ()  # paths of the fields of the key
    time: str | None = "timestamp"  # the path of the event time; None: the time of arrival
    unit: Unit = "auto"
    lateness: int = 0
    idle: int | None = None  # a source that is silent for this long is not waited for
    max_future: int | None = None  # an event further ahead of the clock is rejected
    max_keys: int = DEFAULT_MAX_KEYS  # the limit of keys in a window
    overflow_key: str | None = None  # the key for further keys; None: they end the stream
    transforms: tuple[TransformSpec, ...] = ()
    letters: bool = False  # whether dead letters are written
    tracebacks: bool = False
    retries: Retries = Retries()  # of functions, after transient errors

    def contradictions(self, *, has_late: bool = False) -> Iterator[tuple[str, str]]:
        """Yield each option without effect, and the reason.

        `has_late`: late events are kept.
        """
        if self.time is None:
            for name, value in (
                ("lateness", self.lateness),
                ("idle_timeout", self.idle),
                ("max_future", self.max_future),
                ("late", has_late),
            ):
                if value:
                    yield name, "needs the events' own time, not the time of arrival"
        if self.overflow_key is not None and not self.by:
            yield "overflow_key", "is only for events that are grouped by a field"
        if self.retries.count and not any(
            isinstance(one, CallSpec | FunctionSpec) for one in self.transforms
        ):
            yield "retries", "is only for calls of functions"
