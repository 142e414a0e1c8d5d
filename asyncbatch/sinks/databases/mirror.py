"""Mirrors: the files of the rows of a table, and the guard against an empty folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from msgspec import Struct

from asyncbatch.core.units import parse_share

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_MAX_DELETE = "20%"


class MaxDelete(Struct, frozen=True):
    """The largest number of files that may be gone, or with `is_percent` their share."""

    limit: float
    is_percent: bool = False

    @classmethod
    def parse(cls, text: str) -> MaxDelete:
        """Return the limit of `N` or `P%`. Raises ValueError that names both forms."""
        try:
            return cls(*parse_share(text))
        except ValueError:
            advice = f"{text!r} is neither a number of files (50) nor a percentage (20%)"
            raise ValueError(advice) from None

    def is_exceeded(self, gone: int, known: int) -> bool:
        """Whether too many of the `known` files are gone."""
        return gone * 100 > self.limit * known if self.is_percent else gone > self.limit

    def __str__(self) -> str:
        return f"{self.limit:g}{'%' if self.is_percent else ''}"


class LedgerLine(NamedTuple):
    """The part of a ledger entry that a mirror needs."""

    file: str  # the escaped identity, as in the column of the file
    written: int  # rows
    rejected: int  # records
    is_of_job: bool  # whether this job wrote it, and not another one with the same target


class GoneFiles(NamedTuple):
    """The files whose rows or outputs end, and those whose ledger entries do."""

    files: Sequence[str]
    entries: Sequence[str]
    rejected: Sequence[str] = ()  # files whose rejected records may have their place now


class Pruned(NamedTuple):
    """The outcome of a removal of files that are gone."""

    rows: int  # that were deleted or marked
    has_rows: bool  # whether the table has others


# Returns the gone ones of the files in a table and in its ledger. Raises UsageError if these are
# too many.
FindGone: TypeAlias = Callable[[Iterable[str], Iterable[LedgerLine]], GoneFiles]
