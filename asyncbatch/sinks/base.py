"""Where rows go: one target a module, all behind one small contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.entries import Entry, Extent

PayloadT = TypeVar("PayloadT", contravariant=True)  # noqa: PLC0105 - the variance shows in its use


class Refusal(Exception):  # noqa: N818 - data about one row; an exception only where it is raised
    """A row that the target rejects: its index in the loaded rows, from 0, and the reason."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(row, message)
        self.row, self.message = row, message


class OutputError(Exception):
    """The output for one input cannot be written; the message has the path and the reason.

    `is_lost`: no other output can be written either, for instance on a full disk.
    """

    def __init__(self, message: str, *, is_lost: bool = False) -> None:
        super().__init__(message)
        self.is_lost = is_lost


# Waits until an output is in place; returns its state. Raises OutputError.
Pending: TypeAlias = "Callable[[], Extent]"


class BatchSink(Protocol[PayloadT]):
    """A target for the rows of one run; used by one thread at a time."""

    def open(self) -> None:
        """Prepare for writing. Raises UsageError if the target is unusable, and unchanged."""
        ...

    def load(self, payload: PayloadT, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        """Write rows in the current transaction; return the rejected ones.

        `groups` has a number for each row: neighbours with the same number are rejected together.
        Raises SinkError if the target is lost; then no row since the last `commit` was written.
        """
        ...

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Commit the loaded rows, with the ledger entries of a database.

        Raises SinkError, see `load`.
        """
        ...

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End: `ended` if all input was read, `succeeded` if the run also succeeded.

        A file is put in place if `ended`, a replacing table if `succeeded`; otherwise they stay as
        they were. Returns whether the loaded rows count. Raises SinkError.
        """
        ...


# The form of a target. "program": an object of this process. "parts": no target; rows stay in the
# parts of the run, as JSON Lines.
Form = Literal[
    "stdout", "lines", "folder", "csv", "parquet", "sqlite", "duckdb", "postgres", "program",
    "parts",
]  # fmt: skip
Mode = Literal["append", "replace", "upsert"]
SchemaContract = Literal["evolve", "freeze", "discard"]
FolderFormat = Literal["keep", "json", "jsonl"]
FolderCompression = Literal["keep", "none", "gz", "bz2", "xz", "zst"]
