"""From parts to entries of a ledger: what is done is written down when it is safe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncbatch.entries import Entry, Extent, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.ledger.store import Store
    from asyncbatch.records import BatchPart

CHECKPOINT_SECONDS = 1.0
"""How often it is made sure that what is done stays so: syncing a disk takes time."""

Known = dict[str, tuple[str, Stamp]]
"""The identity and state of each input, by path, as it was before it was read."""


class Journal:
    """Makes entries of files that are through; for output number `generation`."""

    def __init__(self, known: Known, *, generation: int = 0) -> None:
        self.generation = generation
        self._known = known
        self._unfinished: dict[int, tuple[int, bytes, Extent | None]] = {}
        """Rows, letters and extent so far of files whose last part is still to come, by batch."""

    def entries(self, found: BatchPart, extents: Sequence[Extent | None] = ()) -> list[Entry]:
        """Return the entries of the files that a part finishes.

        `extents` are those of the rows of each, and at last of an unfinished one's.
        """
        part = found.part
        letters = _letters(found)
        if not len(part):
            self._begin_more(found, letters.get(0, b""), extents[0] if extents else None)
            return []
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entries = []
        for place in range(len(part)):
            path = found.batch.paths[part.start - found.batch.start + place]
            extent = extents[place] if extents else None
            if (kept := part.entries.get(place)) is not None:
                moved = _moved(kept, self.generation, extent)
                if moved != kept:
                    entries.append(moved)
                continue
            rows, noted = part.made[place] if part.made else 0, letters.get(place, b"")
            if place == 0 and found.batch.start in self._unfinished:
                before, earlier, begun = self._unfinished.pop(found.batch.start)
                rows, noted = rows + before, earlier + noted
                extent = begun.joined(extent) if begun and extent else begun or extent
            if (known := self._known.pop(path, None)) is None:
                continue
            entries.append(
                Entry(
                    known[0], known[1], part.status(place), part.records[place],
                    part.dropped.get(place, 0), part.rejected.get(place, 0), rows,
                    now, noted, self.generation, extent,
                )
            )  # fmt: skip
        return entries

    def _begin_more(self, found: BatchPart, letters: bytes, extent: Extent | None) -> None:
        rows, noted, begun = self._unfinished.get(found.batch.start, (0, b"", None))
        joined = begun.joined(extent) if begun and extent else begun or extent
        self._unfinished[found.batch.start] = rows + found.part.written, noted + letters, joined


class StoreJournal(Journal):
    """Keeps entries until what they are about is on the disk, then puts them into a store.

    `sync` sees to that, which may take a while; without it they are kept until `write`.
    """

    def __init__(
        self, known: Known, store: Store, sync: Callable[[], None] | None, *, generation: int = 0
    ) -> None:
        super().__init__(known, generation=generation)
        self._store, self._sync = store, sync
        self._waiting: list[Entry] = []
        self._last = time.monotonic()

    def add(self, found: BatchPart, extents: Sequence[Extent | None] = ()) -> None:
        """Take note of a part that is through. Raises SinkError."""
        self._waiting += self.entries(found, extents)
        if time.monotonic() - self._last > CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Make sure of all that is done. Raises SinkError."""
        if self._waiting and self._sync:
            self._sync()
            self.write()
        self._last = time.monotonic()

    def write(self) -> None:
        """Put the entries into the store. Raises SinkError."""
        self._store.record(self._waiting)
        self._waiting.clear()


def _letters(found: BatchPart) -> dict[int, bytes]:
    """Return the dead letters of the records of each file of a part, by place."""
    part = found.part
    if not part.letters:
        return {}
    letters: dict[int, bytes] = {}
    for (place, _), letter in zip(part.rejections, part.letters, strict=True):
        letters[place] = letters.get(place, b"") + letter
    return letters


def _moved(entry: Entry, generation: int, extent: Extent | None) -> Entry:
    """Return an entry whose rows, if any, are now there."""
    from msgspec import structs  # noqa: PLC0415 - only a run that carries on needs it

    return structs.replace(entry, generation=generation, extent=extent)
