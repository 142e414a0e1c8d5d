"""The nouns that travel: batches, what a worker says of them, results.

All but `Part`, which a worker fills, are frozen, and all are cheap: a run makes many.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

from msgspec import UNSET, Struct, UnsetType, field

if TYPE_CHECKING:
    from collections.abc import Iterator

FailureKind = Literal[
    "not_found",
    "permission",
    "read_error",
    "empty",
    "encoding",
    "invalid_json",
    "too_large",
    "too_deep",
    "corrupt_archive",
    "worker_crash",
    "schema",
    "missing_field",
    "transform",
    "sink",
]
FileStatus = Literal["success", "partial", "failed"]

STDIN = "-"
"""The path that stands for standard input."""


def display_path(path: str) -> str:
    r"""`path` as text that any output can carry: bytes that are not UTF-8 become `\xff`."""
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Batch(Struct, frozen=True, gc=False):
    """Files that one worker takes in one go; `start` is the first one's number in the run.

    A path is a handle: where the input is, not what it holds. Workers read.
    """

    start: int
    paths: tuple[str, ...]


class Violation(Struct, frozen=True, gc=False):
    """One place of a record that does not fit a schema: its JSON Pointer, the rule, the reason.

    `line`, `column` and `byte` are those of the offending value, as in `Failure`.
    """

    pointer: str
    rule: str
    message: str
    line: int | None = None
    column: int | None = None
    byte: int | None = None


class Failure(Struct, frozen=True, gc=False):
    """Why a file or one of its records was not processed, and where.

    `record`, `line` and `column` count from 1 (columns in code points), `byte` from 0 in
    the decompressed stream; what does not apply is None (of the rest: UNSET). `pointer` is the JSON Pointer
    of the offending place within the record; `violations` are all that a schema found, the first of
    which the other fields tell; `traceback` is that of a user's function, if it was asked for.
    """

    file: str
    kind: FailureKind
    message: str
    record: int | None = None
    line: int | None = None
    column: int | None = None
    byte: int | None = None
    pointer: str | UnsetType = UNSET
    violations: tuple[Violation, ...] | UnsetType = UNSET
    traceback: str | UnsetType = UNSET


class FileResult(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="event", tag="file"):
    """What became of one file; as JSON, the event that says so.

    `records` counts the records read, the `rejected` ones included; `bytes` is what was read
    from disk. `error` says why a `failed` file failed. `rejections` is filled by the library's
    front door only; events carry bad records one by one.
    """

    file: str
    status: FileStatus
    records: int
    bytes: int
    elapsed_ms: float
    rejected: int = 0
    error: Failure | None = None
    rejections: tuple[Failure, ...] = ()


class Part(Struct, gc=False):
    """What a worker says of a stretch of a batch, in columns: one item a finished file.

    The file at place 0 is number `start` of the run. `rejected` and `errors` hold only the
    exceptions, by place. `rejections` are the bad records met, each with its file's place;
    the place after the last is that of a file still being read.
    """

    start: int
    records: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    elapsed_ms: list[float] = field(default_factory=list)
    rejected: dict[int, int] = field(default_factory=dict)
    errors: dict[int, Failure] = field(default_factory=dict)
    rejections: list[tuple[int, Failure]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def failures(self) -> Iterator[tuple[int, Failure]]:
        """Yield every failure with its file's number in the run, each once.

        The error of a file whose every record was rejected is its first rejection.
        """
        for place, failure in self.rejections:
            yield self.start + place, failure
        for place, failure in self.errors.items():
            if place not in self.rejected:
                yield self.start + place, failure


class BatchPart(Struct, frozen=True, gc=False):
    """A `Part` beside the batch that it is about."""

    batch: Batch
    part: Part

    def file(self, place: int) -> str:
        """Return the name of the part's file at `place`."""
        return display_path(self.batch.paths[self.part.start - self.batch.start + place])

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
            status: FileStatus = "failed" if error else "partial" if rejected else "success"
            file, took = display_path(path), round(elapsed_ms, 3)
            yield FileResult(file, status, records, size, took, rejected, error)
        yield from (failure for _, failure in rejections)
