"""Journals: the ledger entries of a run, and the rows of earlier runs that it resumes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from asyncbatch.core.batches import Counts
from asyncbatch.core.ledger_entries import Entry, Extent, Stamp
from asyncbatch.core.records import Bookmark
from asyncbatch.formats.decoder import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncbatch.core.batches import BatchPart, Chunk, Part, Rows
    from asyncbatch.pipeline.resume.replay import Replay
    from asyncbatch.sinks.text_files import FileSink
    from asyncbatch.state.ledger.file import Generation, LedgerStore

# Least time between two syncs of the disk, each of which takes time. Entries are written after one.
CHECKPOINT_SECONDS = 1.0


class KnownInput(NamedTuple):
    """The identity and stamp of an input before it is read, and its unfinished entry."""

    identity: str
    stamp: Stamp
    unfinished_entry: Entry | None = None
    replay: Replay | None = None  # of a dead letter file
    earlier_entry: Entry | None = None  # of a feed, also a finished one


KnownInputs = dict[str, KnownInput]  # by path


class _InputSum:
    """The sum of the parts of one file so far, including those of the run that began it."""

    def __init__(self, unfinished_entry: Entry | None, extent: Extent | None) -> None:
        self.unfinished_entry, self.extent = unfinished_entry, extent
        self.rows = unfinished_entry.written if unfinished_entry else 0
        self.dead_letters = [unfinished_entry.letters] if unfinished_entry else []
        self.counts = Counts()
        self.position = unfinished_entry.reached if unfinished_entry else None
        self.bookmark = unfinished_entry.bookmark if unfinished_entry else None
        # Whether rows of other files lie between its rows, so that it has no extent.
        self.is_interleaved = False

    def add(self, rows: int, dead_letters: bytes, extent: Extent | None) -> None:
        """Add the counts of a part."""
        self.rows += rows
        self.dead_letters.append(dead_letters)
        if extent is None or not extent.length:
            return
        if self.extent is None or not self.extent.length:
            self.extent = extent
        else:
            self.is_interleaved = self.is_interleaved or not self.extent.is_adjacent_to(extent)
            self.extent = self.extent.merged(extent)


class Journal:
    """Makes the ledger entries of finished files, and of the positions of unfinished ones.

    `generation` is the number of the output that has the rows.
    """

    def __init__(self, known: KnownInputs, *, generation: int = 0) -> None:
        self.generation = generation
        self._known = known
        self._uncommitted: list[str] = []  # paths whose entries were made since `committed`
        self._sums: dict[int, _InputSum] = {}  # unfinished files, by their number in the run
        self._resumed_dead_letters: dict[int, bytes] = {}  # by the number of the file in the run

    def unfinished_entry(self, batch_part: BatchPart) -> Entry | None:
        """Return the unfinished entry of an earlier run, if this is the first part of the file."""
        if batch_part.batch.prepared_part is not None or batch_part.part.start in self._sums:
            return None
        known = self._known.get(batch_part.path(0))
        return known.unfinished_entry if known else None

    def resume(
        self, batch_part: BatchPart, unfinished_entry: Entry, extent: Extent | None = None
    ) -> None:
        """Note that the file of a part is resumed. Its rows so far are at `extent`."""
        self._sums[batch_part.part.start] = _InputSum(unfinished_entry, extent)
        self._resumed_dead_letters[batch_part.part.start] = unfinished_entry.letters

    def take_dead_letters(self, batch_part: BatchPart) -> bytes:
        """Return the dead letters of an earlier run, if this is the first part of the file."""
        return self._resumed_dead_letters.pop(batch_part.part.start, b"")

    def entries(self, batch_part: BatchPart, extents: Sequence[Extent | None] = ()) -> list[Entry]:
        """Return the entries of the files that a part finishes, or of the position that it has.

        `extents` are those of the rows of each file; of an unfinished file, those of this part.
        """
        part = batch_part.part
        if begun := self.unfinished_entry(batch_part):
            self.resume(batch_part, begun)
        if not len(part):
            return self._unfinished_entries(batch_part, extents[0] if extents else None)
        dead_letters = _dead_letters_by_place(batch_part)
        now = _now()
        entries = []
        for place in range(len(part)):
            extent = extents[place] if extents else None
            if (kept := part.entries.get(place)) is not None:
                moved = replace(kept, generation=self.generation, extent=extent)
                if moved != kept:
                    entries.append(moved)
                continue
            known = self._known.get(batch_part.path(place))
            self._uncommitted.append(batch_part.path(place))
            total = self._sums.pop(part.start + place, None)
            if known is None:
                continue
            if (unchanged := _unchanged_entry(batch_part, known)) and place not in part.errors:
                self._resumed_dead_letters[part.start + place] = unchanged.letters
                entries.append(replace(unchanged, generation=self.generation, done_at=now))
                continue
            counts = (part.records[place], part.dropped.get(place, 0), part.rejected.get(place, 0))
            rows, file_letters = (
                part.spooled_rows[place] if part.spooled_rows else 0,
                dead_letters.get(place, b""),
            )
            reached, bookmark = None, None
            if total is not None:
                total.add(rows, file_letters, extent)
                if total.is_interleaved:
                    continue
                counts = _add_counts(total.unfinished_entry, counts)
                rows, file_letters, extent = total.rows, b"".join(total.dead_letters), total.extent
                reached = total.position if place in part.errors else None
                bookmark = total.bookmark if place in part.errors else None
            if (arrival := _chunk_of(batch_part)) and bookmark is None:
                bookmark = _json(_end_bookmark(part, place, arrival.bookmark))
            entries.append(
                Entry(
                    known.identity, known.stamp, part.status(place), *counts, rows,
                    now, file_letters, self.generation, extent, reached, bookmark,
                )
            )  # fmt: skip
            entries += _replayed_entries(known, part, place)
        return entries

    def committed(self) -> None:
        """Note that all entries so far are in the ledger, where `Admission` finds them."""
        for path in self._uncommitted:
            self._known.pop(path, None)
        self._uncommitted.clear()

    def _unfinished_entries(self, batch_part: BatchPart, extent: Extent | None) -> list[Entry]:
        part, known = batch_part.part, self._known.get(batch_part.path(0))
        if known is not None and known.replay is not None:
            known.replay.reject(failure for _, failure in part.rejections)
        total = self._sums.setdefault(part.start, _InputSum(None, None))
        total.add(part.written, b"".join(part.dead_letters), extent)
        if part.counts is not None:
            total.counts.add(part.counts)
        if part.position is None or known is None or total.is_interleaved:
            return []
        at, totals = part.position, total.counts
        total.position = at.byte, at.record, at.line, at.column
        if arrival := _chunk_of(batch_part):
            before = arrival.bookmark
            total.bookmark = _json(
                Bookmark(
                    before.mark,
                    part.largest_cursor,
                    before.since,
                    before.kind,
                    before.shape,
                    is_last=before.is_last,
                )
            )
        counts = _add_counts(total.unfinished_entry, (totals.read, totals.dropped, totals.rejected))
        return [
            Entry(
                known.identity, known.stamp, "begun", *counts, total.rows, _now(),
                b"".join(total.dead_letters), self.generation, total.extent, total.position,
                total.bookmark,
            )
        ]  # fmt: skip


class FileJournal(Journal):
    """Holds entries until their outputs are on the disk, then writes them to a store.

    `sync` writes the outputs to the disk, and may take long. None: entries are held until `write`.
    """

    def __init__(
        self,
        known: KnownInputs,
        store: LedgerStore,
        sync: Callable[[], None] | None,
        *,
        generation: int = 0,
    ) -> None:
        super().__init__(known, generation=generation)
        self._store, self._sync = store, sync
        self._pending: list[Entry] = []
        self._last_sync = time.monotonic()

    def add(self, batch_part: BatchPart, extents: Sequence[Extent | None] = ()) -> None:
        """Add the entries of a finished part; checkpoint if it is time. Raises SinkError."""
        self._pending += self.entries(batch_part, extents)
        self.committed()
        if time.monotonic() - self._last_sync > CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Sync the outputs, then write the held entries. Raises SinkError."""
        if self._pending and self._sync:
            self._sync()
            self.write()
        self._last_sync = time.monotonic()

    def write(self) -> None:
        """Write the held entries to the store. Raises SinkError."""
        self._store.record(self._pending)
        self._pending.clear()


