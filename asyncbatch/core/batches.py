"""Batches of work, and the parts of results that workers return."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Literal

from msgspec import Struct, field

from asyncbatch.core.records import (
    STDIN,
    Bookmark,
    CursorKind,
    CursorValues,
    Failure,
    FileResult,
    InvalidRecord,
    MissingNames,
    Position,
    Scalar,
    display_path,
)
from asyncbatch.errors import valid_text

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.ledger_entries import Entry, Extent, FileStatus

# the unit of a split: lines of JSON Lines, or elements of an array
SplitForm = Literal["lines", "array"]


class Chunk(Struct, frozen=True, gc=False):
    """Records from a source that is no file: an API page, or records of a program."""

    file: str  # the name of the input in failures
    # a JSON text, JSON Lines, CSV, or the texts of single records
    body: bytes | Sequence[bytes | InvalidRecord] = b""
    form: Literal["json", "jsonl", "csv", "records"] = "json"
    # where the body begins in `file`, from 1; of single records, the number of the first
    line: int = 1
    byte: int = 0  # where the body begins in `file`, from 0
    # the bookmark of the feed after this chunk, without its largest cursor value
    bookmark: Bookmark = Bookmark()
    # set if the records of a JSON text are the values of an object: the field for their key
    key_field: str | None = None
    added_fields: bytes = b""  # a JSON object whose fields are added to each record
    # at the end of a feed: its server says that nothing has changed since an earlier run
    is_unchanged: bool = False

    @property
    def size(self) -> int:
        """The number of bytes read; 0 for the records of a program."""
        return len(self.body) if isinstance(self.body, bytes) else 0


class Split(Struct, frozen=True, gc=False):
    """A byte range of a large file: `length` bytes from `start`.

    A split of an array begins at the bracket or comma before its first element.
    """

    number: int  # the number of the split within the file, from 0
    form: SplitForm
    start: Position
    length: int
    # marks the last split, which holds no records: its `length` is the rest of the file's bytes
    is_end_marker: bool = False
    error: Failure | None = None  # the reason why the last split ends the file early
    is_relative: bool = False  # records and lines count from the start of the split
    # With `is_end_marker`: a guess was wrong, so the file must be read as a whole.
    is_whole: bool = False
    chunk: Chunk | None = None  # set if the input is a chunk of a feed, not a file
    etag: str | None = None  # the ETag that the object must have; None for a file

    @property
    def is_guess(self) -> bool:
        """Whether the bounds of the splits of the file are guesses.

        All are right if each split is an array, once its commas at the bounds become brackets.
        """
        return self.form == "array" and self.is_relative


SOURCE_SPAN = 1 << 40  # The inputs of source k of a job are numbered from k * SOURCE_SPAN.


class Batch(Struct, frozen=True, gc=False):
    """Files for one worker.

    `paths` are handles, not contents: the worker opens and reads the files.
    """

    start: int  # the number of the first file within the run
    paths: tuple[str, ...]
    split: Split | None = None  # the byte range of the only file
    resume: Position | None = None  # the position at which to resume the only file
    prepared_part: Part | None = None  # the outcome, if the files need not be read
    limit: int | None = None  # the maximum number of records to read; None: no limit

    moment: ClassVar[str] = "it processed this file"
    advice: ClassVar[str] = " or set --max-file-size"

    @property
    def count(self) -> int:
        """The number of files."""
        return len(self.paths)

    def name(self, number: int) -> str:
        """Return the display name of file `number`."""
        return display_path(self.paths[number - self.start])

    def may_retry(self, number: int) -> bool:
        """Whether file `number` can be read again, and none of its parts counts already."""
        return self.split is None and self.paths[number - self.start] != STDIN

    @property
    def source(self) -> int:
        """The number of the job's source that the files belong to."""
        return self.start // SOURCE_SPAN

    @property
    def key(self) -> tuple[int, int]:
        """The sort key of this batch in input order, unique among batches in flight."""
        return self.start, self.split.number if self.split else 0


class Rows(Struct, gc=False):
    """Encoded rows for the sink of the target.

    Each list has one item per row. The lists are empty unless the target can reject single rows.
    """

    payload: bytes | bytearray
    count: int
    file_indexes: list[int] = []  # the index of the row's file in the part
    records: list[int] = []  # the number of the row's record in its file
    lines: list[int | None] = []  # the line of the row's record
    texts: list[bytes] = []  # the texts of the records as they were read, if dead letters are kept
    has_many_rows: bool = False  # whether a record became more than one row
    # For each file that the part finishes, and for the unfinished one: the end of its rows in the
    # unpacked payload.
    ends: list[int] = []
    # the digest of each row's key, for dedupe; None for a row without a key
    digests: list[builtins.bytes | None] = []
    key_note: str = ""  # for the user, if none of the rows has a key


