"""Where rows go: one target a module, all behind one small contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.entries import Entry, Extent

PayloadT = TypeVar("PayloadT", contravariant=True)  # noqa: PLC0105 - the variance shows in its use


class Refusal(Exception):  # noqa: N818 - data about one row; an exception only where it is raised
    """The target will not have one row: its number in what was loaded, from 0, and why."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(row, message)
        self.row, self.message = row, message


class OutputError(Exception):
    """The output for one input cannot be written; the message says which, and why.

    `is_lost` if no other output could be, either: the disk takes nothing more.
    """

    def __init__(self, message: str, *, is_lost: bool = False) -> None:
        super().__init__(message)
        self.is_lost = is_lost


Pending: TypeAlias = "Callable[[], Extent]"
"""Waits for an output to be in its place; returns the state it is in. Raises OutputError."""


class BatchSink(Protocol[PayloadT]):
    """A target for the rows of one run; used by one thread at a time."""

    def open(self) -> None:
        """Make ready. Raises UsageError if the target cannot be used; nothing was changed then."""
        ...

    def load(self, payload: PayloadT, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        """Write rows, all that are not refused, in the transaction at hand where there are any.

        Neighbours with one number in `groups` (an item a row) are refused together. Raises
        SinkError if the target is lost; nothing since the last `commit` was written then.
        """
        ...

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Make what was loaded last, with what a database's ledger is to say of it.

        Raises SinkError, see `load`.
        """
        ...

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End: `ended` if all input was taken, `succeeded` if also the run counts as good.

        Returns whether what was loaded stands (a file is put in place if `ended`, a table is
        replaced if `succeeded`; otherwise they are as they were). Raises SinkError.
        """
        ...


Form = Literal[
    "stdout", "lines", "folder", "csv", "parquet", "sqlite", "duckdb", "postgres", "program",
    "parts",
]  # fmt: skip
"""What a target is. That of a "program" is an object of the main process, which only that can
open; that of "parts" is none: rows, as JSON Lines, stay with the parts of a run."""
Mode = Literal["append", "replace", "upsert"]
SchemaContract = Literal["evolve", "freeze", "discard"]
FolderFormat = Literal["keep", "json", "jsonl"]
FolderCompression = Literal["keep", "none", "gz", "bz2", "xz", "zst"]
