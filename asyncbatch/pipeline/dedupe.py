"""Deduplication of rows in delivery; see `transforms.dedupe` for the keys."""

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

    # A file's place in a part, and a number that the rows of one record there share.
    Record = tuple[int, int]


class _File(Struct):
    """The counts of an unfinished file: records `dropped`, and `told` in earlier parts.

    The last record may continue in the next part; `is_gone`: all its rows so far were dropped.
    """

    dropped: int = 0
    told: int = 0
    record: int | None = None
    is_gone: bool = False


class Deduplicator:
    """Keeps the first row of each key, in the order of the parts.

    A record without a remaining row counts as dropped. Used by one thread at a time.
    """

    def __init__(self, target: Target) -> None:
        self._row_writer = make_row_writer(target, FileWorkSettings())
        self._seen = DigestSet()
        self._files: dict[int, _File] = {}
        """By their number in the run."""

    def close(self) -> None:
        """Forget all keys."""
        self._seen.close()

    def drop_duplicates(self, found: BatchPart) -> None:
        """Drop the rows of known keys from a part. Raises SinkError for a full disk."""
        part = found.part
        gone: Counter[int] = Counter()
        rows = part.rows
        if rows is not None:
            kept = self._seen.add(rows.digests)
            rows.digests = []
            if part.start in self._files or not all(kept) or rows.has_many_rows:
                gone = self._duplicates_in(part, _records(part, rows, kept))
            if not all(kept):
                _count_rows(part, kept)
                part.rows = self._row_writer.without_rows(rows, kept) if any(kept) else None
        self._update_counts(part, gone)

    def _duplicates_in(self, part: Part, records: Iterable[tuple[Record, bool]]) -> Counter[int]:
        """Return the number of dropped records by file. The last may still be undecided."""
        gone: Counter[int] = Counter()
        file = self._files.get(part.start, _File())
        for (place, record), is_gone in records:
            if place == 0 and file.record is not None:
                if record == file.record:
                    file.is_gone &= is_gone
                    continue
                gone[0] += file.is_gone
                file.record = None
            if not len(part):
                file.record, file.is_gone = record, is_gone
            else:
                gone[place] += is_gone
        if not len(part):
            self._files[part.start] = file
        return gone

    def _update_counts(self, part: Part, gone: Counter[int]) -> None:
        """Count records as dropped."""
        if not len(part):
            if gone:
                file = self._files[part.start]
                file.dropped += gone[0]
                if part.counts is not None:
                    part.counts.dropped += gone[0]
                    file.told += gone[0]
            return
        if part.start in self._files:
            file = self._files.pop(part.start)
            gone[0] += file.dropped + (file.record is not None and file.is_gone)
            if part.counts is not None:
                part.counts.dropped += file.told
        for place, count in gone.items():
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
