"""What is remembered of one input that is done, and of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FileStatus = Literal["success", "partial", "failed", "skipped"]
Outcome = FileStatus | Literal["begun"]


class Stamp(NamedTuple):
    """What tells one state of a file from another: size in bytes, time of change, contents.

    `digest` is there if contents are compared, and then it alone counts.
    """

    size: int
    mtime_ns: int
    digest: str | None = None

    def describes_same_file(self, other: Stamp) -> bool:
        """Whether both are of the same state of a file, as far as that can be told."""
        if self.digest is not None and other.digest is not None:
            return self.digest == other.digest
        return self[:2] == other[:2]


class Extent(Struct, frozen=True, gc=False):
    """Where in an output the rows of one input are: `length` units from `at` on.

    Units are bytes, in Parquet rows. Of a compressed file that is where the pieces lie that hold
    them: the rows are `take` bytes of what these unpack to, from number `skip` on. An output of
    one input alone, in a folder, is told from what others have made of it: `at` is when it was
    written, in ns.
    """

    at: int
    length: int
    skip: int = 0
    take: int = 0

    def is_adjacent_to(self, later: Extent) -> bool:
        """Whether `later` begins where this ends."""
        return self.at + self.length == later.at

    def merged(self, later: Extent) -> Extent:
        """Return this and one that follows on it as one."""
        return Extent(self.at, later.at + later.length - self.at, self.skip, self.take + later.take)


class Entry(Struct, frozen=True, gc=False):
    """An input that is done: which one, what became of it, its counts.

    `path` is its identity (see `identity`). `letters` are its lines of a dead letter file.
    `extent` is where its rows are in the output number `generation`, if that is a file. Of a
    huge file that is `begun`, or failed in its midst, `reached` is the position up to which all
    this holds (the fields of `records.Position`). `bookmark` is how far a feed has come, as JSON.
    """

    path: str
    stamp: Stamp
    outcome: Outcome
    read: int
    dropped: int
    rejected: int
    written: int
    done_at: str = ""
    letters: bytes = b""
    generation: int = 0
    extent: Extent | None = None
    reached: tuple[int, int, int, int] | None = None
    bookmark: str | None = None


class LedgerJob(NamedTuple):
    """Whose entries a database keeps: the job's fingerprint, and whether it is carried on.

    `is_current` tells of an input, by its identity, whether it is still in this state.
    """

    fingerprint: str
    carries_on: bool
    is_current: Callable[[str, Stamp], bool]


class Ledger(Protocol):
    """Entries of one job, to be read. Raises what the database behind it raises."""

    def lookup(self, paths: Sequence[str]) -> Mapping[str, Entry]:
        """Return the entries of those of these inputs that have one."""
        ...

    def find(self, stamp: Stamp) -> Sequence[str]:
        """Return the inputs that were in this very state, and brought rows."""
        ...

    def close(self) -> None:
        """Let go of what is behind it."""
        ...
