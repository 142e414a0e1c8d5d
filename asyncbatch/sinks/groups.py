"""Aggregates as the target of a run: the sink adds up groups, and writes them at the end."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from asyncbatch.core.system import paused_collection
from asyncbatch.errors import SinkError, TooManyKeysError, UsageError
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.formats.decoder import encode, encode_lines
from asyncbatch.sinks.columns.block import ColumnBlock, make_block
from asyncbatch.sinks.databases.sql import fold
from asyncbatch.sinks.group_encoding import decode_groups, group_check
from asyncbatch.sinks.group_totals import GroupTotals
from asyncbatch.sinks.row_writer import cells_of
from asyncbatch.windows.groups import GroupColumns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.core.ledger_entries import Entry
    from asyncbatch.core.records import Json
    from asyncbatch.sinks.base import BatchSink, Refusal
    from asyncbatch.sinks.columns.block import Kind
    from asyncbatch.sinks.target import Target
    from asyncbatch.windows.aggregates import Totals
    from asyncbatch.windows.events import Key
    from asyncbatch.windows.groups import GroupSettings

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
    if target.layout is not None:
        raise UsageError(
            f"--to {target.name}: the result of --by and --agg is one file or table, not a file "
            "for each value: write {{ for a brace in the name"
        )
    if target.mode == "mirror":
        raise UsageError(
            "--mode mirror keeps the rows of each file, and the result of --by and --agg has none: "
            "choose --mode replace"
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
    """Raise UsageError for invalid groups or aggregates."""
    if not groups.aggregates:
        raise UsageError("name an aggregate: count")
    try:
        group_check(groups)
    except ValueError as error:
        raise UsageError(str(error)) from None


class GroupSink:
    """A sink that adds up the groups of all records, and writes them into `sink` at the end.

    `written` is the number of rows of the result.
    """

    def __init__(self, target: Target, groups: GroupSettings, sink: BatchSink[Any]) -> None:
        self._target, self._groups, self._sink = target, groups, sink
        self._totals = GroupTotals(groups)
        self._compression = compression_by_name(target.path) if target.form == "lines" else None
        # The keys of the rows so far, as the texts that columns of texts hold.
        self._known_keys: set[tuple[str, ...]] = set()
        self.written: int = 0

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
        try:
            with paused_collection():
                self._add(decode_groups(payload))
        except TooManyKeysError as error:
            raise SinkError(self._limit_message(error)) from None
        return ()

    def commit(self, entries: Sequence[Entry] = ()) -> None:
        """Do nothing: rows are written at the end."""

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        """Write the rows if all input was read; return whether they count. Raises SinkError."""
        count = 0
        try:
            if not ended:
                self._sink.finish(succeeded=False, ended=False)
                return False
            with paused_collection():
                rows = self._rows()
                while chunk := list(islice(rows, _LOAD_ROWS)):
                    self._load_rows(chunk)
                    count += len(chunk)
            self._sink.commit()
        except (SinkError, TooManyKeysError) as error:
            self._sink.finish(succeeded=False, ended=False)
            if isinstance(error, TooManyKeysError):
                raise SinkError(self._limit_message(error)) from None
            raise
        finally:
            self._totals.close()
        is_kept = self._sink.finish(succeeded=succeeded, ended=ended)
        self.written = count if is_kept else 0
        return is_kept

    def give_up(self) -> None:
        """End a blocked write. May be called from any thread."""
        if (give_up := getattr(self._sink, "give_up", None)) is not None:
            give_up()

    def _add(self, found: GroupColumns | Mapping[Key, Totals]) -> None:
        if isinstance(found, GroupColumns):
            self._totals.add(found)
        else:
            self._totals.merge(found)

    @staticmethod
    def _limit_message(error: TooManyKeysError) -> str:
        return (
            f"there are more than {error.most:,} groups: allow more with --max-keys, or group by "
            "another field"
        )

    def _rows(self) -> Iterator[dict[str, Any]]:
        for key, aggregates in self._totals.results():
            yield key | aggregates

    def _load_rows(self, rows: list[dict[str, Any]]) -> None:
        if self._target.mode == "upsert":
            self._check_keys(rows)
        for refusal in self._sink.load(self._payload(rows)):
            raise self._refused(rows[refusal.row], refusal.message)

    def _check_keys(self, rows: list[dict[str, Any]]) -> None:
        """Raise SinkError for a row that would replace another row of the result.

        The groups 1 and "1" have the same key in a column of texts. Groups of one kind have
        different keys, unless these are only a part of the group.
        """
        names = self._target.key
        if set(names) >= set(self._groups.by) and not self._totals.has_mixed_keys:
            return
        for row in rows:
            key = tuple(_column_text(row[name]) for name in names)
            if key in self._known_keys:
                message = f"an earlier row of the result has the same {', '.join(names)}"
                raise self._refused(row, message)
            self._known_keys.add(key)

    def _refused(self, row: dict[str, Any], message: str) -> SinkError:
        key = " ".join(f"{name}={encode(row[name]).decode()}" for name in self._groups.by)
        return SinkError(f"the row of {key or 'all records'} is rejected: {message}")

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


def _column_text(value: Json) -> str:
    """Return a scalar as a column of texts holds it."""
    return value if type(value) is str else encode(value).decode().removesuffix(".0")


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
