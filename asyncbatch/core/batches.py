"""Batches of work, and the result parts workers hand back."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from asyncbatch.core.records import (
    Bookmark,
    Failure,
    FileResult,
    InvalidRecord,
    Position,
    Scalar,
    display_path,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.entries import Entry, Extent, FileStatus

SplitForm = Literal["lines", "array"]
"""What a huge file is cut into: whole lines of JSON Lines, or whole elements of an array."""


class Chunk(Struct, frozen=True, gc=False):
    """Records that have come by themselves: a page of an API, or what a program has given.

    `file` is what failures call it. The body is a JSON text, JSON Lines, or the texts of single
    records; `line` (of those: the number of the record, from 1) and `byte` (from 0) are where in
    `file` it begins. `bookmark` is that of the feed once this is done, but for what is newest in
    it.
    """

    file: str
    body: bytes | Sequence[bytes | InvalidRecord] = b""
    form: Literal["json", "jsonl", "records"] = "json"
    line: int = 1
    byte: int = 0
    bookmark: Bookmark = Bookmark()

    @property
    def size(self) -> int:
        """Bytes that were read; of what a program has given none."""
        return len(self.body) if isinstance(self.body, bytes) else 0


class Split(Struct, frozen=True, gc=False):
    """A stretch of a huge file: `length` bytes from `start`, number so many (from 0) of it.

    Of an array, it begins with the bracket or comma before its first element. The one at the
    `end` holds no records; its `length` is the bytes of the file that are in no other, and
    `error` is why there are no more. Records and lines of a `relative` one count from its start.
    A feed's pieces bring what they hold, their `arrival`. An object's tell its `etag`.
    """

    number: int
    form: SplitForm
    start: Position
    length: int
    end: bool = False
    error: Failure | None = None
    relative: bool = False
    arrival: Chunk | None = None
    etag: str | None = None


SOURCE_SPAN = 1 << 40
"""Inputs that a source may have: those of source number k of a job are numbered from k times so
many on."""


class Batch(Struct, frozen=True, gc=False):
    """Files that one worker takes in one go; `start` is the first one's number in the run.

    A path is a handle: where the input is, not what it holds. Workers read. With a `piece` the
    batch is that stretch of its only file; with a `resume` position it is the only file's rest.
    """

    start: int
    paths: tuple[str, ...]
    split: Split | None = None
    resume: Position | None = None
    prepared_part: Part | None = None
    """What becomes of them, if that is known already."""
    limit: int | None = None
    """How many records are read of them at most."""

    @property
    def source(self) -> int:
        """The number of the job's source that the files are of."""
        return self.start // SOURCE_SPAN

    @property
    def key(self) -> tuple[int, int]:
        """What tells this batch from all others in flight, in input order."""
        return self.start, self.split.number if self.split else 0


class Rows(Struct, gc=False):
    """So many rows to be written, in the form that the target's sink takes.

    Where it may refuse some, there is also an item a row in each list: its file's place in
    the part, its record's number and line there; `several` tells whether any record became
    more than one row. `originals` are the records as they were read, if somebody wants them.
    `ends` are where the rows of each file that the part finishes (or of the one that it does not)
    end in what the payload is, or unpacks to, if that is one row after another. `digests` tell
    the rows' keys apart, if those that came before are to be dropped; None is of a row without.
    """

    payload: bytes | bytearray
    count: int
    places: list[int] = []
    records: list[int] = []
    lines: list[int | None] = []
    texts: list[bytes] = []
    has_many_rows: bool = False
    ends: list[int] = []
    digests: list[builtins.bytes | None] = []


class Counts(Struct, gc=False):
    """Counts of records, and bytes read from disk."""

    read: int = 0
    dropped: int = 0
    rejected: int = 0
    bytes: int = 0

    def add(self, other: Counts) -> None:
        """Add another's to these."""
        self.read += other.read
        self.dropped += other.dropped
        self.rejected += other.rejected
        self.bytes += other.bytes


class SplitFile(Struct, frozen=True, gc=False):
    """What a worker says of a file that is to be taken in pieces, perhaps from a position on.

    If its pieces may be `relative`, nobody need count its lines beforehand.
    """

    form: SplitForm
    start: Position | None = None
    relative: bool = False


