"""The Parquet sink: one file of typed columns."""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate
from typing import IO, TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.json import Decoder

from asyncbatch.core.ledger_entries import Extent
from asyncbatch.core.system import install_command, paused_collection
from asyncbatch.errors import SinkError, UsageError
from asyncbatch.formats.decoder import encode
from asyncbatch.sinks.columns.block import (
    MAX_FIELDS,
    ColumnBlock,
    ColumnKind,
    Kind,
    integers_of,
    is_exact,
)
from asyncbatch.sinks.columns.shapes import Shape, decode_texts, limit_parts, slices
from asyncbatch.sinks.columns.table import NO_FIELDS, Columns, cells, make_refusals
from asyncbatch.sinks.text_files import FileSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.sinks.base import Nested, Refusal

# Rows are collected and written together, up to the first of these limits.
ROW_GROUP = 100_000  # rows
GROUP_BYTES = 8 * 1024 * 1024  # of Arrow arrays
_MAX_CHUNKS = 32  # of a row group in the stage
_BLOCK_BYTES = 4 * 1024 * 1024  # of an earlier file, which become Python objects together

# The pyarrow type of a column, and of a part of a nested value, by its kind.
_TYPES: dict[str, str] = {
    "null": "string",
    "boolean": "bool",
    "integer": "int64",
    "real": "float64",
    "text": "string",
}
# The same for the kinds whose values become Arrow arrays as soon as they are loaded.
_LOADED_TYPES: dict[Kind, str] = {
    "boolean": "bool",
    "integer": "int64",
    "real": "float64",
    "text": "string",
    "json": "string",
}
# pyarrow types whose name differs from the name that creates them.
_NAMES = {"double": "float64"}
_ARRAY_BYTES = 512  # of an Arrow array without its values, roughly
_VALUE_BYTES = 64  # of a waiting Python object, roughly, without the characters of a text
# A column gets no dictionary if more than this share of the values in its first rows are distinct.
_MOST_DISTINCT = 0.95
_SAMPLE_ROWS = 1000
# The key of the file's metadata with the shapes of its columns, for runs that resume.
_SHAPES = b"asyncbatch.shapes"
_decode_shapes = Decoder(dict[str, Shape]).decode