def _chunk_of(batch_part: BatchPart) -> Chunk | None:
    """Return the chunk of a feed that a part belongs to, or None."""
    split = batch_part.batch.split
    return split.chunk if split else None


def _end_bookmark(part: Part, place: int, before: Bookmark) -> Bookmark:
    """Return the bookmark of a feed that was read, from which the next run reads what is new."""
    if place in part.errors:
        return Bookmark(
            since=before.since, kind=part.cursor_kind or before.kind, shape=before.shape
        )
    newest = part.largest_cursor
    if newest is None:  # no page was read, as the killed run had read all
        newest = before.newest
    return Bookmark(
        since=before.since if newest is None else newest,
        kind=part.cursor_kind or before.kind,
        shape=before.shape,
        etag=before.etag,
        modified=before.modified,
    )


def _unchanged_entry(batch_part: BatchPart, known: KnownInput) -> Entry | None:
    """Return the entry of an earlier run, if nothing has changed since: it also holds now.

    Its rejected records are still those of the feed.
    """
    chunk = _chunk_of(batch_part)
    return known.earlier_entry if chunk is not None and chunk.is_unchanged else None


def _json(bookmark: Bookmark) -> str:
    return encode(bookmark).decode()


def _replayed_entries(known: KnownInput, part: Part, place: int) -> list[Entry]:
    """Return the entries of inputs of which a finished dead letter file has added records."""
    if known.replay is None:
        return []
    known.replay.reject(failure for at, failure in part.rejections if at == place)
    return [] if place in part.errors else known.replay.entries()


