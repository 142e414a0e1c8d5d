"""Aggregates as the target of a run: workers fold the records, the sink writes the result."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import compress, groupby, islice
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from asyncbatch.core.batches import Rows
from asyncbatch.errors import SinkError, TooManyKeysError, UsageError
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.formats.decoder import encode, encode_lines
from asyncbatch.sinks.column_block import ColumnBlock, make_block
from asyncbatch.sinks.row_writer import RowWriter, cells_of
from asyncbatch.sinks.sql import fold
from asyncbatch.transforms.required_fields import FieldsCheck, number_field, scalar_field
from asyncbatch.windows.aggregates import AggregateSet
from asyncbatch.windows.events import KeyFields
from asyncbatch.windows.groups import GroupColumns, GroupTotals, join_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.ledger_entries import Entry
    from asyncbatch.core.records import Json
    from asyncbatch.sinks.base import BatchSink, Refusal
    from asyncbatch.sinks.column_block import Kind
    from asyncbatch.sinks.row_writer import RowOutcome
    from asyncbatch.sinks.target import Target
    from asyncbatch.windows.groups import GroupSettings

# The group of fewer records on average is sent as values: its totals would be larger.
_MIN_RECORDS_PER_GROUP = 8
_LOAD_ROWS = 10_000  # rows of the result in one load
# Aggregates whose column holds integers, if no value says more.
_INTEGERS = ("count", "distinct", "sum", "min", "max")


def grouped_target(target: Target, groups: GroupSettings, *, has_mode: bool = True) -> Target:
    """Return a target that gets the aggregates of all records in place of the records.

    `has_mode`: the user has chosen the mode or the key of a table. Raises UsageError.
    """
    _check_settings(groups)
    columns = groups.columns
    names = Counter(map(fold if target.form in ("sqlite", "duckdb") else str, columns))
    if (repeated := next((name for name, count in names.items() if count > 1), None)) is not None:
        raise UsageError(
            f"two columns of the result would be called {repeated!r}: write NAME= before the "
            "aggregate, or name each field once"
        )
    if target.form == "folder":
        raise UsageError(
            f"--to {target.name}: the result of --by and --agg is one file or table, not a folder; "
            f"write {target.name.rstrip('/')}.jsonl"
        )
    if target.is_database and not has_mode:
        raise UsageError(
            f"--to {target.name}: a run computes the result again from all inputs: choose --mode "
            "replace (the table then holds this result only), --mode append, or --key FIELDS "
            "(rows with the same key are replaced)"
        )
    if unknown := [name for name in target.key if name not in columns]:
        raise UsageError(
            f"--key {', '.join(unknown)}: the columns of the result are {', '.join(columns)}"
        )
    if target.form == "csv" and target.columns is None:
        target = replace(target, columns=columns)
    return replace(target, groups=groups)


def _check_settings(groups: GroupSettings) -> None:
    """Raise UsageError for invalid groups or aggregates, or a missing library."""
    if not groups.aggregates:
        raise UsageError("name an aggregate: count")
    try:
        group_check(groups)
    except ValueError as error:
        raise UsageError(str(error)) from None


def group_check(groups: GroupSettings) -> FieldsCheck:
    """Return the check that a record has the fields of the key and of the aggregates.

    Raises ValueError for an invalid path or repeated name, UsageError for a missing library.
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


class GroupWriter(RowWriter):
    """A row writer that sends records as totals of groups, or in columns.

    A row is a record that passed `group_check`, or a `GroupColumns`, which stands for several.
    Unless it `folds`, rows stay single, so that `without_rows` can remove some of them.
    """

    def __init__(self, settings: GroupSettings, *, folds: bool) -> None:
        self._folds = folds
        self._fields = group_check(settings).fields
        self._keys, self._totals = KeyFields(settings.by), GroupTotals(settings)

    def take(self, found: RowOutcome, *, single: bool) -> None:
        """Leave the rows to `encode`."""

    def encode(self, found: RowOutcome) -> Rows | None:
        if not found.rows:
            return None
        parts: list[GroupColumns] = []
        for kind, some in groupby(found.rows, type):
            rows = list(some)
            parts += rows if kind is GroupColumns else [self._columns_of(rows)]
        columns = join_columns(parts)
        payload: Any = columns
        if self._folds:
            groups = list(columns.by_key())
            if len(groups) * _MIN_RECORDS_PER_GROUP <= columns.count:
                payload = self._totals.fold(groups)
        return Rows(pickle.dumps(payload, pickle.HIGHEST_PROTOCOL), columns.count)

    def _columns_of(self, records: Sequence[dict[str, Json]]) -> GroupColumns:
        columns = [one.column(records) for one in self._fields]
        by = len(self._keys.names)
        return GroupColumns(len(records), self._keys.column(columns[:by]), tuple(columns[by:]))

    def _payload_without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:
        found: GroupColumns = pickle.loads(payload)  # noqa: S301 - a worker of this run made it
        keys = None if found.keys is None else list(compress(found.keys, kept))
        columns = tuple(list(compress(column, kept)) for column in found.columns)
        return pickle.dumps(GroupColumns(sum(kept), keys, columns), pickle.HIGHEST_PROTOCOL)


