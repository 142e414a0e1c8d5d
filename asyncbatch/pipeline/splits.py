"""Split files in the main process: their splits given out, and their parts summed up."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from msgspec import structs

from asyncbatch.core.batches import Batch, BatchPart, Counts, Part, SettledInputs, Split
from asyncbatch.core.system import usable_cpus
from asyncbatch.formats.failures import FeedError, after_records
from asyncbatch.sources.cursor import larger_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncbatch.core.batches import Chunk
    from asyncbatch.core.records import Failure, Scalar

LEAST_AHEAD = 8  # splits of one file that may be unsettled, ...
AHEAD_PER_CPU = 3  # ... or this number for each processor, if that is more


class SplitsAhead:
    """The number of unsettled splits of one file, and its limit.

    A split that waits for an earlier one counts, since its part is held.
    """

    def __init__(self, most: int | None = None) -> None:
        self._given = self._settled = 0
        self._done: set[int] = set()
        self._most = max(LEAST_AHEAD, most or AHEAD_PER_CPU * usable_cpus())

    @property
    def has_room(self) -> bool:
        """Whether one more may be given."""
        return self._given - self._settled < self._most

    def take(self) -> None:
        """Count a new split."""
        self._given += 1

    def settle(self, number: int) -> None:
        """Note that a split is done."""
        self._done.add(number)
        while self._settled in self._done:
            self._done.remove(self._settled)
            self._settled += 1


class SplitFileReader:
    """The splits of one file as batches; finds the next one ahead."""

    def __init__(
        self, start: int, path: str, splits: Iterator[Split], ahead: int | None = None
    ) -> None:
        self._start, self._path, self._splits = start, path, splits
        self._next: asyncio.Future[Split] | None = None
        self._last: Split | None = None
        self._is_cut = False
        self._ahead = SplitsAhead(ahead)

    @property
    def has_next(self) -> bool:
        """Whether there is a split to give within the limit."""
        has_more = self._last is None or not self._last.end
        return has_more and self._ahead.has_room

    async def next_split(self) -> Batch:
        """Return the next split. Cancellable."""
        if self._next is None:
            self._next = self._find()
        split = await asyncio.shield(self._next)
        self._next = None
        if self._is_cut and not split.end:
            split = Split(split.number, split.form, split.start, 0, end=True)
        self._last = split
        self._ahead.take()
        if not split.end:
            self._next = self._find()
        return Batch(self._start, (self._path,), split)

    def settle(self, split: Split) -> bool:
        """Note that a split is done; return whether the file is."""
        self._ahead.settle(split.number)
        return split.end

    def cut_short(self) -> None:
        """Give no more splits except the last."""
        self._is_cut = True

    def _find(self) -> asyncio.Future[Split]:
        return asyncio.get_running_loop().run_in_executor(None, next, self._splits)


class _SplitSum:
    """The sum of the parts of one file's splits so far."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.counts, self.told = Counts(), Counts()
        self.lines = 0
        self.first: Failure | None = None
        self.error: Failure | None = None
        self.hands_on = False
        self.newest: Scalar | None = None

    def add(self, counts: Counts, part: Part) -> None:
        """Add the counts of a part."""
        self.counts.add(counts)
        if self.first is None and part.rejections:
            self.first = part.rejections[0][1]


class SplitSums:
    """Sums the parts of splits, in order; the last part of a file becomes that of a whole file.

    A file ends with the first split that fails; the parts of later splits are dropped.
    """

    def __init__(self) -> None:
        self._files: dict[int, _SplitSum] = {}

    def pass_on(self, found: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        """Take a part; yield it as if one worker had processed the file."""
        batch, split = found.batch, found.batch.split
        if split is None:
            yield found
            return
        if isinstance(found, SettledInputs):
            if split.end:
                self._files.pop(batch.start, None)
                yield found
            return
        file = self._files.setdefault(batch.start, _SplitSum())
        if split.end:
            yield BatchPart(batch, _whole_part(found.part, file))
        elif file.error is None:
            if split.relative:
                _shift(found.part, file)
            if split.arrival is not None and not _compare_cursors(found.part, split.arrival, file):
                return
            yield from (BatchPart(batch, part) for part in _share(found.part, file))


def _compare_cursors(part: Part, arrival: Chunk, file: _SplitSum) -> bool:
    """Set the part's largest cursor value so far; return whether the values compare."""
    try:
        newest = larger_value(file.newest, arrival.bookmark.newest, arrival.file)
        file.newest = part.largest_cursor = larger_value(newest, part.largest_cursor, arrival.file)
    except FeedError as error:
        file.error = error.failure
    return file.error is None


def _share(part: Part, file: _SplitSum) -> Iterator[Part]:
    """Yield the part of a split that is not the last."""
    if not len(part):
        if part.counts is not None:
            file.hands_on = True
            file.add(part.counts, part)
            file.told.add(part.counts)
        elif file.first is None and part.rejections:
            file.first = part.rejections[0][1]
        yield part
        return
    if 0 in part.errors and 0 not in part.rejected:
        file.error = part.errors[0]
        return
    # The split was processed like a file: its records count when the file is done.
    counts = Counts(part.records[0], 0, part.rejected.get(0, 0), part.bytes[0])
    file.add(counts, part)
    file.lines += part.position.line if part.position else 0
    if part.rejections:
        yield Part(part.start, rejections=part.rejections)
    told = Counts(bytes=counts.bytes)
    file.told.add(told)
    yield Part(part.start, counts=told)


def _shift(part: Part, file: _SplitSum) -> None:
    """Have the places of bad records count from the start of their file."""
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


def _whole_part(part: Part, file: _SplitSum) -> Part:
    """Return the part that ends a file, from the part of its last split."""
    counts = file.counts
    counts.bytes += part.bytes[0]
    error = file.error or part.errors.get(0)
    if error is not None and file.hands_on:
        error = after_records(error, counts.read)
    elif error is not None:
        counts = Counts(bytes=counts.bytes)
    elif counts.rejected and counts.rejected == counts.read:
        error = file.first
    return Part(
        part.start,
        [counts.read],
        [counts.bytes],
        [(time.perf_counter() - file.began) * 1000],
        {0: counts.dropped} if counts.dropped else {},
        {0: counts.rejected} if counts.rejected else {},
        {} if error is None else {0: error},
        counts=file.told,
        largest_cursor=file.newest,
    )