class ParquetSink(FileSink):
    """A Parquet file. Each column has the narrowest type that holds all its values.

    A file has one schema. Rows are written to it at once while their schema stays the same and
    needs no later rows. Otherwise, they are staged, and the file is written from the stage at the
    end, one row group at a time. So are arrays and objects, whose STRUCT or LIST depends on all
    values. They are staged as JSON texts, from which any type is made without a loss.
    """

    goes_back = True

    def __init__(
        self,
        path: str,
        stores: StoreSettings | None = None,
        nested: Nested = "native",
        *,
        sorts_columns: bool = False,
    ) -> None:
        super().__init__(path, stores)
        self._sorts_columns = sorts_columns  # by name; else by the first value
        self._arrow: Any
        self._parquet: Any
        self._writer: Any = None
        self._is_native = nested == "native"
        # The columns of the file. The waiting rows may need more columns, and wider ones.
        self._written: dict[str, ColumnKind] = {}
        self._columns = Columns({}, limit=MAX_FIELDS)
        # Columns with integers that are not exact as doubles.
        self._inexact: set[str] = set()
        # The shapes of the columns that hold nothing but arrays and objects.
        self._shapes: dict[str, Shape] = {}
        self._waiting: list[_WaitingRows] = []
        self._stage: _Stage | None = None
        self._kept: _KeptRows | None = None
        self.has_file: bool = True  # false at the end if no record had a field
        # Numbers of rows: all, of the last load, waiting. The size of the waiting rows.
        self._rows = self._loaded = self._in_group = self._group_bytes = 0

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

    def open(self) -> None:
        """Begin the file. Raises UsageError."""
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise UsageError(
                f"writing Parquet needs one more package: {install_command('parquet')}"
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
        if self._is_native:
            self._add_shapes(block)
        self._columns.refresh(changes)
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if name not in self._inexact and not is_exact(integers_of(values, kind)):
                self._inexact.add(name)
        self._loaded = block.count
        self._rows += block.count
        self._collect(block, rows)
        return refused

    def adopt_columns(self, other: ParquetSink) -> None:
        """Write the columns of another sink, which has seen all rows. Call it before `load`."""
        self._columns = Columns(other._columns.kinds, limit=MAX_FIELDS)
        self._inexact, self._shapes, self._is_native = other._inexact, other._shapes, False

    def _collect(self, block: ColumnBlock, rows: Sequence[int]) -> None:  # noqa: ARG002 - used by partitions
        """Collect the accepted rows of a load, which had the numbers `rows` there."""
        waiting = self._to_arrow(block)
        self._waiting.append(waiting)
        self._in_group += waiting.count
        self._group_bytes += waiting.size
        if self._in_group >= ROW_GROUP or self._group_bytes >= GROUP_BYTES:
            self._write()

    def _to_arrow(self, block: ColumnBlock) -> _WaitingRows:
        """Return the rows as Arrow arrays, which need a fraction of the memory of their values.

        Values of other kinds stay Python objects until the kind of their column is known.
        """
        fields: dict[str, tuple[Kind, Any]] = {}
        size = 0
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if loaded := _LOADED_TYPES.get(kind):
                array = self._arrow.array(values, loaded)
                copies = 2 if kind == "json" else 1  # JSON texts are decoded as well
                size += _ARRAY_BYTES + copies * array.nbytes
                fields[name] = kind, array
            elif kind != "null":
                texts = 0 if kind == "number" else sum(map(len, filter(None, values)))
                size += block.count * _VALUE_BYTES + texts
                fields[name] = kind, values
        return _WaitingRows(block.count, fields, size)

    def _open_parquet(self, path: str) -> Any:
        # The library refuses names that are not UTF-8, unless they are bytes.
        return self._parquet.ParquetFile(self._arrow.OSFile(os.fsencode(path)))

    def _add_shapes(self, block: ColumnBlock) -> None:
        """Add a block's values to the shapes. The kinds of columns are those before the block."""
        for name, kind, values in zip(block.names, block.kinds, block.values, strict=True):
            if kind == "json":
                if self._columns.kinds.get(name, "null") == "null":
                    self._shapes[name] = Shape()
                if name in self._shapes:
                    with paused_collection():
                        self._shapes[name].add_texts(values)
            elif kind != "null":
                self._shapes.pop(name, None)

    def keep(self, path: str, extent: Extent) -> Extent:
        at = self.position
        if self._kept is None or self._kept.path != path:
            self._release()
            self._kept = _KeptRows(path, self._open_parquet(path))
        for block in self._kept.blocks(extent):
            self.load(block)
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
            if self._stage is not None:
                self._stage.close()
            if not is_complete:
                self._discard()
        return is_complete

    def complete(self) -> None:
        self._write()
        if self._writer is None:
            self._write_from_stage()
        self._close()
        super().complete()

    def _write(self) -> None:
        """Write the waiting rows as a row group, to the file or to the stage."""
        kinds = dict(sorted(self._columns.kinds.items(), key=self._column_order))
        has_other = self._writer is not None and self._schema(kinds) != self._schema(self._written)
        try:
            if self._stage is None and (has_other or self._shapes):
                self._begin_stage()
            table = self._waiting_table(kinds) if self._waiting else None
            if self._stage is None and self._writer is None:
                repeating = True if table is None else _repeating_columns(table)
                self._begin(self._schema(kinds), repeating)
            if table is None:
                pass
            elif self._stage is not None:
                self._stage.add(table, kinds)
            else:
                self._writer.write_table(table, ROW_GROUP)
            del table
        except OSError as error:
            raise self.file.sink_error(error) from None
        except UsageError as error:  # the file could not be restarted
            raise SinkError(str(error)) from None
        self._arrow.default_memory_pool().release_unused()
        self._written = kinds
        self._in_group = self._group_bytes = 0

    def _column_order(self, column: tuple[str, ColumnKind]) -> str | bool:
        name, kind = column
        return name if self._sorts_columns else kind == "null"

    def _waiting_table(self, kinds: Mapping[str, ColumnKind]) -> Any:
        """Return the waiting rows as a pyarrow table, with nested values as JSON texts."""
        arrow = self._arrow
        chunks: dict[str, list[Any]] = {name: [] for name in kinds}
        while self._waiting:  # the values of each are released when they are converted
            rows = self._waiting.pop(0)
            # Columns share the memory of their nulls: there may be thousands without a value.
            nulls = {
                declared: arrow.nulls(rows.count, declared) for declared in set(_TYPES.values())
            }
            for name, column_kind in kinds.items():
                declared = _TYPES[column_kind]
                if name not in rows.fields:
                    chunks[name].append(nulls[declared])
                    continue
                kind, values = rows.fields[name]
                loaded = _LOADED_TYPES.get(kind)
                if loaded == declared:
                    chunks[name].append(values)
                    continue
                if loaded:  # the column has become wider
                    values = values.to_pylist()
                chunks[name].append(arrow.array(cells(values, kind, column_kind), declared))
        arrays = [arrow.chunked_array(chunks[name], _TYPES[kind]) for name, kind in kinds.items()]
        return arrow.table(arrays, schema=self._schema(kinds))

    def _begin(self, schema: Any, dictionaries: bool | list[str] = True) -> None:
        """Begin the file. `dictionaries` has the columns to try a dictionary of values for."""
        self._writer = self._parquet.ParquetWriter(
            self.file.stream, schema, compression="zstd", use_dictionary=dictionaries
        )

    def _begin_stage(self) -> None:
        """Begin the stage with the row groups of the file, which begins again."""
        is_device = self.file.temp_path == self.file.path
        folder = None if is_device else os.path.dirname(self.file.temp_path)
        self._stage = _Stage(self._arrow, self._parquet, folder)
        if self._writer is None:
            return
        if is_device:
            raise SinkError(
                f"cannot write {self.file.path}: a later row needs other columns, and this"
                " file cannot be read again to rewrite it"
            )
        self._close()
        self.file.stream.flush()
        self._stage.begin_with(open(self.file.temp_path, "rb"), self._written)  # noqa: SIM115 - closed with the stage
        self.file.stream.close()
        os.unlink(self.file.temp_path)  # not needed by name, so nothing is left after a kill
        self.file.open()

    def _write_from_stage(self) -> None:
        """Write the file from the stage, with the columns of all rows."""
        kinds = self._written
        limit_parts(self._shapes.values())
        shapes = {name: shape for name, shape in self._shapes.items() if not shape.is_text}
        schema = self._schema(kinds, shapes)
        if self._shapes:
            schema = schema.with_metadata({_SHAPES: encode(self._shapes)})
        try:
            self._begin(schema)
            for table, had in self._stage.tables() if self._stage else ():
                arrays = []
                for name, kind in kinds.items():
                    old, declared = had.get(name, "null"), schema.field(name).type
                    if name in shapes and old != "null":
                        arrays.append(self._native_column(table.column(name), shapes[name]))
                    elif old == "null":
                        arrays.append(self._arrow.nulls(table.num_rows, declared))
                    elif _TYPES[old] == _TYPES[kind]:
                        arrays.append(table.column(name))
                    else:
                        values = cells(table.column(name).to_pylist(), _kind(old), kind)
                        arrays.append(self._arrow.array(values, declared))
                self._writer.write_table(self._arrow.table(arrays, schema=schema), ROW_GROUP)
                del table, arrays
                self._arrow.default_memory_pool().release_unused()
        except OSError as error:
            raise self.file.sink_error(error) from None

    def _native_column(self, column: Any, shape: Shape) -> Any:
        """Return a column of JSON texts as STRUCT or LIST."""
        declared = self._type_of(shape)
        arrays = []
        for chunk in column.chunks:
            for texts in slices(chunk.to_pylist()):
                with paused_collection():
                    arrays.append(self._arrow.array(shape.fit(decode_texts(texts)), declared))
        return self._arrow.chunked_array(arrays, declared)

    def _type_of(self, shape: Shape) -> Any:
        arrow = self._arrow
        if shape.is_text:
            return arrow.string()
        match shape.kind:
            case "object":
                return arrow.struct(
                    [(name, self._type_of(key)) for name, key in shape.keys.items()]
                )
            case "list":
                return arrow.list_(self._type_of(shape.items or Shape()))
            case kind:
                return arrow.type_for_alias(_TYPES[kind])

    def _schema(
        self, kinds: Mapping[str, ColumnKind], shapes: Mapping[str, Shape] | None = None
    ) -> Any:
        native = {name: self._type_of(shape) for name, shape in (shapes or {}).items()}
        return self._arrow.schema(
            [(name, native.get(name, _TYPES[kind])) for name, kind in kinds.items()]
        )

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


class _WaitingRows(Struct, frozen=True):
    """The rows of a load that wait for their row group."""

    count: int
    fields: dict[str, tuple[Kind, Any]]  # without those that have no values
    size: int  # in bytes, roughly


class _Stage:
    """Row groups in a file without a name, each with the columns that were needed by then."""

    def __init__(self, arrow: Any, parquet: Any, folder: str | None) -> None:
        self._arrow, self._parquet = arrow, parquet
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._first: IO[bytes] | None = None  # a Parquet file with the first row groups
        self._first_kinds: dict[str, ColumnKind] = {}
        self._groups: list[tuple[int, dict[str, ColumnKind]]] = []

    def begin_with(self, file: IO[bytes], kinds: dict[str, ColumnKind]) -> None:
        """Take over the row groups of an open Parquet file."""
        self._first, self._first_kinds = file, kinds

    def add(self, table: Any, kinds: dict[str, ColumnKind]) -> None:
        """Append a row group. Raises OSError."""
        self._groups.append((self._file.tell(), kinds))
        options = self._arrow.ipc.IpcWriteOptions(compression="zstd")
        with self._arrow.ipc.new_stream(self._file, table.schema, options=options) as stream:
            # A batch for each chunk, unless loads are small.
            is_split = table.num_columns and table.column(0).num_chunks > _MAX_CHUNKS
            stream.write_table(table.combine_chunks() if is_split else table)

    def tables(self) -> Iterator[tuple[Any, Mapping[str, ColumnKind]]]:
        """Yield each row group and the kinds of its columns. Raises OSError."""
        if self._first is not None:
            with self._parquet.ParquetFile(self._first) as file:
                for number in range(file.num_row_groups):
                    yield file.read_row_group(number), self._first_kinds
        for at, kinds in self._groups:
            self._file.seek(at)
            with self._arrow.ipc.open_stream(self._file) as stream:
                yield stream.read_all(), kinds

    def close(self) -> None:
        """Release the disk space."""
        with suppress(OSError):  # a buffer that could not be written fails again
            self._file.close()
        if self._first is not None:
            self._first.close()


class _KeptRows:
    """The rows of an earlier file. One row group is cached: inputs come in order."""

    def __init__(self, path: str, file: Any) -> None:
        self.path, self.file = path, file
        groups = range(file.num_row_groups)
        counts = [file.metadata.row_group(number).num_rows for number in groups]
        self._starts = list(accumulate(counts, initial=0))
        self._shapes = _decode_shapes((file.schema_arrow.metadata or {}).get(_SHAPES, b"{}"))
        self._number = -1
        self._group: Any = None

    def blocks(self, extent: Extent) -> Iterator[ColumnBlock]:
        """Yield the rows of an extent."""
        at, end = extent.at, extent.at + extent.length
        while at < end:
            number = bisect_right(self._starts, at) - 1
            if number != self._number:
                self._number, self._group = number, self.file.read_row_group(number)
            first, last = self._starts[number], self._starts[number + 1]
            most = max(1, _BLOCK_BYTES * (last - first) // max(1, self._group.nbytes))
            stop = min(end, last, at + most)
            yield _block_of(self._group.slice(at - first, stop - at), self._shapes)
            at = stop


def _block_of(table: Any, shapes: Mapping[str, Shape]) -> ColumnBlock:
    """Return the rows of a Parquet table as a block."""
    found = {declared: kind for kind, declared in _TYPES.items() if kind != "null"}
    kinds: list[Any] = []
    values: list[list[Any]] = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if shape := shapes.get(field.name):
            restored = map(shape.restored, column.to_pylist())
            values.append([None if one is None else encode(one).decode() for one in restored])
            kinds.append("json")
        else:
            values.append(column.to_pylist())
            # A column without values is a column of texts in the file.
            is_null = column.null_count == len(column)
            kinds.append("null" if is_null else found[_NAMES.get(str(field.type), str(field.type))])
    return ColumnBlock(table.column_names, kinds, values, table.num_rows)


def _repeating_columns(table: Any) -> list[str]:
    """Return the columns whose values seem to repeat: a dictionary of values is worth its time."""
    sample = table.slice(0, _SAMPLE_ROWS)
    return [
        name
        for name, column in zip(sample.column_names, sample.columns, strict=True)
        if len(set(column.to_pylist())) <= _MOST_DISTINCT * sample.num_rows
    ]


def _kind(kind: ColumnKind) -> Kind:
    """Return the kind of the values of a column, which is never "any" in a Parquet file."""
    return "text" if kind == "any" else kind
