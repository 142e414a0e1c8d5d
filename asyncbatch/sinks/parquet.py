"""The Parquet sink: one file of typed columns."""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from asyncbatch.core.ledger_entries import Extent
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.sinks.column_block import (
    MAX_FIELDS,
    ColumnBlock,
    ColumnKind,
    Kind,
    integers_of,
    is_exact,
)
from asyncbatch.sinks.columns import NO_FIELDS, Columns, cells, make_refusals
from asyncbatch.sinks.text_files import FileSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.sinks.base import Refusal

ROW_GROUP = 100_000  # rows that are collected and written together

_TYPES: dict[ColumnKind, str] = {
    "null": "string",
    "boolean": "bool",
    "integer": "int64",
    "real": "float64",
    "text": "string",
}
# pyarrow types whose name differs from the name that creates them.
_NAMES = {"double": "float64"}


class ParquetSink(FileSink):
    """A Parquet file. Each column has the narrowest type that holds all its values.

    A file has one schema. When a later row needs another schema, the file is rewritten, one row
    group at a time.
    """

    goes_back = True

    def __init__(self, path: str, stores: StoreSettings | None = None) -> None:
        super().__init__(path, stores)
        self._arrow: Any
        self._parquet: Any
        self._writer: Any = None
        # The columns of the file. The waiting rows may need more columns, and wider ones.
        self._written: dict[str, ColumnKind] = {}
        self._columns = Columns({}, limit=MAX_FIELDS)
        # Columns with integers that are not exact as doubles.
        self._inexact: set[str] = set()
        self._waiting: list[ColumnBlock] = []
        self._kept: _KeptRows | None = None
        self.has_file = True  # false at the end if no record had a field
        # Numbers of rows: all, of the last load, waiting.
        self._rows = self._loaded = self._in_group = 0

    @property
    def notes(self) -> Sequence[str]:
        """The remark for the user at the end that there is no file."""
        if self.has_file:
            return ()
        return (f"no record had a field, so {self.file.path} was not written",)

    @property
    def position(self) -> int:
        """The number of rows."""
        return self._rows

    @property
    def row_sizes(self) -> list[int]:
        return [1] * self._loaded

    @property
    def _old(self) -> str:
        """The path of the earlier version while the file is rewritten."""
        return f"{self.file.temp_path}.old"

    def open(self) -> None:
        """Begin the file. Raises UsageError."""
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise UsageError(
                "writing Parquet needs one more package: pip install 'asyncbatch[parquet]'"
            ) from None
        self._arrow, self._parquet = pa, pq
        self.file.open()

    def load(self, payload: ColumnBlock, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        """Collect rows, and write them when a row group is full. Raises SinkError."""
        admitted = self._columns.admit(payload, groups)
        block, rows, refused = admitted.block, admitted.rows, admitted.refused
        if not block.names and not self._columns.kinds:
            self._loaded = 0
            return refused + make_refusals(dict.fromkeys(range(block.count), NO_FIELDS), rows)
        changes = self._columns.changes(block, lambda name: name not in self._inexact)
        self._columns.accept(admitted)
        self._columns.refresh(changes)
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if name not in self._inexact and not is_exact(integers_of(values, kind)):
                self._inexact.add(name)
        self._waiting.append(block)
        self._loaded = block.count
        self._rows += block.count
        self._in_group += block.count
        if self._in_group >= ROW_GROUP:
            self._write()
        return refused

    def keep(self, path: str, extent: Extent) -> Extent:
        at = self.position
        if self._kept is None or self._kept.path != path:
            self._release()
            self._kept = _KeptRows(path, self._parquet.ParquetFile(path))
        for rows in self._kept.rows(extent):
            self.load(_block_of(rows))
        return Extent(at, extent.length, 0, extent.take)

    def finish(self, *, succeeded: bool, ended: bool) -> bool:  # noqa: ARG002 - failures do not discard a file
        is_complete = False
        try:
            if ended and self._columns.kinds:
                self.complete()
                is_complete = True
            elif ended:  # readers refuse a file without columns
                with suppress(FileNotFoundError):
                    os.unlink(self.file.path)
                self.has_file = False
                return True
        finally:
            self._release()
            if not is_complete:
                self._discard()
        return is_complete

    def complete(self) -> None:
        self._write()
        self._close()
        super().complete()

    def _write(self) -> None:
        """Write the waiting rows as a row group."""
        arrow = self._arrow
        kinds = dict(sorted(self._columns.kinds.items(), key=lambda item: item[1] == "null"))
        try:
            if self._writer is None:
                self._begin(kinds)
            elif self._schema(kinds) != self._schema(self._written):
                self._rewrite(kinds)
            self._written = kinds
            chunks: dict[str, list[Any]] = {name: [] for name in kinds}
            for block in self._waiting:
                fields = dict(zip(block.names, self._columns.cells(block), strict=True))
                missing = [None] * block.count
                for name, kind in kinds.items():
                    values = fields.get(name, missing)
                    chunks[name].append(arrow.array(values, _TYPES[kind]))
            arrays = [
                arrow.chunked_array(chunks[name], _TYPES[kind]) for name, kind in kinds.items()
            ]
            table = arrow.table(arrays, schema=self._schema(kinds))
            if table.num_rows:
                self._writer.write_table(table, ROW_GROUP)
        except OSError as error:
            raise self.file.sink_error(error) from None
        except UsageError as error:  # the file could not be restarted
            raise SinkError(str(error)) from None
        self._waiting.clear()
        self._in_group = 0

    def _begin(self, kinds: dict[str, ColumnKind]) -> None:
        schema = self._schema(kinds)
        self._writer = self._parquet.ParquetWriter(self.file.stream, schema, compression="zstd")

    def _rewrite(self, kinds: dict[str, ColumnKind]) -> None:
        """Write the file again, with its rows and the new columns."""
        if self.file.temp_path == self.file.path:
            raise SinkError(
                f"cannot write {self.file.path}: a later row needs other columns, and this"
                " file cannot be read again to rewrite it"
            )
        arrow, had = self._arrow, self._written
        self._close()
        self.file.stream.close()
        os.rename(self.file.temp_path, self._old)
        self.file.open()
        self._begin(kinds)
        with self._parquet.ParquetFile(self._old) as old:
            for number in range(old.num_row_groups):
                group = old.read_row_group(number)
                arrays = []
                for name, kind in kinds.items():
                    if name in had and _TYPES[had[name]] == _TYPES[kind]:
                        arrays.append(group.column(name))
                    else:
                        values = [None] * group.num_rows
                        if had.get(name, "null") != "null":
                            values = cells(group.column(name).to_pylist(), _kind(had[name]), kind)
                        arrays.append(arrow.array(values, _TYPES[kind]))
                self._writer.write_table(arrow.table(arrays, schema=self._schema(kinds)))
        os.unlink(self._old)

    def _schema(self, kinds: dict[str, ColumnKind]) -> Any:
        return self._arrow.schema([(name, _TYPES[kind]) for name, kind in kinds.items()])

    def _close(self) -> None:
        """Write the footer of the file."""
        writer, self._writer = self._writer, None
        try:
            writer.close()
        except OSError as error:
            raise self.file.sink_error(error) from None

    def _release(self) -> None:
        if self._kept is not None:
            self._kept.file.close()
            self._kept = None

    def _discard(self) -> None:
        if self._writer is not None:
            with suppress(OSError, SinkError):  # a writer that failed fails again when it is closed
                self._close()
        self.file.discard()
        with suppress(OSError):  # it exists only during a rewrite
            os.unlink(self._old)


class _KeptRows:
    """The rows of an earlier file. One row group is cached: inputs come in order."""

    def __init__(self, path: str, file: Any) -> None:
        self.path, self.file = path, file
        groups = range(file.num_row_groups)
        counts = [file.metadata.row_group(number).num_rows for number in groups]
        self._starts = list(accumulate(counts, initial=0))
        self._number = -1
        self._group: Any = None

    def rows(self, extent: Extent) -> Iterator[Any]:
        """Yield the rows of an extent as pyarrow tables."""
        at, end = extent.at, extent.at + extent.length
        while at < end:
            number = bisect_right(self._starts, at) - 1
            if number != self._number:
                self._number, self._group = number, self.file.read_row_group(number)
            stop = min(end, self._starts[number + 1])
            yield self._group.slice(at - self._starts[number], stop - at)
            at = stop


def _block_of(table: Any) -> ColumnBlock:
    """Return the rows of a Parquet table as a block."""
    kinds = {declared: _kind(kind) for kind, declared in _TYPES.items() if kind != "null"}
    names: list[str] = table.column_names
    found: list[Kind] = [
        # A column without values is a column of texts in the file.
        "null" if column.null_count == len(column) else kinds[_NAMES.get(name, name)]
        for column, name in zip(table.columns, map(str, table.schema.types), strict=True)
    ]
    values = [column.to_pylist() for column in table.columns]
    return ColumnBlock(names, found, values, table.num_rows)


def _kind(kind: ColumnKind) -> Kind:
    """Return the kind of the values of a column, which is never "any" in a Parquet file."""
    return "text" if kind == "any" else kind