class Part(Struct, gc=False):
    """What a worker says of a stretch of a batch, in columns: one item a finished file.

    The file at place 0 is number `start` of the run. `dropped`, `rejected` and `errors` hold
    only the exceptions, by place. `rejections` are the bad records met, each with its file's
    place, `letters` what a dead letter file says of them, if there is one. A part without any
    finished file is about one that is still being read, at place 0. `made` counts the rows of
    each finished file in this part, `written` what the worker itself wrote, `retries` how often
    it tried something again. `skipped` tells by place why a file was not even read, `entries`
    what a ledger has of it. `lost` is why no more can be written, if the worker does that;
    `outputs` are the states of what it has written, as far as nobody else could tell.

    The parts of a huge file count as they come, not only when it is done. One that is not the
    last has `told`, its share of the file's counts, and where it ends, `reached` (None in the
    midst of a record: what follows belongs to it). In the last one, whose columns are about
    the whole file, `told` is what the others have told. `huge` tells that a file, at place 0, is to
    be taken in pieces. `newest` is the largest value in a piece of the field that its source is
    asked by.
    """

    start: int
    records: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    elapsed_ms: list[float] = field(default_factory=list)
    dropped: dict[int, int] = field(default_factory=dict)
    rejected: dict[int, int] = field(default_factory=dict)
    errors: dict[int, Failure] = field(default_factory=dict)
    rejections: list[tuple[int, Failure]] = field(default_factory=list)
    dead_letters: list[builtins.bytes] = field(default_factory=list)
    rows: Rows | None = None
    spooled_rows: list[int] = field(default_factory=list)
    written: int = 0
    skipped: dict[int, str] = field(default_factory=dict)
    entries: dict[int, Entry] = field(default_factory=dict)
    retries: int = 0
    target_error: str = ""
    counts: Counts | None = None
    position: Position | None = None
    split_file: SplitFile | None = None
    largest_cursor: Scalar | None = None
    outputs: dict[int, Extent] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def status(self, place: int) -> FileStatus:
        """Return what became of the finished file at `place`."""
        if place in self.errors:
            return "failed"
        if place in self.skipped:
            return "skipped"
        return "partial" if place in self.rejected else "success"

    def reject(self, place: int, failure: Failure, letters: list[builtins.bytes]) -> None:
        """Reject one more record of the file at `place`, in the order of its records."""
        at = bisect_right(
            self.rejections,
            (place, failure.record or 0),
            key=lambda found: (found[0], found[1].record or 0),
        )
        self.rejections.insert(at, (place, failure))
        self.dead_letters[at:at] = letters
        if place < len(self):
            self.count_rejected(place, 1, failure)

    def count_rejected(self, place: int, count: int, failure: Failure) -> None:
        """Count more records of a finished file as rejected, `failure` being of the first."""
        self.rejected[place] = self.rejected.get(place, 0) + count
        if self.rejected[place] == self.records[place]:
            self.errors.setdefault(place, failure)

    def failures(self) -> Iterator[tuple[int, Failure]]:
        """Yield every failure with its file's number in the run, each once.

        The error of a file whose every record was rejected is its first rejection.
        """
        for place, failure in self.rejections:
            yield self.start + place, failure
        for place, failure in self.errors.items():
            if failure.record is None:
                yield self.start + place, failure


class SettledInputs(Struct, frozen=True, gc=False):
    """A batch of which no more will be said: its first `done` files are done."""

    batch: Batch
    done: int


def prepared_part(
    start: int, count: int, errors: dict[int, Failure], skipped: dict[int, str]
) -> Part:
    """Return the part about `count` files of which it is known without reading what they are."""
    zeros = [0] * count
    return Part(
        start, zeros, zeros, [0.0] * count, spooled_rows=zeros, errors=errors, skipped=skipped
    )


class BatchPart(Struct, frozen=True, gc=False):
    """A `Part` beside the batch that it is about."""

    batch: Batch
    part: Part

    def path(self, place: int) -> str:
        """Return the path of the part's file at `place`."""
        return self.batch.paths[self.part.start - self.batch.start + place]

    def file(self, place: int) -> str:
        """Return the name of the part's file at `place`, or of what has come of a feed."""
        piece = self.batch.split
        if piece is not None and piece.arrival is not None:
            return piece.arrival.file
        return display_path(self.path(place))

    def outcomes(self) -> Iterator[Failure | FileResult]:
        """Yield, in input order, the bad records of each file and, once it is done, its result."""
        part, first = self.part, self.part.start - self.batch.start
        rejections = deque(part.rejections)
        paths = self.batch.paths[first : first + len(part)]
        columns = zip(paths, part.records, part.bytes, part.elapsed_ms, strict=True)
        for place, (path, records, size, elapsed_ms) in enumerate(columns):
            while rejections and rejections[0][0] == place:
                yield rejections.popleft()[1]
            error, rejected = part.errors.get(place), part.rejected.get(place, 0)
            file, took = display_path(path), round(elapsed_ms, 3)
            status, reason = part.status(place), part.skipped.get(place, "")
            yield FileResult(file, status, records, size, took, rejected, error, (), reason)
        yield from (failure for _, failure in rejections)
