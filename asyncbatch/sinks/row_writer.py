"""Row writers: they encode or write the rows of a target in the worker."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from itertools import accumulate, compress, groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Raw
from msgspec.json import Decoder

from asyncbatch.core.batches import Rows
from asyncbatch.formats.compression import compression_by_name
from asyncbatch.formats.decoder import decode, encode, encode_lines
from asyncbatch.sinks.columns.added import columns_between, encode_lines_with, rows_with
from asyncbatch.sinks.partitions.frames import PARTITION, make_frame, read_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncbatch.core.records import Json
    from asyncbatch.core.settings import FileWorkSettings
    from asyncbatch.sinks.base import Pending
    from asyncbatch.sinks.columns.added import Columns
    from asyncbatch.sinks.folder import MirroredOutput
    from asyncbatch.sinks.group_encoding import GroupEncoder
    from asyncbatch.sinks.partitions.layout import PartitionLayout
    from asyncbatch.sinks.target import Target


class RowOutcome(Protocol):
    """The rows of one or more files, and the records that they were made of."""

    # Each list up to `original_texts` has one item for each row, or is empty.
    rows: list[Any]
    added: dict[str, list[Any]]  # the values of columns that the rows get when they are encoded
    places: list[int]  # indexes of the files
    records: list[int]  # record numbers
    lines: list[int | None]
    original_texts: list[bytes]  # empty unless dead letters are kept
    has_many_rows: bool  # whether a record became more than one row
    file_ends: list[int]  # for each file, the number of rows up to its end
    # in place of rows, if the row writer takes lines: JSON Lines with their columns, the number of
    # their rows, and their size at each file's end
    encoded: list[bytes]
    encoded_rows: int
    encoded_ends: list[int]


class RowWriter:
    """The row writer without a target: it drops rows, which are counted elsewhere.

    The base of the other row writers. A worker calls `begin`, `take` and `end` (or `discard`) for
    each file, and `encode` for the rows that `take` leaves.
    """

    names_origins = False  # whether encoded rows have the numbers of their records
    takes_texts = False  # whether a row may also be compact JSON text (`msgspec.Raw`)
    takes_lines = False  # whether rows may also be compact JSON Lines, encoded already
    # Aborts unfinished outputs and starts no others. None: not needed. Called by another thread.
    abandon: Callable[[], None] | None = None

    def begin(self, path: str) -> None:
        """Start the output for the file at `path`."""

    def take(self, found: RowOutcome, *, single: bool) -> None:  # noqa: ARG002 - used by other writers
        """Write rows of the current file, or leave them to `encode`. Raises OutputError."""
        found.rows.clear()
        found.added.clear()

    def end(self) -> int:
        """End the current file; return its number of rows. Raises OutputError."""
        return 0

    def take_pending(self) -> Pending | None:
        """Return the pending upload of the last file's output, or None."""
        return None

    def discard(self) -> None:
        """End the current file without output."""

    def drop(self) -> None:
        """End a file that was read and gives no output any more. Raises OutputError."""

    def encode(self, found: RowOutcome) -> Rows | None:  # noqa: ARG002 - used by other writers
        """Return the rows of any number of files as the sink reads them, or None."""
        return None

    def without_rows(self, rows: Rows, kept: Sequence[bool]) -> Rows:
        """Return encoded rows without the rows that are False in `kept`, one item a row."""
        return Rows(
            self._payload_without(rows.payload, kept),
            sum(kept),
            list(compress(rows.file_indexes, kept)),
            list(compress(rows.records, kept)),
            list(compress(rows.lines, kept)),
            list(compress(rows.texts, kept)),
            rows.has_many_rows,
        )

    def _payload_without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:  # noqa: ARG002 - used by other writers
        """Return a payload with the kept rows only; without a target there are none."""
        return b""


_CHUNK_BYTES = 1024 * 1024  # of decompressed lines
_FEW_ROWS = 20  # of a file: the rows of so small files get their added columns at once