def _dead_letters_by_place(batch_part: BatchPart) -> dict[int, bytes]:
    """Return the dead letters of each file of a part, by its place."""
    part = batch_part.part
    if not part.dead_letters:
        return {}
    dead_letters: dict[int, bytes] = {}
    for (place, _), dead_letter in zip(part.rejections, part.dead_letters, strict=True):
        dead_letters[place] = dead_letters.get(place, b"") + dead_letter
    return dead_letters


def _add_counts(
    unfinished_entry: Entry | None, counts: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Return counts of records plus those of the run that began the file."""
    if unfinished_entry is None:
        return counts
    read, dropped, rejected = counts
    return (
        unfinished_entry.read + read,
        unfinished_entry.dropped + dropped,
        unfinished_entry.rejected + rejected,
    )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


NO_EXTENT = Extent(0, 0)  # the extent of a file without rows


class ResumedRows:
    """Copies rows of earlier `generations`, and reports the extents of written rows to a journal.

    `compressed`: the rows of a part are one compressed member.
    """

    def __init__(
        self,
        sink: FileSink,
        journal: FileJournal,
        generations: Mapping[int, Generation],
        *,
        compressed: bool,
    ) -> None:
        self.sink = sink
        self._journal, self._generations = journal, generations
        self._compressed = compressed

    def add_lines(self, batch_part: BatchPart, rows: Rows | None, at: int) -> None:
        """Note a part whose rows were written from position `at` on. Raises SinkError."""
        part = batch_part.part
        if part.entries:
            self._journal.add(batch_part, self.copy(batch_part))
        elif rows is None:
            self._journal.add(batch_part, [Extent(at, 0)] * max(1, len(part)))
        else:
            self._journal.add(batch_part, self._extents(rows.ends, at))

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

    def add(self, batch_part: BatchPart, extents: Sequence[Extent | None]) -> None:
        """Note a part whose rows were written at these extents. Raises SinkError."""
        count = max(1, len(batch_part.part))
        self._journal.add(batch_part, [extent or NO_EXTENT for extent in extents or [None] * count])

    def is_resumed(self, batch_part: BatchPart) -> bool:
        """Whether rows of an earlier run come before the rows of this part: then `resume`."""
        return self._journal.unfinished_entry(batch_part) is not None

    def resume(self, batch_part: BatchPart) -> None:
        """Copy the rows of an earlier run, if the part is the first of a resumed file.

        Raises SinkError.
        """
        if begun := self._journal.unfinished_entry(batch_part):
            extent = None
            if begun.extent is not None and begun.extent.length:
                extent = self.sink.keep(self._generations[begun.generation].path, begun.extent)
            self._journal.resume(batch_part, begun, extent)

    def copy(self, batch_part: BatchPart) -> list[Extent | None]:
        """Copy the rows of files that an earlier run finished; return their new extents.

        Raises SinkError.
        """
        extents: list[Extent | None] = [None] * len(batch_part.part)
        for place, entry in batch_part.part.entries.items():
            extents[place] = NO_EXTENT
            if entry.extent is not None and entry.extent.length:
                source = self._generations[entry.generation]
                extents[place] = self.sink.keep(source.path, entry.extent)
        return extents