class Counts(Struct, gc=False):
    """Counts of records, and bytes read from disk."""

    read: int = 0
    dropped: int = 0
    rejected: int = 0
    bytes: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of `other` to these."""
        self.read += other.read
        self.dropped += other.dropped
        self.rejected += other.rejected
        self.bytes += other.bytes


class SplitFile(Struct, frozen=True, gc=False):
    """The answer of a worker that found that a file needs to be processed in splits."""

    form: SplitForm
    start: Position | None = None  # the position of the first split
    # If true, lines are not counted in advance, and bounds between elements are guessed: records
    # count from the start of each split. If it answers a split with guessed bounds, one is wrong.
    is_relative: bool = False


class Part(Struct, gc=False):
    """The outcome of a part of a batch, in columns: one item for each finished file.

    An index counts the files of the part from 0. A part without a finished file is about an
    unfinished file, with index 0.

    The parts of a split file count as they arrive, before the file is finished. Each part except
    the last has `counts`, its share of the file's counts, and `position`. In the last part the
    columns are about the whole file, and `counts` is the sum of the earlier parts.
    """

    start: int  # the number of the file at index 0 within the run
    records: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    elapsed_ms: list[float] = field(default_factory=list)
    dropped: dict[int, int] = field(default_factory=dict)  # by index; files without are left out
    rejected: dict[int, int] = field(default_factory=dict)  # by index; files without are left out
    errors: dict[int, Failure] = field(default_factory=dict)  # by index; files without are left out
    # the rejected records, each with the index of its file
    rejections: list[tuple[int, Failure]] = field(default_factory=list)
    # the dead letters of the rejections, if a dead letter file is written
    dead_letters: list[builtins.bytes] = field(default_factory=list)
    rows: Rows | None = None
    # the number of rows of each finished file in this part
    spooled_rows: list[int] = field(default_factory=list)
    written: int = 0  # the number of rows of each finished file that the worker itself wrote
    # the reason why a file was not read, by index
    skipped: dict[int, str] = field(default_factory=dict)
    entries: dict[int, Entry] = field(default_factory=dict)  # the ledger entry of a file, by index
    retries: int = 0
    target_error: str = ""  # the reason why the worker can no longer write; empty if it can
    counts: Counts | None = None
    # the end of the part; None in the middle of a record that the next part continues
    position: Position | None = None
    split_file: SplitFile | None = None  # set if the file at index 0 must be processed in splits
    # the largest values of the cursor field of an incremental source, from the worker
    cursor_values: CursorValues | None = None
    # the largest of them, and how it was compared; set in the main process
    largest_cursor: Scalar | None = None
    cursor_kind: CursorKind | None = None
    missing: MissingNames | None = None  # of its rejections
    # the states of the written outputs that only the worker knows
    outputs: dict[int, Extent] = field(default_factory=dict)
    # the result of a task that summarises records; the main process merges these
    summary: object | None = None

    def __len__(self) -> int:
        return len(self.records)

    def status(self, index: int) -> FileStatus:
        """Return the status of the finished file at `index`."""
        if index in self.errors:
            return "failed"
        if index in self.skipped:
            return "skipped"
        return "partial" if index in self.rejected else "success"

    def reject(self, index: int, failure: Failure, dead_letters: list[builtins.bytes]) -> None:
        """Reject one record of the file at `index`; keep rejections in record order."""
        at = bisect_right(
            self.rejections,
            (index, failure.record or 0),
            key=lambda found: (found[0], found[1].record or 0),
        )
        self.rejections.insert(at, (index, failure))
        self.dead_letters[at:at] = dead_letters
        if index < len(self):
            self.count_rejected(index, 1, failure)

    def count_rejected(self, index: int, count: int, failure: Failure) -> None:
        """Count `count` records of a finished file as rejected; `failure` is the first's."""
        self.rejected[index] = self.rejected.get(index, 0) + count
        if self.rejected[index] == self.records[index]:
            self.errors.setdefault(index, failure)

    def failures(self) -> Iterator[tuple[int, Failure]]:
        """Yield each failure once, with the number of its file in the run.

        If every record of a file was rejected, the first rejection is the error of the file.
        """
        for index, failure in self.rejections:
            yield self.start + index, failure
        for index, failure in self.errors.items():
            if failure.record is None:
                yield self.start + index, failure


class SettledInputs(Struct, frozen=True, gc=False):
    """A finished batch, whose first `done_count` files are done."""

    batch: Batch
    done_count: int


def prepared_part(
    start: int, count: int, errors: dict[int, Failure], skipped: dict[int, str]
) -> Part:
    """Return the part of `count` files that need not be read."""
    zeros = [0] * count
    return Part(
        start, zeros, zeros, [0.0] * count, spooled_rows=zeros, errors=errors, skipped=skipped
    )


class BatchPart(Struct, frozen=True, gc=False):
    """A `Part` with the batch that it belongs to."""

    batch: Batch
    part: Part

    def path(self, index: int) -> str:
        """Return the path of the part's file at `index`."""
        return self.batch.paths[self.part.start - self.batch.start + index]

    def file(self, index: int) -> str:
        """Return the display name of the file, or of the feed's chunk, at `index`."""
        split = self.batch.split
        if split is not None and split.chunk is not None:
            return split.chunk.file
        return display_path(self.path(index))

    def unshown_paths(self) -> Iterator[tuple[str, str]]:
        """Yield the display name and the path of failing files whose paths are not UTF-8."""
        failing = {place for place, _ in self.part.rejections}.union(self.part.errors)
        for place in failing:
            path = self.path(place)
            if not path.isascii() and valid_text(path) != path:
                yield display_path(path), path

    def outcomes(self) -> Iterator[Failure | FileResult]:
        """Yield, in input order, the rejected records of each file, then its result."""
        part, first = self.part, self.part.start - self.batch.start
        rejections = deque(part.rejections)
        paths = self.batch.paths[first : first + len(part)]
        columns = zip(paths, part.records, part.bytes, part.elapsed_ms, strict=True)
        if not (part.errors or part.skipped or part.rejected or rejections):  # fast: most parts
            for path, records, size, elapsed_ms in columns:
                took = round(elapsed_ms, 3)
                yield FileResult(display_path(path), "success", records, size, took)
            return
        for index, (path, records, size, elapsed_ms) in enumerate(columns):
            while rejections and rejections[0][0] == index:
                yield rejections.popleft()[1]
            error, rejected = part.errors.get(index), part.rejected.get(index, 0)
            file, took = display_path(path), round(elapsed_ms, 3)
            status, reason = part.status(index), part.skipped.get(index, "")
            yield FileResult(file, status, records, size, took, rejected, error, (), reason)
        yield from (failure for _, failure in rejections)