class LinesWriter(RowWriter):
    """A row writer that encodes JSON Lines, and compresses them for a compressed file."""

    takes_texts = True
    takes_lines = True

    def __init__(self, target: Target) -> None:
        self._compression = compression_by_name(target.path) if target.form == "lines" else None

    def take(self, found: RowOutcome, *, single: bool) -> None:
        """Leave the rows to `encode`."""

    def encode(self, found: RowOutcome) -> Rows | None:
        if found.encoded:
            lines = b"".join(found.encoded)
            ends = found.encoded_ends or [len(lines)]
            return Rows(self._compressed(lines), found.encoded_rows, ends=ends)
        if not found.rows:
            return None
        if len(found.file_ends) < 2:
            lines = encode_lines_with(found.rows, found.added)
            ends = [len(lines)] * max(1, len(found.file_ends))
        elif found.added and len(found.rows) < _FEW_ROWS * len(found.file_ends):
            lines = encode_lines_with(found.rows, found.added)
            row_ends = list(accumulate(map(len, lines.splitlines(keepends=True)), initial=0))
            ends = [row_ends[end] for end in found.file_ends]
        else:
            lines_of_files = [
                encode_lines_with(found.rows[start:end], columns_between(found.added, start, end))
                for start, end in pairwise((0, *found.file_ends))
            ]
            lines = b"".join(lines_of_files)
            ends = list(accumulate(map(len, lines_of_files)))
        return Rows(self._compressed(lines), len(found.rows), ends=ends)

    def without_rows(self, rows: Rows, kept: Sequence[bool]) -> Rows:
        reduced = super().without_rows(rows, kept)
        sizes = [len(line) for line in self._lines(rows.payload)]
        left = (size if is_kept else 0 for size, is_kept in zip(sizes, kept, strict=True))
        new_end = dict(zip(accumulate(sizes, initial=0), accumulate(left, initial=0), strict=True))
        reduced.ends = [new_end[end] for end in rows.ends]
        return reduced

    def _payload_without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:
        return self._compressed(b"".join(compress(self._lines(payload), kept)))

    def _lines(self, payload: bytes | bytearray) -> list[bytes]:
        """Return the lines of a payload, with their line ends."""
        if self._compression:
            payload = b"".join(self._compression.chunks(BytesIO(payload), _CHUNK_BYTES))
        return [line + b"\n" for line in bytes(payload).split(b"\n")[:-1]]

    def _compressed(self, lines: bytes) -> bytes:
        return self._compression.compress(lines) if self._compression else lines


class ObjectsWriter(RowWriter):
    """A row writer that encodes rows as a JSON array of objects, for the sink of a program."""

    names_origins = True

    def take(self, found: RowOutcome, *, single: bool) -> None:
        """Leave the rows to `encode`."""

    def encode(self, found: RowOutcome) -> Rows | None:
        if not found.rows:
            return None
        origins = (
            found.places,
            found.records,
            found.lines,
            found.original_texts,
            found.has_many_rows,
        )
        return Rows(self._pack(found.rows, found.added), len(found.rows), *origins)

    def _pack(self, rows: Sequence[Any], added: Columns) -> bytes:
        return encode(rows_with(rows, added))

    def _payload_without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:
        return encode(list(compress(decode(bytes(payload)), kept)))


class CellsWriter(ObjectsWriter):
    """A row writer for CSV: objects of the texts of cells. A null value stays null.

    CSV has no types. So a value that is not a string keeps its text, if the record is unchanged:
    1.10 and 1e2 stay as they are. Those of the named `columns` that are paths (a.b) get the nested
    value, unless there is a field of this name.
    """

    takes_texts = True

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self._paths: list[tuple[str, tuple[str, ...]]] = []
        if any("." in name or "/" in name for name in columns):
            from asyncbatch.transforms.fields import parse_path

            for name in columns:
                with suppress(ValueError):  # a name that is no path can only be that of a field
                    tokens = parse_path(name)
                    if tokens and tokens != (name,):
                        self._paths.append((name, tokens))

    def _pack(self, rows: Sequence[Any], added: Columns) -> bytes:
        rows = rows_with(rows, added)
        if all(type(row) is Raw for row in rows):  # at once, which is faster
            rows = _decode_keeping(b"[%b]" % b",".join(map(bytes, rows)))
        return encode([cells_of(row, self._paths) for row in rows])


# Decodes JSON values. Numbers that are not integers become their texts, to be encoded as such.
_decode_keeping = Decoder(float_hook=lambda text: Raw(text.encode())).decode
_KEPT_TYPES = frozenset((str, int, type(None)))


