"""The first records of a source and no more: read one batch after another, in its order.

What is behind them is not even asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from msgspec import structs

from asyncbatch.failures import FeedError
from asyncbatch.feeding import end_piece, piece_of
from asyncbatch.records import Arrival, Batch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncbatch.feeds import FeedSource
    from asyncbatch.records import Huge
    from asyncbatch.supplies import Supply


class Sample:
    """The batches of one source as far as its first `limit` records: see `supplies.Supply`.

    Tell it with `count` how many were read. No two batches are given at a time, and what is in
    pieces comes to its end.
    """

    def __init__(self, batches: Supply, limit: int) -> None:
        self.unsettled = 0
        self._batches, self._left = batches, limit
        self._open: int | None = None
        """The number of the input that is in the midst of its pieces."""
        self._settled = asyncio.Event()
        self._settled.set()
        self._stopped = False

    @property
    def found(self) -> int:
        """See `Supply`."""
        return self._batches.found

    @property
    def exhausted(self) -> bool:
        """See `Supply`."""
        return self._batches.exhausted

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """See `Supply`."""
        await self._settled.wait()
        if self._left <= 0 and self._open is not None:
            self._batches.end_pieces(self._open)
        if self._stopped or (self._left <= 0 and self._open is None):
            raise StopAsyncIteration
        batch = await anext(self._batches)
        if batch.piece is not None:
            self._open = None if batch.piece.end else batch.start
        self.unsettled += 1
        self._settled.clear()
        return structs.replace(batch, limit=max(0, self._left))

    def count(self, records: int) -> None:
        """Take note that so many records were read."""
        self._left -= records

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, huge: Huge | None = None
    ) -> None:
        """See `Supply`."""
        self._batches.settle(batch, done, halve=halve, huge=huge)
        self._settle()

    def settle_without(self, batch: Batch, done: int, file: int, *, again: bool) -> None:
        """See `Supply`."""
        self._batches.settle_without(batch, done, file, again=again)
        self._settle()

    def end_pieces(self, number: int) -> None:
        """See `Supply`."""
        self._batches.end_pieces(number)

    def stop(self) -> None:
        """See `Supply`."""
        self._stopped = True
        self._settled.set()
        self._batches.stop()

    async def aclose(self) -> None:
        """See `Supply`."""
        await self._batches.aclose()

    def _settle(self) -> None:
        self.unsettled -= 1
        self._settled.set()


class FeedBatches:
    """What comes of feeds, one feed after another, nothing before it is asked for.

    See `supplies.Supply`; who takes batches of it waits until each is settled.
    """

    exhausted = True
    unsettled = 0

    def __init__(self, source: FeedSource, first: int) -> None:
        self._source, self._first = source, first
        self._cut: set[int] = set()
        self._given = self._all()
        self._waiting: asyncio.Future[Batch | None] | None = None
        self._stopped = False

    @property
    def found(self) -> int:
        """See `Supply`."""
        return len(self._source.feeds)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """See `Supply`."""
        if self._stopped:
            raise StopAsyncIteration
        self._waiting = asyncio.ensure_future(anext(self._given, None))
        await asyncio.wait((self._waiting,))
        batch = None if self._waiting.cancelled() else self._waiting.result()
        if batch is None:
            raise StopAsyncIteration
        return batch

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, huge: Huge | None = None
    ) -> None:
        """See `Supply`: nobody waits for that."""

    def settle_without(self, batch: Batch, done: int, file: int, *, again: bool) -> None:
        """See `Supply`: nobody waits for that."""

    def end_pieces(self, number: int) -> None:
        """See `Supply`."""
        self._cut.add(number)

    def stop(self) -> None:
        """See `Supply`."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def aclose(self) -> None:
        """See `Supply`."""
        self.stop()
        if self._waiting is not None:
            await asyncio.wait((self._waiting,))
        await self._given.aclose()

    async def _all(self) -> AsyncGenerator[Batch, None]:
        for number, feed in enumerate(self._source.feeds, self._first):
            pieces, failure = 0, None
            last = Arrival(feed.name)
            try:
                async with aclosing(feed.arrivals(None)) as arrivals:
                    async for last in arrivals:
                        yield Batch(number, (feed.name,), piece_of(pieces, last))
                        pieces += 1
                        if number in self._cut:
                            break
            except FeedError as error:
                failure = error.failure
            yield Batch(number, (feed.name,), end_piece(feed, pieces, last, failure))
