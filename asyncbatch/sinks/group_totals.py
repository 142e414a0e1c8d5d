"""The totals of each group of a run, in memory and in temporary files."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby, repeat
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncbatch.errors import TooManyKeysError
from asyncbatch.storage.sorted_runs import SortedRuns
from asyncbatch.windows.aggregates import AggregateSet
from asyncbatch.windows.events import Key, KeyFields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from asyncbatch.windows.aggregates import Totals
    from asyncbatch.windows.groups import GroupColumns, GroupSettings

MEMORY_GROUPS = 500_000  # groups in memory, some 300 bytes each if they have few records
MEMORY_VALUES = 4_000_000  # values of groups with few records in memory, up to 40 bytes each
_FEW_VALUES = 16  # the totals of a group take as much memory as this number of values

# The value of a record: that of its only field, or a tuple of the values of several fields.
_Value: TypeAlias = Any


# Some records of one group: its key, the totals of many, and the values of a few others (or their
# number, if the aggregates have no fields). A plain tuple, as pickling millions takes long.
_PartialGroup: TypeAlias = "tuple[Any, Totals | None, list[_Value] | int]"


class GroupTotals:
    """The totals of each group of a run. Their results do not depend on the order of records.

    Most groups of many have few records, so the values of these are kept as they are. Groups that
    exceed `most_in_memory`, or whose values do, go to temporary files, sorted by their keys.

    Raises ValueError for a repeated name.
    """

    def __init__(
        self,
        settings: GroupSettings,
        most_in_memory: int = MEMORY_GROUPS,
        most_values: int = MEMORY_VALUES,
    ) -> None:
        self._recipe, self._keys = AggregateSet(settings.aggregates), KeyFields(settings.by)
        self._max_keys = inf if settings.max_keys is None else settings.max_keys
        self._most, self._most_values = most_in_memory, most_values
        self._totals: dict[Key, Totals] = {}
        self._counts: Counter[Key] = Counter()  # if the aggregates have no fields
        self._values = defaultdict[Any, list[_Value]](list)
        self._value_count = 0
        self._runs = SortedRuns[_PartialGroup]()
        self._kinds: set[tuple[str, ...] | None] = set()  # of the keys of each run

    def close(self) -> None:
        """Remove the temporary files."""
        self._runs.close()

    def add(self, found: GroupColumns) -> None:
        """Add records. Raises TooManyKeysError, SinkError."""
        if found.keys is None:
            self._totals.setdefault((), self._recipe.empty()).add(found.count, found.columns)
            return
        if not found.columns:
            self._counts.update(found.keys)
        else:
            is_single = len(found.columns) == 1
            rows = found.columns[0] if is_single else zip(*found.columns, strict=True)
            values = self._values
            for key, row in zip(found.keys, rows, strict=True):
                values[key].append(row)
            self._value_count += found.count
        self._bound()

    def merge(self, folded: Mapping[Key, Totals]) -> None:
        """Add the totals of more records. Raises TooManyKeysError, SinkError."""
        merge_totals(self._totals, folded.items())
        self._bound()

    def results(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the key and the aggregates of each group, in the order of the keys.

        Without key fields there is one group, also without records. Booleans come first, then
        numbers, then texts by code point. Raises TooManyKeysError, SinkError.
        """
        if not self._totals and not self._keys.names:
            yield {}, {one.name: _EMPTY.get(one.kind) for one in self._recipe.aggregates}
        last = self._sorted()
        groups: Iterable[tuple[Key, Iterable[_PartialGroup]]] = ((one[0], (one,)) for one in last)
        if self._runs:
            groups = groupby(self._runs.merged(last, self._order), itemgetter(0))
        for number, (key, parts) in enumerate(groups):
            if number >= self._max_keys:
                raise TooManyKeysError(int(self._max_keys))
            yield self._keys.named(key), self._aggregates(list(parts))

    @property
    def has_mixed_keys(self) -> bool:
        """Whether a key field has values of several kinds. Known once `results` has begun."""
        return None in self._kinds or len(self._kinds) > 1

    @property
    def _order(self) -> Callable[[_PartialGroup], Any]:
        """The order of the groups of all runs: that of their keys, if all are of one kind."""
        is_plain = len(self._kinds) == 1 and None not in self._kinds
        return itemgetter(0) if is_plain else lambda group: self._keys.order(group[0])

    def _bound(self) -> None:
        """Make room if there is too much in memory. Raises TooManyKeysError, SinkError."""
        is_full = False
        if self._value_count > self._most_values:
            self._fold()
            is_full = self._value_count > self._most_values // 2
        count = len(self._totals) + len(self._counts) + len(self._values)
        if count > self._max_keys and len(self._known_keys()) > self._max_keys:
            raise TooManyKeysError(int(self._max_keys))
        if is_full or count > self._most:
            groups = self._sorted()
            self._runs.add(groups, self._order)
            self._forget()

    def _fold(self) -> None:
        """Replace the values of each group that has many of them by its totals."""
        for key in [key for key, values in self._values.items() if len(values) > _FEW_VALUES]:
            values = self._values.pop(key)
            self._value_count -= len(values)
            totals = self._totals.setdefault(key, self._recipe.empty())
            totals.add(*_columns(values, self._recipe))

    def _forget(self) -> None:
        self._totals.clear()
        self._counts.clear()
        self._values.clear()
        self._value_count = 0

    def _known_keys(self) -> set[Key]:
        return self._totals.keys() | self._counts.keys() | self._values.keys()

    def _sorted(self) -> Iterator[_PartialGroup]:
        """Return the groups in memory, in the order of their keys."""
        keys = self._known_keys()
        if keys:
            self._kinds.add(self._keys.kinds(keys))
        ordered = self._keys.sorted(keys)
        rest: Mapping[Key, list[_Value] | int] = (
            self._values if self._recipe.fields else self._counts
        )
        return zip(
            ordered, map(self._totals.get, ordered), map(rest.get, ordered, repeat(0)), strict=True
        )

    def _aggregates(self, parts: Sequence[_PartialGroup]) -> dict[str, Any]:
        """Return the aggregates of all parts of one group."""
        found: Any = [values for _, _, values in parts if values]
        if self._recipe.fields:
            found = found[0] if len(found) == 1 else [one for values in found for one in values]
        else:
            found = sum(found)
        whole: Totals | None = None
        for _, totals, _ in parts:
            if totals is not None and whole is not None:
                whole.merge(totals)
            elif totals is not None:
                whole = totals
        if whole is None:
            return self._recipe.results_of(*_columns(found, self._recipe))
        if found:
            whole.add(*_columns(found, self._recipe))
        return self._recipe.results(whole)


def merge_totals(into: dict[Key, Totals], more: Iterable[tuple[Key, Totals]]) -> None:
    """Add the totals of each group to those of `into`, which keeps them."""
    for key, totals in more:
        known = into.setdefault(key, totals)
        if known is not totals:
            known.merge(totals)


def _columns(
    values: Sequence[_Value] | int, recipe: AggregateSet
) -> tuple[int, Sequence[Sequence[Any]]]:
    """Return the number of the records of these values, and their columns."""
    if isinstance(values, int):
        return values, ()
    if len(recipe.fields) == 1:
        return len(values), (values,)
    return len(values), list(zip(*values, strict=True))


_EMPTY = {"count": 0, "distinct": 0}  # the results of no records; others are null