def cells_of(
    row: Json, paths: Sequence[tuple[str, tuple[str, ...]]] = ()
) -> dict[str, str | int | None]:
    """Return the cells of a row: an object, or its JSON text.

    `paths` has more cells by name, each with the tokens of its path.
    """
    if type(row) is Raw:
        row = _decode_keeping(row)
    if paths:
        from asyncbatch.transforms.fields import make_getter

        row = {
            name: value
            for name, tokens in paths
            if name not in row and (value := make_getter(tokens)(row)) is not None
        } | row
    if _KEPT_TYPES.issuperset(map(type, row.values())):
        return dict(row)
    return {
        name: value if type(value) in _KEPT_TYPES else encode(value).decode()
        for name, value in row.items()
    }


class BlockWriter(ObjectsWriter):
    """A row writer for tables and Parquet: a column block."""

    def _pack(self, rows: Sequence[Any], added: Columns) -> bytes:
        from asyncbatch.sinks.columns.block import make_block

        block = make_block(rows)
        return (block.with_columns(added) if added else block).to_bytes()

    def _payload_without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:
        from asyncbatch.sinks.columns.block import ColumnBlock

        dropped = {row for row, is_kept in enumerate(kept) if not is_kept}
        return ColumnBlock.from_bytes(payload).without(dropped).to_bytes()


class KeyedWriter(RowWriter):
    """A row writer that adds the digest of each row's key, for deduplication."""

    names_origins = True

    def __init__(self, row_writer: RowWriter, key: Sequence[str]) -> None:
        from asyncbatch.transforms.dedupe import KeyDigest

        self._row_writer, self._digest = row_writer, KeyDigest(key)
        self.takes_texts: bool = row_writer.takes_texts

    def take(self, found: RowOutcome, *, single: bool) -> None:
        """Leave the rows to `encode`."""

    def encode(self, found: RowOutcome) -> Rows | None:
        rows = self._row_writer.encode(found)
        if rows is not None:
            rows.records, rows.has_many_rows = found.records, found.has_many_rows
            all_rows = rows_with(found.rows, found.added)
            values = (decode(row) if type(row) is Raw else row for row in all_rows)
            rows.digests = list(map(self._digest, values))
            if not any(rows.digests):
                first = all_rows[0]
                rows.key_note = self._digest.missing_note(
                    decode(first) if type(first) is Raw else first
                )
        return rows


class GroupWriter(RowWriter):
    """A row writer that encodes records for aggregates."""

    def __init__(self, encoder: GroupEncoder) -> None:
        self._encoder = encoder

    def take(self, found: RowOutcome, *, single: bool) -> None:
        """Leave the rows to `encode`."""

    def encode(self, found: RowOutcome) -> Rows | None:
        return Rows(*self._encoder.encode(found.rows)) if found.rows else None

    def _payload_without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:
        return self._encoder.without(payload, kept)


class PartitionedLinesWriter(LinesWriter):
    """A row writer for partitions in JSON Lines: frames, each with rows of one partition.

    `keeps_order`: rows are not grouped beyond their neighbours, because deduplication keeps the
    first row of a key.
    """

    takes_lines = False

    def __init__(self, target: Target, layout: PartitionLayout, *, keeps_order: bool) -> None:
        from asyncbatch.sinks.partitions.names import PartitionNamer

        super().__init__(target)
        self._compression = None  # the sink compresses the files at the end
        self._namer, self._keeps_order = PartitionNamer(layout), keeps_order

    def encode(self, found: RowOutcome) -> Rows | None:
        if not found.rows:
            return None
        rows = rows_with(found.rows, found.added)
        names = self._namer.names(rows)
        frames: list[bytes] = []
        ends, size = [], 0
        for start, end in pairwise((0, *(found.file_ends or [len(rows)]))):
            for name, some in self._groups(names[start:end], rows[start:end]):
                frames.append(make_frame(name, encode_lines(some)))
                size += len(frames[-1])
            ends.append(size)
        return Rows(b"".join(frames), len(rows), ends=ends)

    def _groups(self, names: Sequence[str], rows: Sequence[Any]) -> Iterable[tuple[str, list[Any]]]:
        if self._keeps_order:
            return [
                (name, [row for _, row in group])
                for name, group in groupby(zip(names, rows, strict=True), itemgetter(0))
            ]
        groups: dict[str, list[Any]] = {}
        for name, row in zip(names, rows, strict=True):
            if (group := groups.get(name)) is None:
                groups[name] = [row]
            else:
                group.append(row)
        return groups.items()

    def without_rows(self, rows: Rows, kept: Sequence[bool]) -> Rows:
        frames: list[bytes] = []
        wanted, size = iter(kept), 0
        new_end = {0: 0}
        for name, start, end in read_frames(rows.payload):
            lines = self._lines(rows.payload[start:end])
            if left := [line for line in lines if next(wanted)]:
                frames.append(make_frame(name, b"".join(left)))
                size += len(frames[-1])
            new_end[end] = size
        reduced = RowWriter.without_rows(self, rows, kept)
        reduced.payload, reduced.ends = b"".join(frames), [new_end[end] for end in rows.ends]
        return reduced

    def _payload_without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:  # noqa: ARG002 - see `without_rows`
        return b""


