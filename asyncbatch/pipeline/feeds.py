"""Batches of feed sources, and the first records of a source for previews."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Self

from msgspec import structs

from asyncbatch.core.batches import Batch, Chunk, Split, prepared_part
from asyncbatch.core.records import Bookmark, Failure, Position
from asyncbatch.formats.failures import FeedError
from asyncbatch.pipeline.splits import SplitLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from asyncbatch.core.batches import SplitFile
    from asyncbatch.pipeline.batcher import BatchSource
    from asyncbatch.sources.base import Feed, FeedSource

    # Returns the bookmark at which a feed resumes, or the reason why it is not read.
    Admit = Callable[[Feed], Awaitable[Bookmark | Failure | None]]


# Feeds that wait for the turn of their group, or for the ledger, for each one that is read.
_SLOTS_PER_READER = 4


class _FeedProgress:
    """The progress of a feed that is being read."""

    def __init__(self) -> None:
        self.split_count = 0
        self.limiter = SplitLimiter()
        self.changed = asyncio.Event()
        self.is_cut = False
        self.is_over = False  # whether only the end split is still to come


class FeedBatchSource:
    """The batches of one feed source.

    Each feed is like a split file whose splits carry their records. Each feed has a task of its
    own that reads it. The task waits while too many splits of the feed are unsettled, or while the
    consumer takes no batch.
    """

    def __init__(self, source: FeedSource, first: int, admit: Admit) -> None:
        self.unsettled: int = 0
        self.waiting: int = 0  # number of batches that were read and not taken
        self._source, self._first_number = source, first
        self._admit = admit
        self._group_slots: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(source.concurrency)
        )
        self._batches: asyncio.Queue[Batch | None] = asyncio.Queue(1)
        self._progress: dict[int, _FeedProgress] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._read_task: asyncio.Task[None] | None = None
        self._ended = self._stopped = False
        # Feeds that become known during the run are not read before there is a slot for them.
        self._slots = asyncio.Semaphore(_SLOTS_PER_READER * source.concurrency)

    @property
    def exhausted(self) -> bool:
        """Whether `found` is the number of all feeds."""
        return self._source.is_complete

    @property
    def found(self) -> int:
        return len(self._source.feeds)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch. Raises the errors of feeds except FeedError."""
        if self._read_task is None:
            self._read_task = asyncio.create_task(self._read_all())
        batch = None if self._ended or self._stopped else await self._batches.get()
        if batch is None:
            self._ended = True
            if not self._stopped:
                await self._read_task
            raise StopAsyncIteration
        self.waiting -= 1
        self.unsettled += 1
        return batch

    def settle(
        self,
        batch: Batch,
        done: int,  # noqa: ARG002 - a feed is alone in its batch
        *,
        halve: bool = False,  # noqa: ARG002 - see above
        split_file: SplitFile | None = None,  # noqa: ARG002 - a feed is always split
    ) -> None:
        self.unsettled -= 1
        progress = self._progress.get(batch.start)
        if progress is not None and batch.split is not None:
            progress.limiter.settle(batch.split.number)
            progress.changed.set()

    def settle_without(self, batch: Batch, done: int, file: int, *, retry: bool) -> None:  # noqa: ARG002 - see above
        self.settle(batch, done)

    def end_splits(self, number: int) -> None:
        """Read no more of the feed."""
        progress = self._progress.get(number)
        if progress is not None and not (progress.is_cut or progress.is_over):
            progress.is_cut = True
            self._tasks[number].cancel()

    def stop(self) -> None:
        """Read no more. The records that iterables of a program gave are still processed."""
        if not self._source.end():
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        for task in list(self._tasks.values()):
            task.cancel()
        if self._batches.empty():
            self._batches.put_nowait(None)  # for the waiting consumer

    async def aclose(self) -> None:
        """Cancel all reads in progress."""
        self._stop()
        if self._read_task is not None:
            self._read_task.cancel()
            await asyncio.gather(self._read_task, return_exceptions=True)

    async def _read_all(self) -> None:
        is_bounded, number = not self._source.is_complete, self._first_number
        try:
            async with (
                asyncio.TaskGroup() as group,
                aclosing(self._source.each_feed()) as feeds,
            ):
                async for feed in feeds:
                    if is_bounded:
                        await self._slots.acquire()
                    if self._stopped:
                        break
                    task = group.create_task(self._read(number, feed))
                    self._tasks[number] = task
                    if is_bounded:
                        task.add_done_callback(partial(self._free_slot, number))
                    number += 1
        finally:
            if not self._stopped:
                await self._batches.put(None)

    def _free_slot(self, number: int, _: asyncio.Task[None]) -> None:
        self._slots.release()
        del self._tasks[number]

    async def _read(self, number: int, feed: Feed) -> None:
        """Add a batch for each chunk of a feed, then one for its end."""
        async with self._group_slots[feed.group]:
            bookmark = await self._admit(feed)
            if isinstance(bookmark, Failure):
                part = prepared_part(number, 1, {0: bookmark}, {})
                await self._add(Batch(number, (feed.name,), prepared_part=part))
                return
            progress = self._progress[number] = _FeedProgress()
            last = Chunk(feed.name, bookmark=bookmark or Bookmark())
            failure: Failure | None = None
            try:
                async with aclosing(feed.chunks(bookmark)) as chunks:
                    async for last in chunks:
                        await self._add_chunk(number, feed, progress, last)
            except FeedError as error:
                failure = error.failure
            except asyncio.CancelledError:
                if not progress.is_cut or self._stopped:
                    raise
            progress.is_over = True
            await self._add_end(number, feed, progress, last, failure)

    async def _add_chunk(
        self, number: int, feed: Feed, progress: _FeedProgress, chunk: Chunk
    ) -> None:
        while not progress.limiter.has_capacity:
            progress.changed.clear()
            await progress.changed.wait()
        await self._add(Batch(number, (feed.name,), split_of_chunk(progress.split_count, chunk)))
        progress.limiter.add()
        progress.split_count += 1

    async def _add_end(
        self,
        number: int,
        feed: Feed,
        progress: _FeedProgress,
        last: Chunk,
        failure: Failure | None,
    ) -> None:
        split = end_split(feed, progress.split_count, last, failure)
        await self._add(Batch(number, (feed.name,), split))

    async def _add(self, batch: Batch) -> None:
        self.waiting += 1
        try:
            await self._batches.put(batch)
        except asyncio.CancelledError:
            self.waiting -= 1
            raise


