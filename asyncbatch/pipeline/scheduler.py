"""The scheduler: opens the sources of a job, and gives their batches to the run."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from asyncbatch.config.job import FileSource
from asyncbatch.core.batches import SOURCE_SPAN, Batch
from asyncbatch.core.tally import tally_of
from asyncbatch.errors import NothingMatchedError
from asyncbatch.pipeline.batcher import MAX_SIZE, Batcher, MergedBatches
from asyncbatch.pipeline.launch import Launch
from asyncbatch.sources.count_ahead import InputCount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from typing import Self

    from asyncbatch.config.job import Job
    from asyncbatch.core.batches import Part, Split, SplitFile
    from asyncbatch.core.records import Bookmark, Failure, Position
    from asyncbatch.core.report import Traffic
    from asyncbatch.pipeline.batcher import BatchSource
    from asyncbatch.pipeline.delivery import Delivery
    from asyncbatch.pipeline.feeds import FeedBatchSource, FirstRecordsSource
    from asyncbatch.sources.base import Feed, FeedSource

    PositionOf = Callable[[str], Position | None]

# Files of the largest batch for a cluster: sending one batch takes milliseconds.
DASK_MAX_SIZE = 32_768


class Scheduler:
    """Opens the sources of a job, as an async context; `batches` yields their batches."""

    def __init__(
        self, job: Job, delivery: Delivery, launch: Launch | None, position_of: PositionOf | None
    ) -> None:
        """Prepare. `position_of` returns where to resume a split file, in place of the ledger."""
        self._job, self._delivery, self._launch = job, delivery, launch
        if position_of is None and job.ledger is not None and job.ledger.is_resuming:
            position_of = self._resume_position
        self._position_of = position_of
        self._feeds: dict[int, FeedSource] = {}
        self._feed_sources: list[FeedBatchSource] = []
        self._samples: dict[int, FirstRecordsSource] = {}
        self._batchers: list[Batcher] = []
        self._ledger_lock = asyncio.Lock()  # held by the task that reads the ledger
        self._stack = AsyncExitStack()
        self._is_entered = False
        batch_sources = [self._batches_of(number) for number in range(len(job.sources))]
        self.batches: BatchSource = (
            batch_sources[0] if len(batch_sources) == 1 else MergedBatches(batch_sources)
        )

    async def __aenter__(self) -> Self:
        """Connect the feeds. Raises UsageError."""
        for source in self._feeds.values():
            await self._stack.enter_async_context(source)
        self._is_entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        for search in self._launch.searches.values() if self._launch else ():
            search.close()
        await self.batches.aclose()
        await self._stack.aclose()

    async def get_launch(self) -> Launch:
        """Return the launch of the job. Prepares and starts it at the first call."""
        if self._launch is None:
            self._launch = Launch(self._job)
            await asyncio.to_thread(self._launch.prepare)
            self._launch.start()
        return self._launch

    async def has_input(self) -> bool:
        """Whether there is any input. Without input no target is touched."""
        searches = (await self.get_launch()).searches.values()
        some = any(search.opening or not search.is_exhausted for search in searches)
        return some or bool(self._feeds) or self.may_be_empty

    @property
    def may_be_empty(self) -> bool:
        """Whether a run without inputs is a success: by option, or as one shard of several."""
        return self._empty_source() is None

    @property
    def found(self) -> int:
        """The number of inputs that are known so far."""
        searches = self._launch.searches.values() if self._launch else ()
        return sum(search.found_count for search in searches) + self._feed_count

    @property
    def total(self) -> int | None:
        """The number of inputs, None while it is unknown."""
        if self._launch is None:
            return None
        done = all(search.is_exhausted for search in self._launch.searches.values())
        done = done and all(source.is_complete for source in self._feeds.values())
        return self.found if done else None

    def count_ahead(self) -> None:
        """Start to count the inputs ahead, unless a limit of records ends the run before them."""
        if self._launch is not None and self._job.limit is None:
            for search in self._launch.searches.values():
                search.count_ahead()

    @property
    def expected(self) -> InputCount | None:
        """The number of inputs as far as it is known; None if it is not the end of the run."""
        if self._launch is None or self._job.limit is not None:
            return None
        counts = [search.expected for search in self._launch.searches.values()]
        if None in counts or not all(source.is_complete for source in self._feeds.values()):
            return None
        feeds = InputCount(self._feed_count, None if self._feeds else 0)
        return sum(filter(None, counts), feeds)

    @property
    def _feed_count(self) -> int:
        return sum(len(source.feeds) for source in self._feeds.values())

    def inputs_of(self, number: int) -> tuple[int, bool]:
        """Return the number of known inputs of a source, and whether it is final."""
        if (feeds := self._feeds.get(number)) is not None:
            return len(feeds.feeds), self._is_entered and feeds.is_complete
        search = self._launch.searches[number] if self._launch else None
        return (search.found_count, search.is_exhausted) if search else (0, False)

    def expected_of(self, number: int) -> InputCount | None:
        """Return the count of a source's inputs; None of feeds, whose number is known."""
        search = self._launch.searches.get(number) if self._launch else None
        return None if search is None or self._job.limit is not None else search.expected

    def traffic_of(self, number: int) -> Traffic | None:
        """Return the counts of requests of a source; None if it uses no server."""
        feeds = self._feeds.get(number)
        return feeds.traffic() if feeds is not None else None

    @property
    def waiting(self) -> int:
        """The number of batches of feeds that were read and not taken."""
        return sum(batch_source.waiting for batch_source in self._feed_sources)

    def retries(self) -> dict[int, int]:
        """Return the retries of each feed source since the last call, by its number."""
        return {number: source.take_retry_count() for number, source in self._feeds.items()}

    def take_notes(self) -> list[str]:
        """Return the warnings of feed sources since the last call."""
        return [note for source in self._feeds.values() for note in source.take_notes()]

    def count(self, source: int, part: Part) -> None:
        """Count the records of a part, if the source has a limit of records."""
        if source in self._samples:
            self._samples[source].count(tally_of(part).read)

    def check(self) -> None:
        """Raise NothingMatchedError if a search found no file, and must find one."""
        if (source := self._empty_source()) is not None:
            raise NothingMatchedError(source.inputs.describe_empty())

    def _empty_source(self) -> FileSource | None:
        """Return a source that found no file, although it must find one; or None."""
        if self._launch is None:
            return next((one for _, one in self._job.file_sources if not one.may_be_empty), None)
        for number, source in self._job.file_sources:
            if not source.may_be_empty and not self._launch.searches[number].has_matches:
                return source
        return None

    def _batches_of(self, number: int) -> BatchSource:
        job, source = self._job, self._job.sources[number]
        if job.limit is not None:
            return self._first_records_of(number, job.limit)
        if isinstance(source, FileSource):
            return self._batcher(number, source, job.batch_size)
        from asyncbatch.pipeline.feeds import FeedBatchSource

        self._feeds[number] = source.source
        batch_source = FeedBatchSource(source.source, number * SOURCE_SPAN, self._admit)
        self._feed_sources.append(batch_source)
        return batch_source

    def _first_records_of(self, number: int, limit: int) -> BatchSource:
        """Return the batch source with the first records of a source."""
        from asyncbatch.pipeline.feeds import (
            FeedPreviewSource,
            FirstRecordsSource,
        )

        source = self._job.sources[number]
        if isinstance(source, FileSource):
            sample = FirstRecordsSource(self._batcher(number, source, 1), limit)
        else:
            self._feeds[number] = source.source
            sample = FirstRecordsSource(
                FeedPreviewSource(source.source, number * SOURCE_SPAN), limit
            )
        self._samples[number] = sample
        return sample

    def _batcher(self, number: int, source: FileSource, size: int | None) -> Batcher:
        batcher = Batcher(
            self._chunks(number, source),
            size,
            self._job.pause,
            partial(self._splits_of, source),
            self._position_of,
            max_size=MAX_SIZE if self._job.dask is None else DASK_MAX_SIZE,
            fills=self._fills(source),
        )
        self._batchers.append(batcher)
        return batcher

    def _fills(self, source: FileSource) -> bool | None:
        """Whether batches wait until they are full; None: if their size is fixed."""
        if self._job.watch is not None:  # the next file may come tomorrow
            return False
        # A list may arrive slowly: its first paths must not wait for the rest.
        is_waiting = self._job.dask is not None and source.inputs.files_from is None
        return is_waiting or None

    def set_max_splits_ahead(self, count: int) -> None:
        """Set the number of splits of a file that may be in flight."""
        for batcher in self._batchers:
            batcher.max_splits_ahead = count

    async def _chunks(self, number: int, source: FileSource) -> AsyncIterator[Sequence[Batch]]:
        launch = await self.get_launch()
        guard, admission = launch.guards.get(number), self._delivery.admission
        found = number * SOURCE_SPAN
        async for chunk in launch.searches[number].chunks():
            if guard:
                guard.check(chunk)
            if admission:
                chunk = await asyncio.to_thread(launch.searches[number].with_metadata, chunk)  # noqa: PLW2901 - the same paths
                async with self._ledger_lock:
                    batches = await asyncio.to_thread(admission.decide, found, chunk, source.naming)
                yield batches  # without the lock: the next chunk may never be wanted
            else:
                yield (Batch(found, tuple(chunk)),)
            found += len(chunk)

    async def _admit(self, feed: Feed) -> Bookmark | Failure | None:
        """Return the bookmark at which a feed resumes, or the reason why it is not read."""
        bookmarks = self._delivery.bookmarks
        if bookmarks is None:
            return None
        async with self._ledger_lock:
            return await asyncio.to_thread(bookmarks.admit, feed)

    def _resume_position(self, path: str) -> Position | None:
        """Return the position at which the ledger resumes a split file, or None."""
        admission = self._delivery.admission
        return admission.resume_position(path) if admission else None

    def _splits_of(self, source: FileSource, path: str, split_file: SplitFile) -> Iterator[Split]:
        """Return the splits of a file. Iterating blocks: do it in a thread."""
        from asyncbatch.sources.splitter import Splitter
        from asyncbatch.storage.opener import Opener

        work = source.record_work
        pointer = work.records if work else None
        files = source.files
        return Splitter(path, split_file, files.sizes, pointer, Opener(files)).splits()