class PartitionedCellsWriter(CellsWriter):
    """A row writer for partitions in CSV: each object has the name of its partition, too."""

    def __init__(self, layout: PartitionLayout, columns: Sequence[str]) -> None:
        from asyncbatch.sinks.partitions.names import PartitionNamer

        super().__init__(columns)
        self._namer = PartitionNamer(layout)

    def _pack(self, rows: Sequence[Any], added: Columns) -> bytes:
        rows = rows_with(rows, added)
        names = self._namer.names(rows)
        cells = [cells_of(row, self._paths) for row in rows]
        for name, row in zip(names, cells, strict=True):
            row[PARTITION] = name
        return encode(cells)


class PartitionedBlockWriter(BlockWriter):
    """A row writer for partitions in Parquet: a block with a column of the partitions' names."""

    def __init__(self, layout: PartitionLayout) -> None:
        from asyncbatch.sinks.partitions.names import PartitionNamer

        self._namer = PartitionNamer(layout)

    def _pack(self, rows: Sequence[Any], added: Columns) -> bytes:
        from asyncbatch.sinks.columns.block import make_block

        block = make_block(rows)
        if added:
            block = block.with_columns(added)
        block.names.append(PARTITION)
        block.kinds.append("text")
        block.values.append(self._namer.names(rows_with(rows, added)))
        return block.to_bytes()


class FolderWriter(RowWriter):
    """A row writer that writes mirrored outputs in the worker."""

    takes_texts = True

    def __init__(self, output: MirroredOutput[Json]) -> None:
        self._output = output
        self.begin, self.end, self.discard = output.begin, output.end, output.discard  # type: ignore[method-assign]  # the same methods, without another call
        self.drop = output.drop  # type: ignore[method-assign]  # the same method, without another call
        self.take_pending = output.take_pending  # type: ignore[method-assign]  # the same method, without another call
        self.abandon = output.abandon

    def take(self, found: RowOutcome, *, single: bool) -> None:
        self._output.write(rows_with(found.rows, found.added), single=single)
        found.rows.clear()
        found.added.clear()


def make_row_writer(
    target: Target | None, files: FileWorkSettings, dedupe: Sequence[str] = ()
) -> RowWriter:
    """Return the row writer of `target`, for inputs with these settings.

    `dedupe` has the key fields of deduplication, which a folder does not support.
    """
    if target is None:
        return RowWriter()
    if target.form == "folder" and target.is_remote:
        from asyncbatch.sinks.folder import ObjectOutput

        return FolderWriter(ObjectOutput(target, files))
    if target.form == "folder":
        from asyncbatch.sinks.folder import FolderOutput

        return FolderWriter(FolderOutput(target, files.format))
    row_writer: RowWriter
    if target.groups is not None:
        from asyncbatch.sinks.group_encoding import GroupEncoder

        row_writer = GroupWriter(GroupEncoder(target.groups, folds=not dedupe))
    elif target.layout is not None:
        row_writer = _make_partition_writer(target, target.layout, keeps_order=bool(dedupe))
    elif not target.is_table:
        row_writer = LinesWriter(target)
    elif target.columns_grow:
        row_writer = BlockWriter()
    else:
        is_csv = target.form == "csv"
        row_writer = CellsWriter(target.columns or ()) if is_csv else ObjectsWriter()
    return KeyedWriter(row_writer, dedupe) if dedupe else row_writer


def _make_partition_writer(
    target: Target, layout: PartitionLayout, *, keeps_order: bool
) -> RowWriter:
    if target.form == "lines":
        return PartitionedLinesWriter(target, layout, keeps_order=keeps_order)
    if target.form == "csv":
        return PartitionedCellsWriter(layout, target.columns or ())
    return PartitionedBlockWriter(layout)
