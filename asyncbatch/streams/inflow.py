"""Several sources read side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncbatch.streams.given import GivenSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncbatch.streams.chunks import Chunk, Source


class Inflow:
    """Reads whichever source has something, each in its turn; one read of each is under way."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self._reads: dict[asyncio.Task[Chunk | None], Source] = {}

    @property
    def is_over(self) -> bool:
        """Whether all sources are."""
        return all(source.is_over for source in self.sources) and not self._reads

    async def read(self, timeout: float | None) -> tuple[Source, Chunk] | None:  # noqa: ASYNC109 - see `Source`
        """Return what has come next and from where; else as `Source.read`."""
        if len(self.sources) == 1:
            source = self.sources[0]
            chunk = await source.read(timeout)
            return None if chunk is None else (source, chunk)
        busy = set(self._reads.values())
        for source in self.sources:
            if source not in busy and not source.is_over:
                self._reads[asyncio.create_task(source.read(None))] = source
        await asyncio.sleep(0)  # so that each has begun
        await asyncio.wait(self._reads, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in list(self._reads):  # those that have waited longest first
            if task.done():
                source = self._reads.pop(task)
                chunk = task.result()
                return None if chunk is None else (source, chunk)
        return None

    async def rest(self) -> list[tuple[Source, Chunk]]:
        """Take no more; return what was taken from elsewhere, and nobody has had so far."""
        reads, self._reads = self._reads, {}
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        found = [
            (source, chunk)
            for task, source in reads.items()
            if not task.cancelled() and (chunk := task.result()) is not None
        ]
        given = [source for source in self.sources if isinstance(source, GivenSource)]
        rests = await asyncio.gather(*(source.rest() for source in given))
        for source, rest in zip(given, rests, strict=True):
            found += [(source, chunk) for chunk in rest]
        return found

    def wake(self) -> None:
        """End the wait of `read`, if there is one."""
        for source in self.sources:
            source.wake()

    async def close(self) -> None:
        """Leave all sources."""
        for task in self._reads:
            task.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)
        for source in self.sources:
            source.close()
