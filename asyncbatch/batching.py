"""Paths into batches, sized by what earlier batches came to."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Any, Self, TypeVar

from asyncbatch.huge_files import HugeFile
from asyncbatch.records import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from asyncbatch.records import Huge, Piece, Position

    PiecesOf = Callable[[str, Huge], Iterator[Piece]]
    """Finds the pieces of a file, in a thread."""

T = TypeVar("T")

FIRST_SIZE = 64
"""Files of the first batch: few, so that every worker gets some soon."""
MAX_SIZE = 2048
"""Files of the largest batch."""


class Batcher:
    """An async iterator of batches over chunks of paths, for one consumer at a time.

    Without a fixed `size`, batches double while workers finish them, and become as small as
    what was done when a worker gives one back unfinished (it has had its bytes or its time):
    neither thousands of big files nor one tiny one. What was given back goes first. Ends when
    the source has and every batch is settled. `pause` is in seconds, after each batch.

    A file that proves to be huge comes again in pieces, which `pieces_of` finds, some ahead of
    those that are worked on, and nothing behind it before it is through. A path for which
    `reached` knows a position is a batch of its own, to be taken up there.
    """

    def __init__(
        self,
        chunks: AsyncIterator[Sequence[str]],
        size: int | None = None,
        pause: float = 0.0,
        pieces_of: PiecesOf | None = None,
        reached: Callable[[str], Position | None] | None = None,
    ) -> None:
        self.found = 0
        """How many paths the source has given."""
        self.exhausted = False
        """Whether the source has ended, so that `found` is the total."""
        self.unsettled = 0
        """How many batches are given and not settled."""
        self._chunks, self._pause = chunks, pause
        self._fixed = size is not None
        self._max_size = size or MAX_SIZE
        self._size = size or FIRST_SIZE
        self._stretches: list[tuple[int, tuple[str, ...]]] = []  # a heap: in input order
        self._pieces_of, self._reached = pieces_of, reached
        self._huge: dict[int, HugeFile] = {}
        self._given = False
        self._stopped = False
        self._changed = asyncio.Event()
        self._waiting: asyncio.Future[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch. Raises StopAsyncIteration at the end or after `stop`."""
        if self._pause and self._given and not self._huge:
            await self._wait_for(asyncio.sleep(self._pause))
        while not self._stopped:
            if (huge := self._first_huge()) is not None:
                batch = await self._next_piece(huge)
                if batch is None:
                    continue
                self.unsettled += 1
                return batch
            if self._is_ready():
                self.unsettled += 1
                self._given = True
                return self._take()
            if not self.exhausted:
                await self._pull()
            elif self.unsettled:
                self._changed.clear()
                await self._wait_for(self._changed.wait())
            else:
                break
        raise StopAsyncIteration

    def settle(
        self, batch: Batch, done: int, *, lost: bool = False, huge: Huge | None = None
    ) -> None:
        """Take note that the first `done` paths of `batch` are done; the rest comes again.

        After a `lost` batch (its worker died) the next ones are at most half of what remains,
        so that the guilty file is soon alone. If the first of the rest proved to be `huge`, that
        comes again in pieces.
        """
        self.unsettled -= 1
        self._changed.set()
        if batch.piece is not None:
            if (file := self._huge.get(batch.start)) and file.settle(batch.piece):
                del self._huge[batch.start]
            return
        rest = batch.paths[done:]
        if huge is not None and self._pieces_of is not None and rest and not lost:
            number, path = batch.start + done, rest[0]
            self._huge[number] = HugeFile(number, path, self._pieces_of(path, huge))
            if rest[1:]:
                heapq.heappush(self._stretches, (number + 1, rest[1:]))
            return
        if rest:
            heapq.heappush(self._stretches, (batch.start + done, rest))
        if lost:
            self._size = max(1, len(rest) // 2)
        elif not rest:
            self._size = min(self._max_size, max(self._size, 2 * len(batch.paths)))
        elif not self._fixed:
            self._size = max(1, done)

    def end_pieces(self, number: int) -> None:
        """Give no more pieces of a file, but the one at its end."""
        if number in self._huge:
            self._huge[number].cut_short()

    def _first_huge(self) -> HugeFile | None:
        """Return the huge file whose turn it is, if it is any's."""
        number = min(self._huge, default=None)
        if number is None or (self._stretches and self._stretches[0][0] < number):
            return None
        return self._huge[number]

    async def _next_piece(self, huge: HugeFile) -> Batch | None:
        """Return the next piece of a file, or None when others may have their turn."""
        if huge.may_give:
            return await self._wait_for(huge.next_piece())
        self._changed.clear()
        await self._wait_for(self._changed.wait())
        return None

    def stop(self) -> None:
        """Give no more batches; `__anext__` ends even while it waits."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _is_ready(self) -> bool:
        if not self._stretches:
            return False
        self._join()
        # What lies before a huge file is not joined with what lies behind it.
        may_be_small = not self._fixed or self.exhausted or bool(self._huge)
        return may_be_small or len(self._stretches[0][1]) >= self._size

    def _join(self) -> None:
        """Make one of the first stretches as long as they follow on each other and are short."""
        start, paths = self._stretches[0]
        while len(paths) < self._size and len(self._stretches) > 1:
            heapq.heappop(self._stretches)
            following, more = self._stretches[0]
            if following != start + len(paths):
                heapq.heappush(self._stretches, (start, paths))
                return
            paths += more
            heapq.heapreplace(self._stretches, (start, paths))

    def _take(self) -> Batch:
        start, paths = heapq.heappop(self._stretches)
        size = min(self._size, len(paths))
        resume = None
        if self._reached is not None:
            size, resume = self._up_to_resumed(paths[:size])
        if len(paths) > size:
            heapq.heappush(self._stretches, (start + size, paths[size:]))
        return Batch(start, paths[:size], resume=resume)

    def _up_to_resumed(self, paths: Sequence[str]) -> tuple[int, Position | None]:
        """Return how many paths come before one to be resumed; if none, that one's position."""
        for place, path in enumerate(paths):
            if self._reached and (position := self._reached(path)):
                return (place, None) if place else (1, position)
        return len(paths), None

    async def _pull(self) -> None:
        """Add the source's next chunk, if it comes before `stop`."""
        chunk = await self._wait_for(anext(self._chunks, None))
        if self._stopped:
            return
        if chunk is None:
            self.exhausted = True
        elif chunk:
            heapq.heappush(self._stretches, (self.found, tuple(chunk)))
            self.found += len(chunk)

    async def _wait_for(self, awaitable: Awaitable[T]) -> T | None:
        """Return what `awaitable` gives, or None if `stop` comes first."""
        waiting = asyncio.ensure_future(awaitable)
        self._waiting = waiting
        try:
            await asyncio.wait((waiting,))
        finally:
            self._waiting = None
            waiting.cancel()
        return None if waiting.cancelled() else waiting.result()
