"""Deduplication of rows in delivery, by the digests that `transforms.dedupe` makes of keys."""

from __future__ import annotations

from collections import Counter
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import TYPE_CHECKING

from msgspec import Struct

from asyncbatch.core.settings import FileWorkSettings
from asyncbatch.sinks.row_writer import make_row_writer
from asyncbatch.transforms.dedupe import DigestSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncbatch.core.batches import BatchPart, Part, Rows
    from asyncbatch.sinks.target import Target

    # The place of a file in a part, and a number that all rows of one record of it share.
    Record = tuple[int, int]


class _UnfinishedFile(Struct):
    """The counts of an unfinished file, whose last record may continue in the next part."""

    dropped: int = 0  # records
    reported: int = 0  # dropped records that the counts of earlier parts have
    record: int | None = None  # the number of the last record; None: it is complete
    is_dropped: bool = False  # whether all rows of the last record so far were dropped


class Deduplicator:
    """Keeps the first row of each key, in the order of the parts.

    A record without a remaining row counts as dropped. Used by one thread at a time.
    """

    def __init__(self, target: Target) -> None:
        self._row_writer = make_row_writer(target, FileWorkSettings())
        self._seen = DigestSet()
        self._files: dict[int, _UnfinishedFile] = {}  # by their number in the run
        self._has_keys, self._key_note = False, ""

    @property
    def note(self) -> str:
        """The note for the user if there were rows, and none of them had a key, else empty."""
        return "" if self._has_keys else self._key_note

    def close(self) -> None:
        """Forget all keys."""
        self._seen.close()

    def drop_duplicates(self, batch_part: BatchPart) -> None:
        """Drop the rows of known keys from a part. Raises SinkError for a full disk."""
        part = batch_part.part
        dropped_by_file: Counter[int] = Counter()
        rows = part.rows
        if rows is not None:
            self._key_note = self._key_note or rows.key_note
            self._has_keys = self._has_keys or any(rows.digests)
            kept = self._seen.add(rows.digests)
            rows.digests = []
            if part.start in self._files or not all(kept) or rows.has_many_rows:
                dropped_by_file = self._count_dropped(part, _records(part, rows, kept))
            if not all(kept):
                _count_rows(part, kept)
                part.rows = self._row_writer.without_rows(rows, kept) if any(kept) else None
        self._update_counts(part, dropped_by_file)

    def _count_dropped(self, part: Part, records: Iterable[tuple[Record, bool]]) -> Counter[int]:
        """Return the number of dropped records by file.

        The last record of an unfinished file is not counted yet: it may continue in the next part.
        """
        dropped_by_file: Counter[int] = Counter()
        file = self._files.get(part.start, _UnfinishedFile())
        for (place, record), is_dropped in records:
            if place == 0 and file.record is not None:
                if record == file.record:
                    file.is_dropped &= is_dropped
                    continue
                dropped_by_file[0] += file.is_dropped
                file.record = None
            if not len(part):
                file.record, file.is_dropped = record, is_dropped
            else:
                dropped_by_file[place] += is_dropped
        if not len(part):
            self._files[part.start] = file
        return dropped_by_file

    def _update_counts(self, part: Part, dropped: Counter[int]) -> None:
        """Add dropped records to the counts of a part."""
        if not len(part):
            if dropped:
                file = self._files[part.start]
                file.dropped += dropped[0]
                if part.counts is not None:
                    part.counts.dropped += dropped[0]
                    file.reported += dropped[0]
            return
        if part.start in self._files:
            file = self._files.pop(part.start)
            dropped[0] += file.dropped + (file.record is not None and file.is_dropped)
            if part.counts is not None:
                part.counts.dropped += file.reported
        for place, count in dropped.items():
            if count:
                part.dropped[place] = part.dropped.get(place, 0) + count


def _records(part: Part, rows: Rows, kept: list[bool]) -> Iterator[tuple[Record, bool]]:
    """Yield each record that has rows in a part, and whether none of them is kept."""
    numbers = rows.records or range(rows.count)
    owners = zip(zip(_places(part), numbers, strict=False), kept, strict=True)
    for record, group in groupby(owners, key=itemgetter(0)):
        yield record, not any(is_kept for _, is_kept in group)


def _places(part: Part) -> Iterator[int]:
    """Yield the place of each row's file; endless for an unfinished file."""
    if not len(part):
        return repeat(0)
    return chain.from_iterable(repeat(place, made) for place, made in enumerate(part.spooled_rows))


def _count_rows(part: Part, kept: list[bool]) -> None:
    if len(part):
        dropped = Counter(
            place for place, is_kept in zip(_places(part), kept, strict=True) if not is_kept
        )
        for place, count in dropped.items():
            part.spooled_rows[place] -= count
