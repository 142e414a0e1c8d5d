"""The contract of all targets: `BatchSink`, `Refusal` and the forms of a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.core.ledger_entries import Entry, Extent

PayloadT = TypeVar("PayloadT", contravariant=True)  # noqa: PLC0105 - the variance shows in its use


class Refusal(Exception):  # noqa: N818 - data about one row; user code may raise it
    """A row that the target rejects: its index in the load (from 0) and the reason."""

    row: int
    message: str

    def __init__(self, row: int, message: str) -> None:
        super().__init__(row, message)
        self.row, self.message = row, message


class OutputError(Exception):
    """The output for one input cannot be written.

    The message has the path and the reason. `is_lost` is true if no other output can be written
    either, for instance on a full disk.
    """

    def __init__(self, message: str, *, is_lost: bool = False) -> None:
        super().__init__(message)
        self.is_lost = is_lost


# A function that waits until an output is complete, and returns its state. Raises OutputError.
Pending: TypeAlias = "Callable[[], Extent]"


class BatchSink(Protocol[PayloadT]):
    """A target for the rows of one run. It is used by one thread at a time.

    Call `open` first, then `load` and `commit` repeatedly, then `finish`.
    """

    def open(self) -> None:
        """Prepare the target for writing.

        Raises UsageError if the target is unusable; the target is then unchanged.
        """
        ...

    def load(self, payload: PayloadT, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        """Write rows in the current transaction; return the rejected rows.

        `groups` has a number for each row. Neighbouring rows with the same number are rejected
        together. Raises SinkError if the target is lost; no row since the last `commit` is then
        written.
        """
        ...

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Commit the loaded rows; a database commits the ledger entries with them.

        Raises SinkError as `load` does.
        """
        ...

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """End the run; return whether the loaded rows count.

        `ended`: all input was read. `succeeded`: the run also succeeded. A file is put in place if
        `ended`, and a replacement table if `succeeded`; otherwise the target stays as it was before
        the run. Raises SinkError.
        """
        ...


# The form of a target. "program": a sink object of the calling program. "parts": no target; rows
# stay in the parts of the run, as JSON Lines.
Form = Literal[
    "stdout", "lines", "folder", "csv", "parquet", "sqlite", "duckdb", "postgres", "program",
    "parts",
]  # fmt: skip
Mode = Literal["append", "replace", "upsert", "mirror"]
# The end of rows, or of an output, whose file is gone: "mark" sets the time in a column.
OnDelete = Literal["delete", "mark", "keep"]
SchemaContract = Literal["evolve", "freeze", "discard"]
# Arrays and objects in Parquet: STRUCT and LIST where these lose nothing, or JSON text.
Nested = Literal["native", "json"]
FolderFormat = Literal["keep", "json", "jsonl"]
FolderCompression = Literal["keep", "none", "gz", "bz2", "xz", "zst"]
