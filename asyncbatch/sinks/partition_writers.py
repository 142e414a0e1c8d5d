"""Row writers of partitioned targets: in the worker, they name the partition of each row."""

from __future__ import annotations

from itertools import compress, groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from asyncbatch.core.batches import Rows
from asyncbatch.formats.decoder import encode, encode_lines
from asyncbatch.sinks.column_block import make_block
from asyncbatch.sinks.partition_names import PARTITION, PartitionNamer, make_frame, read_frames
from asyncbatch.sinks.row_writer import (
    BlockWriter,
    CellsWriter,
    LinesWriter,
    RowWriter,
    cells_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncbatch.sinks.partition_layout import PartitionLayout
    from asyncbatch.sinks.row_writer import RowOutcome
    from asyncbatch.sinks.target import Target


class PartitionedLinesWriter(LinesWriter):
    """A row writer for partitions in JSON Lines: frames, each with rows of one partition.

    `keeps_order`: rows are not grouped beyond their neighbours, because deduplication keeps the
    first row of a key.
    """

    def __init__(self, target: Target, layout: PartitionLayout, *, keeps_order: bool) -> None:
        super().__init__(target)
        self._compression = None  # the sink compresses the files at the end
        self._namer, self._keeps_order = PartitionNamer(layout), keeps_order

    def encode(self, found: RowOutcome) -> Rows | None:
        if not found.rows:
            return None
        names = self._namer.names(found.rows)
        frames: list[bytes] = []
        ends, size = [], 0
        for start, end in pairwise((0, *(found.file_ends or [len(found.rows)]))):
            for name, rows in self._groups(names[start:end], found.rows[start:end]):
                frames.append(make_frame(name, encode_lines(rows)))
                size += len(frames[-1])
            ends.append(size)
        return Rows(b"".join(frames), len(found.rows), ends=ends)

    def _groups(self, names: list[str], rows: list[Any]) -> Iterable[tuple[str, list[Any]]]:
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
        wanted, old_size, size = iter(kept), 0, 0
        new_end = {0: 0}
        for name, lines in read_frames(rows.payload):
            old_size += len(make_frame(name, b"")) + len(lines)
            if left := list(compress(self._lines(bytes(lines)), wanted)):
                frames.append(make_frame(name, b"".join(left)))
                size += len(frames[-1])
            new_end[old_size] = size
        reduced = RowWriter.without_rows(self, rows, kept)
        reduced.payload, reduced.ends = b"".join(frames), [new_end[end] for end in rows.ends]
        return reduced

    def _payload_without(self, payload: bytes | bytearray, kept: Sequence[bool]) -> bytes:  # noqa: ARG002 - see `without_rows`
        return b""


class PartitionedCellsWriter(CellsWriter):
    """A row writer for partitions in CSV: each object has the name of its partition, too."""

    def __init__(self, layout: PartitionLayout, columns: Sequence[str]) -> None:
        super().__init__(columns)
        self._namer = PartitionNamer(layout)

    def _pack(self, rows: list[Any]) -> bytes:
        names = self._namer.names(rows)
        cells = [cells_of(row, self._paths) for row in rows]
        for name, row in zip(names, cells, strict=True):
            row[PARTITION] = name
        return encode(cells)


class PartitionedBlockWriter(BlockWriter):
    """A row writer for partitions in Parquet: a block with a column of the partitions' names."""

    def __init__(self, layout: PartitionLayout) -> None:
        self._namer = PartitionNamer(layout)

    def _pack(self, rows: list[Any]) -> bytes:
        block = make_block(rows)
        block.names.append(PARTITION)
        block.kinds.append("text")
        block.values.append(self._namer.names(rows))
        return block.to_bytes()


def make_partition_writer(
    target: Target, layout: PartitionLayout, *, keeps_order: bool
) -> RowWriter:
    """Return the row writer of a target with this layout, for `keeps_order` see above."""
    if target.form == "lines":
        return PartitionedLinesWriter(target, layout, keeps_order=keeps_order)
    if target.form == "csv":
        return PartitionedCellsWriter(layout, target.columns or ())
    return PartitionedBlockWriter(layout)