def split_of_chunk(number: int, chunk: Chunk) -> Split:
    """Return split number `number`, which holds a chunk."""
    return Split(number, "lines", Position(), chunk.size, chunk=chunk)


def end_split(feed: Feed, number: int, last: Chunk, failure: Failure | None) -> Split:
    """Return the last split of a feed, after its `last` chunk."""
    before = last.bookmark
    bookmark = structs.replace(before, mark=None, is_last=False)
    arrival = Chunk(feed.name, bookmark=bookmark, is_unchanged=feed.is_unchanged)
    return Split(number, "lines", Position(), 0, is_end_marker=True, error=failure, chunk=arrival)


class FirstRecordsSource:
    """The batches with the first `limit` records of one source.

    The consumer reports the number of read records with `count`. There is one batch at a time.
    Once the limit is reached, the splits of an unfinished input end.
    """

    def __init__(self, batches: BatchSource, limit: int) -> None:
        self.unsettled: int = 0
        self._batches, self._records_left = batches, limit
        self._open_input: int | None = None  # the number of the input with unfinished splits
        self._settled = asyncio.Event()
        self._settled.set()
        self._stopped = False

    @property
    def found(self) -> int:
        return self._batches.found

    @property
    def exhausted(self) -> bool:
        return self._batches.exhausted

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        await self._settled.wait()
        if self._records_left <= 0 and self._open_input is not None:
            self._batches.end_splits(self._open_input)
        if self._stopped or (self._records_left <= 0 and self._open_input is None):
            raise StopAsyncIteration
        batch = await anext(self._batches)
        if batch.split is not None:
            self._open_input = None if batch.split.is_end_marker else batch.start
        self.unsettled += 1
        self._settled.clear()
        return structs.replace(batch, limit=max(0, self._records_left))

    def count(self, records: int) -> None:
        """Note the number of records read."""
        self._records_left -= records

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, split_file: SplitFile | None = None
    ) -> None:
        self._batches.settle(batch, done, halve=halve, split_file=split_file)
        self._settle()

    def settle_without(self, batch: Batch, done: int, file: int, *, retry: bool) -> None:
        self._batches.settle_without(batch, done, file, retry=retry)
        self._settle()

    def end_splits(self, number: int) -> None:
        self._batches.end_splits(number)

    def stop(self) -> None:
        self._stopped = True
        self._settled.set()
        self._batches.stop()

    async def aclose(self) -> None:
        await self._batches.aclose()

    def _settle(self) -> None:
        self.unsettled -= 1
        self._settled.set()


class FeedPreviewSource:
    """The batches of feeds for previews: one feed after another, nothing is requested ahead.

    The consumer must settle each batch before it takes the next.
    """

    exhausted = True
    unsettled = 0

    def __init__(self, source: FeedSource, first: int) -> None:
        self._source, self._first_number = source, first
        self._cut_feeds: set[int] = set()
        self._batches = self._read_all()
        self._read_task: asyncio.Future[Batch | None] | None = None
        self._stopped = False

    @property
    def found(self) -> int:
        return len(self._source.feeds)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        if self._stopped:
            raise StopAsyncIteration
        self._read_task = asyncio.ensure_future(anext(self._batches, None))
        await asyncio.wait((self._read_task,))
        batch = None if self._read_task.cancelled() else self._read_task.result()
        if batch is None:
            raise StopAsyncIteration
        return batch

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, split_file: SplitFile | None = None
    ) -> None: ...

    def settle_without(self, batch: Batch, done: int, file: int, *, retry: bool) -> None: ...

    def end_splits(self, number: int) -> None:
        self._cut_feeds.add(number)

    def stop(self) -> None:
        self._stopped = True
        if self._read_task is not None:
            self._read_task.cancel()

    async def aclose(self) -> None:
        self.stop()
        if self._read_task is not None:
            await asyncio.wait((self._read_task,))
        await self._batches.aclose()

    async def _read_all(self) -> AsyncGenerator[Batch, None]:
        number = self._first_number
        async with aclosing(self._source.each_feed()) as feeds:
            async for feed in feeds:
                async with aclosing(self._read(number, feed)) as batches:
                    async for batch in batches:
                        yield batch
                number += 1

    async def _read(self, number: int, feed: Feed) -> AsyncGenerator[Batch, None]:
        splits, failure = 0, None
        last = Chunk(feed.name)
        try:
            async with aclosing(feed.chunks(None)) as chunks:
                async for last in chunks:
                    yield Batch(number, (feed.name,), split_of_chunk(splits, last))
                    splits += 1
                    if number in self._cut_feeds:
                        break
        except FeedError as error:
            failure = error.failure
        yield Batch(number, (feed.name,), end_split(feed, splits, last, failure))
