"""The rows of each input in a file that is written: where they are, and where they were before.

A file is always written anew. Rows of inputs that an earlier run did are copied from the file that
it wrote, finished or not, in the place where they belong now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.entries import Extent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncbatch.journal import StoreJournal
    from asyncbatch.ledger.store import Generation
    from asyncbatch.records import BatchPart, Rows
    from asyncbatch.sinks.single import FileSink


NOWHERE = Extent(0, 0)
"""Where the rows are of a file that has none."""


class KeptRows:
    """Tells a journal the extents of rows in what `sink` writes; copies from `generations`.

    `compressed` if the rows of a part are compressed together.
    """

    def __init__(
        self,
        sink: FileSink,
        journal: StoreJournal,
        generations: Mapping[int, Generation],
        *,
        compressed: bool,
    ) -> None:
        self.sink = sink
        self._journal, self._generations = journal, generations
        self._compressed = compressed

    def add_lines(self, found: BatchPart, rows: Rows | None, at: int) -> None:
        """Take note of a part whose rows, if any, were written from `at` on. Raises SinkError."""
        part = found.part
        if part.entries:
            self._journal.add(found, self.copy(found))
        elif rows is None:
            self._journal.add(found, [Extent(at, 0)] * max(1, len(part)))
        else:
            self._journal.add(found, self._extents(rows.ends, at))

    def _extents(self, ends: Sequence[int], at: int) -> list[Extent]:
        whole = self.sink.position - at
        extents, start = [], 0
        for end in ends:
            if self._compressed:
                extents.append(Extent(at, whole if end > start else 0, start, end - start))
            else:
                extents.append(Extent(at + start, end - start, 0, end - start))
            start = end
        return extents

    def add(self, found: BatchPart, extents: Sequence[Extent | None]) -> None:
        """Take note of a part whose rows, if any, were written there. Raises SinkError."""
        count = max(1, len(found.part))
        self._journal.add(found, [extent or NOWHERE for extent in extents or [None] * count])

    def begins(self, found: BatchPart) -> bool:
        """Whether rows of an earlier run belong before those of this part; see `go_on`."""
        return self._journal.begun(found) is not None

    def go_on(self, found: BatchPart) -> None:
        """Write what an earlier run has made of a file that is now taken up. Raises SinkError."""
        if begun := self._journal.begun(found):
            extent = None
            if begun.extent is not None and begun.extent.length:
                extent = self.sink.keep(self._generations[begun.generation].path, begun.extent)
            self._journal.go_on(found, begun, extent)

    def copy(self, found: BatchPart) -> list[Extent | None]:
        """Write the rows of files that were done before; return where they are now.

        Raises SinkError.
        """
        extents: list[Extent | None] = [None] * len(found.part)
        for place, entry in found.part.entries.items():
            extents[place] = NOWHERE
            if entry.extent is not None and entry.extent.length:
                source = self._generations[entry.generation]
                extents[place] = self.sink.keep(source.path, entry.extent)
        return extents
