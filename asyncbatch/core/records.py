"""Records and files as data: positions, failures, violations, results.

All structs are frozen, and cheap to create: a run creates many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from asyncbatch.core.paths import ArchiveMember, ObjectPath
from asyncbatch.errors import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncbatch.core.ledger_entries import FileStatus

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
    "late",
]

# A value of JSON: None, bool, int, float, str, a list of values, or a dict of values by name.
Json = Any
STDIN = "-"  # the path of standard input


def display_path(path: str) -> str:
    r"""Return `path` as text; bytes that are not UTF-8 become `\xff`."""
    if type(path) is str and path.isascii():  # fast: most paths
        return path
    if isinstance(path, ObjectPath):
        return path.redacted
    if isinstance(path, ArchiveMember):
        path = str(path)  # without its place
    if path.isascii():
        return path
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which no name of a file has
        return valid_text(path)


class Position(Struct, frozen=True, gc=False):
    """A position between two records of a file, at which work can resume.

    It counts the content before it: bytes of the decompressed stream, records, line ends, and code
    points since the last line end.
    """

    byte: int = 0
    record: int = 0
    line: int = 0
    column: int = 0


# a value of the cursor field of an incremental source; values of one type are ordered
Scalar = str | int | float


# how the values of the cursor field of an incremental source are compared
CursorKind = Literal["number", "time", "text"]


class CursorValues(Struct, frozen=True, gc=False, omit_defaults=True):
    """The largest values of a cursor field, for each way to compare them, as they were spelled."""

    number: Scalar | None = None
    time: Scalar | None = None
    text: str | None = None
    json_number: Scalar | None = None  # the first number that is no text, and no time
    no_number: str | None = None  # the first text that is no number
    has_times: bool = False  # also if they lie beyond the maximum
    beyond: Scalar | None = None  # the first value beyond the maximum, which does not count


class Bookmark(Struct, frozen=True, gc=False, omit_defaults=True):
    """The position of a feed, for a later run. Persisted as JSON in the ledger."""

    mark: str | None = None  # the position to resume at, in the source's format; None: the start
    newest: Scalar | None = None  # the largest cursor value so far
    since: Scalar | None = None  # the cursor value with which this pass began
    # how cursor values are compared, as set, or as detected by an earlier pass; None: not yet known
    kind: CursorKind | None = None
    shape: str = ""  # of the pages of a URL, in the source's words; empty if not known
    # The headers ETag and Last-Modified of a URL whose body was read to its end.
    etag: str = ""
    modified: str = ""
    # whether all was read, but a killed run has not noted that the feed is done
    is_last: bool = False


class InvalidRecord(Struct, frozen=True, gc=False):
    """A value of a program that JSON cannot represent: its `repr` and the reason."""

    text: bytes
    reason: str


class Violation(Struct, frozen=True, gc=False):
    """A part of a record that violates a schema: JSON Pointer, rule, reason.

    `line`, `column` and `byte` are the place of the invalid value, as in `Failure`.
    """

    pointer: str
    rule: str
    message: str
    line: int | None = None
    column: int | None = None
    byte: int | None = None


class Failure(Struct, frozen=True, gc=False):
    """The reason why a file or a record failed, and the place of the error."""

    file: str
    kind: FailureKind
    message: str
    record: int | None = None  # counts from 1; None if it does not apply
    line: int | None = None  # counts from 1
    column: int | None = None  # counts from 1, in code points
    byte: int | None = None  # counts from 0, in the decompressed stream
    pointer: str | UnsetType = UNSET  # the JSON Pointer of the error within the record
    # all violations of a schema; the other fields describe the first
    violations: tuple[Violation, ...] | UnsetType = UNSET
    # the traceback of a user's function, if tracebacks are enabled
    traceback: str | UnsetType = UNSET


class FileResult(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="event", tag="file"):
    """The result of one file. As JSON it is the file's event."""

    file: str
    status: FileStatus
    records: int  # records read, the rejected ones included
    bytes: int  # bytes read from the disk
    elapsed_ms: float
    rejected: int = 0
    error: Failure | None = None  # the reason why a `failed` file failed
    # filled only by `process_files`; events carry rejected records one by one
    rejections: tuple[Failure, ...] = ()
    reason: str = ""  # the reason why a `skipped` file was skipped


class MissingNames(Struct):
    """The names that rejected records lacked, of those that the user's settings contain.

    A name that all records lack is most likely misspelt.
    """

    notes: dict[str, str] = field(default_factory=dict)  # the note for the user, by its beginning
    counts: dict[str, int] = field(default_factory=dict)  # of the records, in the same way
    others: int = 0  # records of valid JSON that were rejected for other reasons

    def add(self, subject: str, make_note: Callable[[], str]) -> None:
        """Count a record that lacks a name. The first one determines the note."""
        if subject not in self.notes:
            self.notes[subject] = make_note()
        self.counts[subject] = self.counts.get(subject, 0) + 1

    def update(self, other: MissingNames) -> None:
        """Add the counts of `other`."""
        self.notes = other.notes | self.notes
        for subject, count in other.counts.items():
            self.counts[subject] = self.counts.get(subject, 0) + count
        self.others += other.others

    def reject_other(self, kind: FailureKind) -> None:
        """Count a record that was rejected for another reason."""
        self.others += kind != "invalid_json"

    @property
    def note(self) -> str | None:
        """The note about the only name, if no record had it and all were rejected for it."""
        return next(iter(self.notes.values())) if len(self.notes) == 1 and not self.others else None
