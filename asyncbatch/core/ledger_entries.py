"""Ledger entries: the state of each input, and where its rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FileStatus = Literal["success", "partial", "failed", "skipped"]
Outcome = FileStatus | Literal["begun"]


class Stamp(NamedTuple):
    """The state of a file: size in bytes, modification time, digest of the content.

    If there is a digest, it alone is compared.
    """

    size: int
    mtime_ns: int
    digest: str | None = None

    def describes_same_file(self, other: Stamp) -> bool:
        """Whether both stamps can be of the same state of a file."""
        if self.digest is not None and other.digest is not None:
            return self.digest == other.digest
        return self[:2] == other[:2]


class Extent(Struct, frozen=True, gc=False):
    """Where the rows of one input are in an output: `length` units from `at`.

    A unit is a byte, or a row of Parquet. In a compressed output, `at` and `length` locate the
    compressed members that hold the rows; the rows are `take` unpacked bytes after `skip` bytes. In
    a folder, an output belongs to one input: there `at` is the time of writing, in nanoseconds.
    """

    at: int
    length: int
    skip: int = 0
    take: int = 0

    def is_adjacent_to(self, later: Extent) -> bool:
        """Whether `later` begins where this extent ends."""
        return self.at + self.length == later.at

    def merged(self, later: Extent) -> Extent:
        """Return one extent of this and the adjacent `later` one."""
        return Extent(self.at, later.at + later.length - self.at, self.skip, self.take + later.take)


class Entry(Struct, frozen=True, gc=False):
    """The state of one input: its stamp, its outcome, its counts."""

    path: str  # the identity of the input
    stamp: Stamp
    outcome: Outcome
    read: int
    dropped: int
    rejected: int
    written: int
    done_at: str = ""
    letters: bytes = b""  # the input's lines in the dead letter file
    generation: int = 0
    # the place of its rows in the output with number `generation`; None if that is no file
    extent: Extent | None = None
    # For a large file that is unfinished or failed midway: the position up to which the entry
    # holds, as the fields of `records.Position`.
    reached: tuple[int, int, int, int] | None = None
    bookmark: str | None = None  # the bookmark of a feed, as JSON
    is_put_away: bool = False  # the run has moved or deleted the file: another may take its name


class LedgerJob(NamedTuple):
    """The job whose ledger entries a database holds."""

    fingerprint: str
    is_resuming: bool  # whether the run resumes the job
    # whether the input with an identity still has a stamp
    is_current: Callable[[str, Stamp], bool]


class Ledger(Protocol):
    """Read access to the ledger entries of one job.

    Methods raise the errors of the database that holds the entries.
    """

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        """Return the entries of the inputs that have one, by path."""
        ...

    def find(self, stamps: Sequence[Stamp]) -> Sequence[tuple[str, Stamp]]:
        """Return the inputs that had one of these stamps, and that added rows, with their stamps.

        Some may have another digest. Inputs that a run has put away are left out.
        """
        ...

    def close(self) -> None:
        """Release the connection."""
        ...
