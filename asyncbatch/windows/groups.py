"""Groups of records: the totals of each key, over all inputs of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from asyncbatch.errors import TooManyKeysError
from asyncbatch.windows.aggregates import Aggregate, AggregateSet, Totals
from asyncbatch.windows.events import KeyFields, by_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from asyncbatch.windows.events import Key

    # A key, the number of its records and their columns.
    KeyedColumns = tuple[Key, int, Sequence[Sequence[Any]]]


class GroupSettings(Struct, frozen=True):
    """The groups of records, and the aggregates of each."""

    by: tuple[str, ...]  # paths of the fields of the key; without one, all records are one group
    aggregates: tuple[Aggregate, ...]
    max_keys: int  # the limit of groups

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


class GroupTotals:
    """The totals of each group of a run. Their results do not depend on the order of records.

    Raises ValueError for a repeated name.
    """

    def __init__(self, settings: GroupSettings) -> None:
        self._recipe, self._keys = AggregateSet(settings.aggregates), KeyFields(settings.by)
        self._max_keys = settings.max_keys
        self._totals: dict[Key, Totals] = {}

    def __len__(self) -> int:
        return len(self._totals) or not self._keys.names

    def fold(self, groups: Iterable[KeyedColumns]) -> dict[Key, Totals]:
        """Return the totals of groups, which are not added."""
        folded = {}
        for key, count, columns in groups:
            totals = folded[key] = self._recipe.empty()
            totals.add(count, columns)
        return folded

    def add(self, found: GroupColumns) -> None:
        """Add records. Raises TooManyKeysError."""
        for key, count, columns in found.by_key():
            totals = self._totals.get(key)
            if totals is None:
                totals = self._add_group(key, self._recipe.empty())
            totals.add(count, columns)

    def merge(self, folded: Mapping[Key, Totals]) -> None:
        """Add the totals of more records. Raises TooManyKeysError."""
        for key, more in folded.items():
            totals = self._totals.get(key)
            if totals is None:
                self._add_group(key, more)
            else:
                totals.merge(more)

    def results(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the key and the aggregates of each group, in the order of the keys.

        Without key fields there is one group, also without records. Booleans come first, then
        numbers, then texts by code point.
        """
        if not self._totals and not self._keys.names:
            yield {}, {one.name: _EMPTY.get(one.kind) for one in self._recipe.aggregates}
        for key in sorted(self._totals, key=self._keys.order):
            yield self._keys.named(key), self._recipe.results(self._totals[key])

    def _add_group(self, key: Key, totals: Totals) -> Totals:
        if len(self._totals) >= self._max_keys:
            raise TooManyKeysError(self._max_keys)
        self._totals[key] = totals
        return totals


_EMPTY = {"count": 0, "distinct": 0}  # the results of no records; others are null
