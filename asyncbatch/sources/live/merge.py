"""Several live sources merged by event time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncbatch.sources.base import SelectingSource
from asyncbatch.sources.iterables import IterableSource
from asyncbatch.sources.live.distinct import check_distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncbatch.sources.base import LiveChunk, LiveSource


class MergedSources:
    """Reads several sources: among the ready ones, that with the earliest event time.

    So windows close early, and little is buffered. Sources with equal or unknown times take turns.
    Each source has at most one read in progress. For one task. Raises UsageError for two sources
    that read the same file.
    """

    def __init__(self, sources: Sequence[LiveSource]) -> None:
        check_distinct(
            (source.name, source.selection if isinstance(source, SelectingSource) else None)
            for source in sources
            if not isinstance(source, IterableSource)
        )
        self.sources = sources
        self._reads: dict[LiveSource, asyncio.Task[LiveChunk | None]] = {}
        self._turns = {source.name: 0 for source in sources}
        self._turn = 0
        self._event_time_of: Callable[[str], int | None] = lambda _: None

    @property
    def is_over(self) -> bool:
        """Whether all sources are over."""
        return all(source.is_over for source in self.sources) and not self._reads

    def use_event_times(self, event_time_of: Callable[[str], int | None]) -> None:
        """Set the function that returns the event time of the source with a name.

        It returns None if the time is unknown.
        """
        self._event_time_of = event_time_of

    async def read(self, timeout: float | None) -> tuple[LiveSource, LiveChunk] | None:  # noqa: ASYNC109 - see `LiveSource`
        """Return the next chunk and its source, None after `timeout` seconds or `wake`.

        Raises the errors of `LiveSource.read`.
        """
        if len(self.sources) == 1:
            source = self.sources[0]
            chunk = await source.read(timeout)
            return None if chunk is None else (source, chunk)
        found = await self._read_now()
        if found is None and timeout != 0:
            # `_read_now` has started a read of each source that had no chunk.
            await asyncio.wait(
                self._reads.values(), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            found = await self._read_now()
        return found

    async def _read_now(self) -> tuple[LiveSource, LiveChunk] | None:
        """Return a chunk without a wait; start reads of the sources that have none."""
        for source in self._by_event_time():
            task = self._reads.get(source)
            if task is None:
                chunk = await source.read(0)
            elif task.done():
                del self._reads[source]
                chunk = task.result()
            else:
                continue
            if chunk is not None:
                self._turn += 1
                self._turns[source.name] = self._turn
                return source, chunk
            self._reads[source] = asyncio.create_task(source.read(None))
        return None

    def _by_event_time(self) -> Sequence[LiveSource]:
        sources = [one for one in self.sources if not one.is_over or one in self._reads]
        reached = {source.name: self._event_time_of(source.name) for source in sources}
        least = min((time for time in reached.values() if time is not None), default=0)

        def order(source: LiveSource) -> tuple[int, int]:
            time = reached[source.name]
            return max(0, (least if time is None else time) - least), self._turns[source.name]

        return sorted(sources, key=order)

    async def drain(self) -> list[tuple[LiveSource, LiveChunk]]:
        """Stop reading; return the chunks that were read, and the rest of iterables."""
        reads, self._reads = self._reads, {}
        for task in reads.values():
            task.cancel()
        await asyncio.gather(*reads.values(), return_exceptions=True)
        found = [
            (source, chunk)
            for source, task in reads.items()
            if not task.cancelled() and (chunk := task.result()) is not None
        ]
        given = [source for source in self.sources if isinstance(source, IterableSource)]
        rests = await asyncio.gather(*(source.drain() for source in given))
        for source, rest in zip(given, rests, strict=True):
            found += [(source, chunk) for chunk in rest]
        return found

    def wake(self) -> None:
        """End the current wait of `read`."""
        for source in self.sources:
            source.wake()

    async def close(self) -> None:
        """Cancel all reads and close all sources."""
        for task in self._reads.values():
            task.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)
        for source in self.sources:
            source.close()
