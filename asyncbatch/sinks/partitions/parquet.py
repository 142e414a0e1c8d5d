"""The sink for a partitioned target in Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.sinks.columns.block import ColumnBlock, join_blocks
from asyncbatch.sinks.parquet import ParquetSink
from asyncbatch.sinks.partitions.frames import PARTITION, make_frame
from asyncbatch.sinks.partitions.sink import PartitionedSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.settings import StoreSettings
    from asyncbatch.sinks.base import Nested, Refusal
    from asyncbatch.sinks.partitions.layout import PartitionLayout
    from asyncbatch.storage.atomic import AtomicFile

_BLOCK_ROWS = 10_000  # of a partition, which are loaded together


class PartitionedParquetSink(ParquetSink, PartitionedSink):
    """Partitions in Parquet. All have the same columns with the same types, as one file would have.

    So readers of the folder need not unite them. The stage has column blocks. The columns are
    known when all rows are in it.
    """

    def __init__(
        self,
        name: str,
        layout: PartitionLayout,
        stores: StoreSettings | None,
        nested: Nested,
        *,
        sorts_columns: bool,
    ) -> None:
        ParquetSink.__init__(self, name, stores, nested, sorts_columns=sorts_columns)
        self._nested: Nested = nested
        self.set_layout(name, layout, stores)
        self._names: Sequence[str] = ()

    @property
    def notes(self) -> Sequence[str]:
        return self.file_notes()

    def load(self, payload: ColumnBlock, groups: Sequence[int] | None = None) -> Sequence[Refusal]:
        place = payload.names.index(PARTITION)
        self._names = payload.values[place]
        others = [other for other in range(len(payload.names)) if other != place]
        return super().load(payload.fields(others), groups)

    def finish(self, *, succeeded: bool, ended: bool) -> bool:
        return PartitionedSink.finish(self, succeeded=succeeded, ended=ended)

    def complete(self) -> None:
        PartitionedSink.complete(self)

    def write_rows(self, file: AtomicFile, name: str) -> None:
        sink = ParquetSink(file.path, self._stores, self._nested, sorts_columns=self._sorts_columns)
        sink.file = file
        sink.adopt_columns(self)
        sink.open()
        for block in self._joined(name):
            self._check_abandoned()
            sink.load(block)
        sink.finish(succeeded=True, ended=True)

    def _joined(self, name: str) -> Iterator[ColumnBlock]:
        """Yield the rows of a partition in blocks of a good size."""
        blocks: list[ColumnBlock] = []
        for data in self.stage.rows(name):
            blocks.append(ColumnBlock.from_bytes(data))
            if sum(block.count for block in blocks) >= _BLOCK_ROWS:
                yield join_blocks(blocks)
                blocks = []
        if blocks:
            yield join_blocks(blocks)

    def _collect(self, block: ColumnBlock, rows: Sequence[int]) -> None:
        numbers: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            numbers.setdefault(self._names[row], []).append(number)
        for name, chosen in numbers.items():
            part = block if len(chosen) == block.count else block.select(chosen)
            self.stage.add(make_frame(name, part.to_bytes()))