class GroupSink:
    """A sink that adds up the groups of all records, and writes them into `sink` at the end.

    `written` is the number of rows of the result.
    """

    def __init__(self, target: Target, groups: GroupSettings, sink: BatchSink[Any]) -> None:
        self._target, self._groups, self._sink = target, groups, sink
        self._totals = GroupTotals(groups)
        self._compression = compression_by_name(target.path) if target.form == "lines" else None
        self.written = 0

    @property
    def notes(self) -> Sequence[str]:
        """The notes of the sink of the rows."""
        return getattr(self._sink, "notes", ())

    def open(self) -> None:
        """Open the sink of the rows. Raises UsageError."""
        self._sink.open()

    def load(
        self,
        payload: bytes | bytearray,
        groups: Sequence[int] | None = None,  # noqa: ARG002 - no record is rejected here
    ) -> Sequence[Refusal]:
        """Add the records of a part. Raises SinkError for too many groups."""
        found = pickle.loads(payload)  # noqa: S301 - a worker of this run made it
        try:
            if isinstance(found, GroupColumns):
                self._totals.add(found)
            else:
                self._totals.merge(found)
        except TooManyKeysError as error:
            raise SinkError(
                f"there are more than {error.most:,} groups: allow more with --max-keys, "
                "or group by another field"
            ) from None
        return ()

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: rows are written at the end."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """Write the rows if all input was read; return whether they count. Raises SinkError."""
        if not ended:
            self._sink.finish(succeeded=False, ended=False)
            return False
        try:
            rows = self._rows()
            while chunk := list(islice(rows, _LOAD_ROWS)):
                self._load_rows(chunk)
            self._sink.commit()
        except SinkError:
            self._sink.finish(succeeded=False, ended=False)
            raise
        is_kept = self._sink.finish(succeeded=succeeded, ended=ended)
        self.written = len(self._totals) if is_kept else 0
        return is_kept

    def give_up(self) -> None:
        """End a blocked write. May be called from any thread."""
        if (give_up := getattr(self._sink, "give_up", None)) is not None:
            give_up()

    def _rows(self) -> Iterator[dict[str, Any]]:
        for key, aggregates in self._totals.results():
            yield key | aggregates

    def _load_rows(self, rows: list[dict[str, Any]]) -> None:
        for refusal in self._sink.load(self._payload(rows)):
            row = rows[refusal.row]
            key = " ".join(f"{name}={encode(row[name]).decode()}" for name in self._groups.by)
            raise SinkError(f"the row of {key or 'all records'} is rejected: {refusal.message}")

    def _payload(self, rows: list[dict[str, Any]]) -> Any:
        """Return rows in the form that the sink takes."""
        match self._target.form:
            case "stdout" | "lines":
                lines = encode_lines(rows)
                return self._compression.compress(lines) if self._compression else lines
            case "csv":
                return list(map(cells_of, rows))
            case "program":
                return rows
            case _:
                return self._block(rows)

    def _block(self, rows: list[dict[str, Any]]) -> ColumnBlock:
        """Return rows as a block in which a column without values has a kind, in its place."""
        block = make_block(rows)
        declared: dict[str, Kind] = {
            one.name: "integer" if one.kind in _INTEGERS else "real"
            for one in self._groups.aggregates
        }
        kinds = [
            declared.get(name, kind) if kind == "null" else kind
            for name, kind in zip(block.names, block.kinds, strict=True)
        ]
        found = ColumnBlock(block.names, kinds, block.values, block.count)
        return found.fields([block.names.index(name) for name in self._groups.columns])


class GroupRows:
    """The sink of a result that a command shows. `rows` are there once all input was read."""

    def __init__(self, by: Sequence[str]) -> None:
        self.rows: list[dict[str, Any]] = []
        self._by = by

    def objects(self) -> list[dict[str, Any]]:
        """Return the key and the aggregates of each group."""
        return [
            {
                "key": {name: row[name] for name in self._by},
                "aggregates": {name: row[name] for name in row if name not in self._by},
            }
            for row in self.rows
        ]

    def open(self) -> None:
        """Do nothing."""

    def load(
        self,
        payload: list[dict[str, Any]],
        groups: Sequence[int] | None = None,  # noqa: ARG002 - it rejects no row
    ) -> Sequence[Refusal]:
        """Keep rows."""
        self.rows += payload
        return ()

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - good inputs count
        """Return whether the rows count."""
        return ended
