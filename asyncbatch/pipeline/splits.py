"""Split files in the main process: batches of their splits, and the sums of their parts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from msgspec import structs

from asyncbatch.core.batches import Batch, BatchPart, Counts, Part, SettledInputs, Split
from asyncbatch.core.system import usable_cpus
from asyncbatch.formats.failures import FeedError, with_record_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.config.job import Job
    from asyncbatch.core.batches import Chunk
    from asyncbatch.core.records import CursorKind, CursorValues, Failure, Scalar

# The number of splits of one file that may be unsettled is the larger one of these.
MIN_AHEAD = 8
AHEAD_PER_CPU = 3  # for each processor


class SplitLimiter:
    """A limiter of the unsettled splits of one file.

    A settled split still counts while an earlier one is unsettled, since its part is held.
    """

    def __init__(self, max_unsettled: int | None = None) -> None:
        self._added = self._settled = 0
        self._done: set[int] = set()
        self._max_unsettled = max(MIN_AHEAD, max_unsettled or AHEAD_PER_CPU * usable_cpus())

    @property
    def is_settled(self) -> bool:
        """Whether all splits that were given out are settled."""
        return self._added == self._settled

    @property
    def has_capacity(self) -> bool:
        """Whether one more split may be given out."""
        return self._added - self._settled < self._max_unsettled

    def add(self) -> None:
        """Count a new split."""
        self._added += 1

    def settle(self, number: int) -> None:
        """Note that a split is done."""
        self._done.add(number)
        while self._settled in self._done:
            self._done.remove(self._settled)
            self._settled += 1


class SplitFileReader:
    """A reader that gives out the splits of one file as batches, and finds the next one ahead.

    The end marker of a file with guessed bounds waits until all splits are settled: after a wrong
    guess, its batch reads the whole file.
    """

    def __init__(
        self, start: int, path: str, splits: Iterator[Split], max_ahead: int | None = None
    ) -> None:
        self._start, self._path, self._splits = start, path, splits
        self._next: asyncio.Future[Split] | None = None
        self._last: Split | None = None
        self._end: Split | None = None  # the end marker that waits
        self._is_cut = self._is_refused = False
        self._limiter = SplitLimiter(max_ahead)

    @property
    def has_next(self) -> bool:
        """Whether there is another split, and the limit allows it."""
        if self._end is not None and not self._limiter.is_settled:
            return False
        has_more = self._last is None or not self._last.is_end_marker
        return has_more and self._limiter.has_capacity

    async def next_split(self) -> Batch | None:
        """Return the next split, or None if it must wait. Cancellable."""
        split = self._end or await self._found_split()
        if self._is_cut and not split.is_end_marker:
            split = structs.replace(split, length=0, is_end_marker=True)
        if split.is_end_marker and split.is_guess:
            if not self._limiter.is_settled:
                self._end = split
                return None
            if self._is_refused:
                split = structs.replace(split, is_whole=True)
        self._last = split
        self._limiter.add()
        if not split.is_end_marker:
            self._next = self._find()
        return Batch(self._start, (self._path,), split)

    async def _found_split(self) -> Split:
        if self._next is None:
            self._next = self._find()
        split = await asyncio.shield(self._next)
        self._next = None
        return split

    def settle(self, split: Split, *, is_refused: bool = False) -> bool:
        """Note that a split is done; return whether it was the last of the file.

        `is_refused`: its bounds are no boundaries between elements.
        """
        self._limiter.settle(split.number)
        if is_refused:
            self._is_refused = True
            self.cut_short()
        return split.is_end_marker

    def cut_short(self) -> None:
        """Give out no more splits except the last."""
        self._is_cut = True

    def _find(self) -> asyncio.Future[Split]:
        return asyncio.get_running_loop().run_in_executor(None, next, self._splits)


class _SplitSum:
    """The sum of the parts of the splits of one file so far."""

    def __init__(self) -> None:
        self.started_at = time.perf_counter()
        self.counts, self.reported = Counts(), Counts()
        self.lines = 0
        self.first_failure: Failure | None = None
        self.error: Failure | None = None
        self.reports_early = False
        self.cursor_values: CursorValues | None = None
        self.largest_cursor: Scalar | None = None
        self.cursor_kind: CursorKind | None = None
        self.notes_beyond = True  # whether a value beyond the maximum is still to be told

    def add(self, counts: Counts, part: Part) -> None:
        """Add the counts of a part."""
        self.counts.add(counts)
        if self.first_failure is None and part.rejections:
            self.first_failure = part.rejections[0][1]


class SplitSums:
    """Sums the parts of splits, in order. The last part of a file has the counts of the whole file.

    A file ends with the first split that fails: the parts of later splits are dropped. If records
    are only counted, those of such a file do not count.
    """

    def __init__(self, job: Job) -> None:
        self._counted = {
            number
            for number, source in job.file_sources
            if source.record_work is not None and source.record_work.only_counts
        }
        self._files: dict[int, _SplitSum] = {}
        self._notes: list[str] = []

    def take_notes(self) -> list[str]:
        """Return the warnings for the user since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def pass_on(self, result: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        """Take a part; yield it as if one worker had processed the file."""
        batch, split = result.batch, result.batch.split
        if split is None:
            yield result
            return
        if isinstance(result, SettledInputs):
            if split.is_end_marker:
                self._files.pop(batch.start, None)
                yield result
            return
        file = self._files.setdefault(batch.start, _SplitSum())
        if split.is_end_marker:
            if split.is_whole and file.error is None:
                file.counts = Counts(result.part.records[0])
            yield BatchPart(
                batch, _whole_part(result.part, file, only_counts=batch.source in self._counted)
            )
        elif file.error is None:
            if split.is_relative:
                _shift_positions(result.part, file)
            if split.chunk is not None and not _compare_cursors(result.part, split.chunk, file):
                return
            self._note_beyond(result.part, file, batch)
            yield from (BatchPart(batch, part) for part in _pass_split(result.part, file))

    def _note_beyond(self, part: Part, file: _SplitSum, batch: Batch) -> None:
        """Note, once for each file, a cursor value that is too far ahead to be kept."""
        values, split = part.cursor_values, batch.split
        if not file.notes_beyond or values is None or values.beyond is None or split is None:
            return
        file.notes_beyond = False
        name = split.chunk.file if split.chunk is not None else batch.paths[0]
        self._notes.append(
            f"warning: {name}: {values.beyond!r} lies beyond the clock, or beyond incremental.max, "
            "and is not kept as the largest value of incremental.field"
        )


def _compare_cursors(part: Part, chunk: Chunk, file: _SplitSum) -> bool:
    """Set the largest cursor value so far in a part; return whether values can be compared."""
    from asyncbatch.sources.cursor import classify, largest_value, merge_values

    before = chunk.bookmark
    if file.cursor_values is None and before.newest is not None:
        file.cursor_values = classify(before.newest, before.kind)
    file.cursor_values = merge_values(file.cursor_values, part.cursor_values)
    try:
        file.largest_cursor, file.cursor_kind = largest_value(
            file.cursor_values, before.kind, chunk.file
        )
    except FeedError as error:
        file.error = error.failure
        return False
    part.largest_cursor = file.largest_cursor
    return True


def _pass_split(part: Part, file: _SplitSum) -> Iterator[Part]:
    """Yield the parts for a split that is not the last one."""
    if not len(part):
        if part.counts is not None:
            file.reports_early = True
            file.add(part.counts, part)
            file.reported.add(part.counts)
        elif file.first_failure is None and part.rejections:
            file.first_failure = part.rejections[0][1]
        yield part
        return
    if 0 in part.errors and 0 not in part.rejected:
        file.error = part.errors[0]
        return
    # The split was processed like a whole file: its records count when the file is done.
    counts = Counts(part.records[0], 0, part.rejected.get(0, 0), part.bytes[0])
    file.add(counts, part)
    file.lines += part.position.line if part.position else 0
    if part.rejections:
        yield Part(part.start, rejections=part.rejections)
    reported = Counts(bytes=counts.bytes)
    file.reported.add(reported)
    yield Part(part.start, counts=reported)


def _shift_positions(part: Part, file: _SplitSum) -> None:
    """Make record and line numbers of rejections count from the start of the file."""
    part.rejections = [
        (
            place,
            structs.replace(
                failure,
                record=(failure.record or 0) + file.counts.read,
                line=(failure.line or 0) + file.lines,
            ),
        )
        for place, failure in part.rejections
    ]


def _whole_part(part: Part, file: _SplitSum, *, only_counts: bool) -> Part:
    """Return the part that ends a file, from the part of its last split."""
    counts = file.counts
    counts.bytes += part.bytes[0]
    error = file.error or part.errors.get(0)
    if error is not None and file.reports_early:
        error = with_record_count(error, counts.read)
        if only_counts:
            counts = Counts(bytes=counts.bytes)
    elif error is not None:
        counts = Counts(bytes=counts.bytes)
    elif counts.rejected and counts.rejected == counts.read:
        error = file.first_failure
    return Part(
        part.start,
        [counts.read],
        [counts.bytes],
        [(time.perf_counter() - file.started_at) * 1000],
        {0: counts.dropped} if counts.dropped else {},
        {0: counts.rejected} if counts.rejected else {},
        {} if error is None else {0: error},
        counts=file.reported,
        cursor_values=file.cursor_values,
        largest_cursor=file.largest_cursor,
        cursor_kind=file.cursor_kind,
    )
