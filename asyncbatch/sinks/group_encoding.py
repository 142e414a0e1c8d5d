"""The encoding of records for aggregates: as the totals of groups, or in columns."""

from __future__ import annotations

import pickle
from itertools import compress, groupby
from typing import TYPE_CHECKING, Any

from asyncbatch.transforms.required_fields import FieldsCheck, number_field, scalar_field
from asyncbatch.windows.aggregates import AggregateSet
from asyncbatch.windows.events import KeyFields
from asyncbatch.windows.groups import GroupColumns, join_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.windows.aggregates import Totals
    from asyncbatch.windows.events import Key
    from asyncbatch.windows.groups import GroupSettings

# The group of fewer records on average is sent as values: its totals would be larger.
_MIN_RECORDS_PER_GROUP = 8


def group_check(groups: GroupSettings) -> FieldsCheck:
    """Return the check that a record has the fields of the key and of the aggregates.

    Raises ValueError for an invalid path or a repeated name.
    """
    recipe = AggregateSet(groups.aggregates)
    numbers = recipe.number_fields
    return FieldsCheck(
        [
            *(scalar_field(path, "key field", "record") for path in groups.by),
            *(
                number_field(path, "record")
                if path in numbers
                else scalar_field(path, noun="record")
                for path in recipe.fields
            ),
        ]
    )


class GroupEncoder:
    """An encoder of records, as the sink of aggregates reads them.

    Unless it `folds`, records stay single, so that `without` can remove some of them.
    """

    def __init__(self, settings: GroupSettings, *, folds: bool) -> None:
        self._folds = folds
        self._fields = group_check(settings).fields
        self._keys, self._recipe = KeyFields(settings.by), AggregateSet(settings.aggregates)

    def encode(self, rows: Sequence[Any]) -> tuple[bytes, int]:
        """Return encoded records, and their number.

        A row is a record that passed `group_check`, or a `GroupColumns`, which has several.
        """
        parts: list[GroupColumns] = []
        for kind, some in groupby(rows, type):
            records = list(some)
            parts += records if kind is GroupColumns else [self._columns_of(records)]
        columns = join_columns(parts)
        payload: Any = columns
        if self._folds:
            groups = 1 if columns.keys is None else len(set(columns.keys))
            if groups * _MIN_RECORDS_PER_GROUP <= columns.count:
                payload = fold_groups(self._recipe, columns)
        return pickle.dumps(payload, pickle.HIGHEST_PROTOCOL), columns.count

    def without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:
        """Return the records that are kept, of those that are single."""
        found = decode_groups(payload)
        assert isinstance(found, GroupColumns)
        keys = None if found.keys is None else list(compress(found.keys, kept))
        columns = tuple(list(compress(column, kept)) for column in found.columns)
        return pickle.dumps(GroupColumns(sum(kept), keys, columns), pickle.HIGHEST_PROTOCOL)

    def _columns_of(self, records: Sequence[dict[str, Json]]) -> GroupColumns:
        columns = [one.column(records) for one in self._fields]
        by = len(self._keys.names)
        return GroupColumns(len(records), self._keys.column(columns[:by]), tuple(columns[by:]))


def fold_groups(recipe: AggregateSet, columns: GroupColumns) -> dict[Key, Totals]:
    """Return the totals of each group."""
    folded = {}
    for key, count, values in columns.by_key():
        totals = folded[key] = recipe.empty()
        totals.add(count, values)
    return folded


def decode_groups(payload: bytes | bytearray) -> GroupColumns | Mapping[Key, Totals]:
    """Return the records or totals that an encoder of this run has encoded."""
    found: GroupColumns | Mapping[Key, Totals] = pickle.loads(payload)  # noqa: S301 - as said above
    return found
