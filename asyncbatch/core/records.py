"""The nouns that travel: batches, what a worker says of them, results.

All but `Part`, which a worker fills, are frozen, and all are cheap: a run makes many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import UNSET, Struct, UnsetType

from asyncbatch.core.paths import ObjectPath

if TYPE_CHECKING:
    from asyncbatch.core.entries import FileStatus

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
    "timeout",
    "worker_crash",
    "schema",
    "missing_field",
    "transform",
    "http",
    "sink",
]

STDIN = "-"
"""The path that stands for standard input."""


def display_path(path: str) -> str:
    r"""`path` as text that any output can carry: bytes that are not UTF-8 become `\xff`."""
    if isinstance(path, ObjectPath):
        return path.shown
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Position(Struct, frozen=True, gc=False):
    """A place between two records of a file, told by what lies before it.

    That is so many bytes of the decompressed stream, records, line ends, and code points since
    the last line end. Work that has come so far can be taken up again there.
    """

    byte: int = 0
    record: int = 0
    line: int = 0
    column: int = 0


Scalar = str | int | float
"""What is larger or smaller than another: the value of a field by which records are asked for."""


class Bookmark(Struct, frozen=True, gc=False, omit_defaults=True):
    """How far a feed has come, for a later run.

    `mark` is where it goes on, in the words of its source; None if only at the beginning.
    `newest` is the largest value so far of the field by which the source is asked for what is
    new, `since` that with which this reading of it began.
    """

    mark: str | None = None
    newest: Scalar | None = None
    since: Scalar | None = None


class InvalidRecord(Struct, frozen=True, gc=False):
    """What a program has given and JSON cannot hold: how Python shows it, and the reason."""

    text: bytes
    reason: str


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
    the decompressed stream; what does not apply is None. `pointer` is the JSON Pointer of the
    offending place within the record; `violations` are all that a schema found, the first of
    which the other fields tell; `traceback` is that of a user's function, if it was asked for.
    These are UNSET where they do not apply.
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
    from disk. `error` says why a `failed` file failed, `reason` why a `skipped` one was.
    `rejections` is filled by the library's front door only; events carry bad records one by one.
    """

    file: str
    status: FileStatus
    records: int
    bytes: int
    elapsed_ms: float
    rejected: int = 0
    error: Failure | None = None
    rejections: tuple[Failure, ...] = ()
    reason: str = ""
