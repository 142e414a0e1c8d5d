"""Groups of records over all inputs of a run: their settings, and records in columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.windows.events import by_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.windows.aggregates import Aggregate
    from asyncbatch.windows.events import Key

    # A key, the number of its records and their columns.
    KeyedColumns = tuple[Key, int, Sequence[Sequence[Any]]]


class GroupSettings(Struct, frozen=True):
    """The groups of records, and the aggregates of each."""

    by: tuple[str, ...]  # paths of the fields of the key; without one, all records are one group
    aggregates: tuple[Aggregate, ...]
    max_keys: int | None = None  # the limit of groups

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the result: the fields of the key, then the aggregates."""
        return (*self.by, *(one.name for one in self.aggregates))


class GroupColumns(Struct, frozen=True, array_like=True):
    """Records in columns: their keys (None without key fields), and the values of each field."""

    count: int  # number of records
    keys: Sequence[Key] | None
    columns: tuple[Sequence[Any], ...]

    def by_key(self) -> Iterator[KeyedColumns]:
        """Yield each key, its number of records and their columns, by first appearance."""
        return by_key(self.keys, self.columns, self.count)


def join_columns(parts: Sequence[GroupColumns]) -> GroupColumns:
    """Return the records of all parts, at least one, as one."""
    first, *rest = parts
    if not rest:
        return first
    keys = None
    if first.keys is not None:
        keys = [key for part in parts for key in part.keys or ()]
    columns = zip(*(part.columns for part in parts), strict=True)
    return GroupColumns(
        sum(part.count for part in parts),
        keys,
        tuple([value for values in column for value in values] for column in columns),
    )
