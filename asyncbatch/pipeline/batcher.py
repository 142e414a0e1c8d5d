"""Batches of files, and the merged batches of several sources."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from asyncbatch.core.batches import SOURCE_SPAN, Batch
from asyncbatch.core.records import STDIN
from asyncbatch.pipeline.splits import SplitFileReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from asyncbatch.core.batches import Split, SplitFile
    from asyncbatch.core.records import Position

    # Finds the splits of a file; iterated in a thread.
    FindSplits = Callable[[str, SplitFile], Iterator[Split]]

T = TypeVar("T")

FIRST_SIZE = 64  # files of the first batch: few, so that each worker soon gets a batch
MAX_SIZE = 2048  # files of the largest batch


class Batcher:
    """An async iterator that groups chunks of paths into batches, for one consumer at a time.

    The consumer calls `settle` or `settle_without` for each batch. Without a fixed `size` the size
    adapts to the files: it doubles while workers finish batches, up to `max_size` files. If a
    worker returns a batch unfinished (at its limit of bytes or time), the size shrinks to the
    number of finished files. Returned files come first; prepared parts come at once. Standard input
    has a batch of its own: after a crash at another file it could not be read again. The iterator
    ends when the chunks have ended and each batch is settled. `pause` is in seconds, after each
    batch. With `fills` a batch waits until it is full: None is for batches of a fixed `size`.

    A file that must be split comes again as splits, which `splits_of` finds ahead; later files wait
    until it is done. If `position_of` returns a position for a path, that path has a batch of its
    own, which resumes there.
    """

    def __init__(
        self,
        chunks: AsyncIterator[Sequence[Batch]],
        size: int | None = None,
        pause: float = 0.0,
        splits_of: FindSplits | None = None,
        position_of: Callable[[str], Position | None] | None = None,
        *,
        max_size: int = MAX_SIZE,
        fills: bool | None = None,
    ) -> None:
        # Splits of a file that may be in flight. None: by the number of processors.
        self.max_splits_ahead: int | None = None
        self.found: int = 0  # number of paths so far
        self.exhausted: bool = False  # whether the chunks have ended, so that `found` is the total
        self.unsettled: int = 0  # number of batches that were given out and are not settled
        self._chunks, self._pause = chunks, pause
        self._fixed = size is not None
        self._fills = self._fixed if fills is None else fills
        self._max_size = size or max_size
        self._size = size or FIRST_SIZE
        self._ranges: list[tuple[int, tuple[str, ...]]] = []  # a heap of (first number, paths)
        self._prepared: deque[Batch] = deque()
        self._alone: set[int] = set()  # numbers of files that have a batch of their own
        self._splits_of, self._position_of = splits_of, position_of
        self._split_files: dict[int, SplitFileReader] = {}
        self._has_given = False
        self._stopped = False
        self._changed = asyncio.Event()
        self._waiting: asyncio.Future[Any] | None = None
        self._pulling: asyncio.Future[Sequence[Batch] | None] | None = None  # the next chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch. Raises StopAsyncIteration at the end or after `stop`."""
        if self._pause and self._has_given and not self._split_files:
            await self._wait_for(asyncio.sleep(self._pause))
        while not self._stopped:
            if (split_file := self._next_split_file()) is not None:
                batch = await self._next_split(split_file)
                if batch is None:
                    continue
                self.unsettled += 1
                return batch
            if self._is_ready():
                self.unsettled += 1
                self._has_given = True
                return self._take_batch()
            if self._prepared:
                self.unsettled += 1
                return self._prepared.popleft()
            if not self.exhausted:
                await self._pull()
            elif self.unsettled:
                self._changed.clear()
                await self._wait_for(self._changed.wait())
            else:
                break
        raise StopAsyncIteration

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, split_file: SplitFile | None = None
    ) -> None:
        """Note that the first `done` paths of `batch` are done. The other paths come again.

        `halve`: its worker died at an unknown file, so the next batches have at most half of the
        other paths, until that file is alone. `split_file`: the first of the other paths must be
        split.
        """
        self.unsettled -= 1
        self._changed.set()
        if batch.split is not None:
            file = self._split_files.get(batch.start)
            if file and file.settle(batch.split, is_refused=split_file is not None):
                del self._split_files[batch.start]
            return
        rest = batch.paths[done:]
        if split_file is not None and self._splits_of is not None and rest:
            number, path = batch.start + done, rest[0]
            self._split_files[number] = SplitFileReader(
                number, path, self._splits_of(path, split_file), self.max_splits_ahead
            )
            self._push(number + 1, rest[1:])
            return
        self._push(batch.start + done, rest)
        if halve:
            self._size = max(1, len(rest) // 2)
        elif batch.prepared_part is not None:
            pass
        elif not rest:
            self._size = min(self._max_size, max(self._size, 2 * len(batch.paths)))
        elif not self._fixed:
            self._size = max(1, done)

    def end_splits(self, number: int) -> None:
        """Give no more splits of a file, except the last one."""
        if number in self._split_files:
            self._split_files[number].cut_short()

    def _next_split_file(self) -> SplitFileReader | None:
        """Return the file whose splits are next, or None."""
        number = min(self._split_files, default=None)
        if number is None or (self._ranges and self._ranges[0][0] < number):
            return None
        return self._split_files[number]

    async def _next_split(self, split_file: SplitFileReader) -> Batch | None:
        """Return the next split of a file, or None while it must wait."""
        if split_file.has_next:
            return await self._wait_for(split_file.next_split())
        self._changed.clear()
        await self._wait_for(self._changed.wait())
        return None

    def settle_without(self, batch: Batch, done: int, file: int, *, retry: bool) -> None:
        """Note that the first `done` paths are done. The other paths come again, without `file`.

        With `retry` the file number `file` comes again alone, else not at all.
        """
        self.unsettled -= 1
        place = file - batch.start
        self._push(batch.start + done, batch.paths[done:place])
        if retry:
            self._alone.add(file)
            self._push(file, batch.paths[place : place + 1])
        self._push(file + 1, batch.paths[place + 1 :])
        self._changed.set()

    def _push(self, start: int, paths: tuple[str, ...]) -> None:
        if paths:
            heapq.heappush(self._ranges, (start, paths))

    def stop(self) -> None:
        """Give no more batches; `__anext__` ends even while it waits."""
        self._stopped = True
        for waiting in (self._waiting, self._pulling):
            if waiting is not None:
                waiting.cancel()

    async def aclose(self) -> None:
        """Stop; there are no resources to release."""
        self.stop()

    def _is_ready(self) -> bool:
        if not self._ranges:
            return False
        if self._prepared and self._prepared[0].start < self._ranges[0][0]:
            return False
        self._join_ranges()
        # Paths before a split file are not joined with paths after it.
        if not self._fills or self._prepared or self.exhausted or self._split_files:
            return True
        start, paths = self._ranges[0]
        # A range that lies between two batches never grows, so do not wait for more.
        return len(paths) >= self._size or start + len(paths) < self.found or start in self._alone

    def _join_ranges(self) -> None:
        """Join the first ranges of paths while they are adjacent and short."""
        start, paths = self._ranges[0]
        while len(paths) < self._size and len(self._ranges) > 1 and start not in self._alone:
            heapq.heappop(self._ranges)
            following, more = self._ranges[0]
            if following != start + len(paths) or following in self._alone:
                heapq.heappush(self._ranges, (start, paths))
                return
            paths += more
            heapq.heapreplace(self._ranges, (start, paths))

    def _take_batch(self) -> Batch:
        start, paths = heapq.heappop(self._ranges)
        self._alone.discard(start)
        size = min(self._size, len(paths))
        resume = None
        if self._position_of is not None:
            size, resume = self._up_to_resumed(paths[:size])
        if STDIN in paths[:size]:
            size = paths.index(STDIN) or 1
        self._push(start + size, paths[size:])
        return Batch(start, paths[:size], resume=resume)

    def _up_to_resumed(self, paths: Sequence[str]) -> tuple[int, Position | None]:
        """Return the number of paths before the first resumed one, and its position if it is first.

        If the first path is resumed, the number is 1.
        """
        for place, path in enumerate(paths):
            if self._position_of and (position := self._position_of(path)):
                return (place, None) if place else (1, position)
        return len(paths), None

    async def _pull(self) -> None:
        """Add the next chunk of paths, if it comes before `stop` and before a batch is settled.

        Paths of a settled batch may come again, and a watched folder may have no other for days.
        """
        if self._pulling is None:
            self._pulling = asyncio.ensure_future(anext(self._chunks, None))
        self._changed.clear()
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            both = (self._pulling, changed)
            await self._wait_for(asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED))
        except BaseException:
            self._pulling.cancel()
            raise
        finally:
            changed.cancel()
        if self._stopped or not self._pulling.done():
            return
        chunk, self._pulling = self._pulling.result(), None
        if chunk is None:
            self.exhausted = True
        for batch in chunk or ():
            if batch.prepared_part is not None:
                self._prepared.append(batch)
            else:
                self._push(batch.start, batch.paths)
            self.found += len(batch.paths)

    async def _wait_for(self, awaitable: Awaitable[T]) -> T | None:
        """Return the result of `awaitable`, or None if `stop` comes first."""
        waiting = asyncio.ensure_future(awaitable)
        self._waiting = waiting
        try:
            await asyncio.wait((waiting,))
        finally:
            self._waiting = None
            waiting.cancel()
        return None if waiting.cancelled() else waiting.result()


class BatchSource(Protocol):
    """An async iterator of batches for one consumer at a time, which must settle each batch."""

    @property
    def found(self) -> int:
        """The number of inputs that are known so far."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether `found` is the total."""
        ...

    @property
    def unsettled(self) -> int:
        """The number of batches that were given out and are not settled."""
        ...

    def __aiter__(self) -> Self:
        """Return itself."""
        ...

    async def __anext__(self) -> Batch:
        """Return the next batch. Raises StopAsyncIteration at the end or after `stop`."""
        ...

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, split_file: SplitFile | None = None
    ) -> None:
        """Note that the first `done` inputs of `batch` are done; see `Batcher.settle`."""
        ...

    def settle_without(self, batch: Batch, done: int, file: int, *, retry: bool) -> None:
        """Settle a batch. With `retry`, input `file` comes again alone, else not at all."""
        ...

    def end_splits(self, number: int) -> None:
        """Give no more splits of an input, except the last one."""
        ...

    def stop(self) -> None:
        """Give no more batches."""
        ...

    async def aclose(self) -> None:
        """Cancel all work in progress and release everything."""
        ...


class MergedBatches:
    """Several batch sources as one. A source that is ready does not wait for the others."""

    def __init__(self, batch_sources: Sequence[BatchSource]) -> None:
        self._batch_sources = batch_sources
        self._pending: dict[asyncio.Future[Batch | None], int] = {}
        self._is_started = False

    @property
    def found(self) -> int:
        return sum(batch_source.found for batch_source in self._batch_sources)

    @property
    def exhausted(self) -> bool:
        return all(batch_source.exhausted for batch_source in self._batch_sources)

    @property
    def unsettled(self) -> int:
        return sum(batch_source.unsettled for batch_source in self._batch_sources)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch. Cancellable: no batch is lost."""
        if not self._is_started:
            self._is_started = True
            for number in range(len(self._batch_sources)):
                self._pull(number)
        while self._pending:
            await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
            # The first pending one that is done: the source of the last batch is now the last.
            ready = next(future for future in self._pending if future.done())
            number = self._pending.pop(ready)
            batch = ready.result()
            if batch is not None:
                self._pull(number)
                return batch
        raise StopAsyncIteration

    def _pull(self, number: int) -> None:
        self._pending[asyncio.ensure_future(anext(self._batch_sources[number], None))] = number

    def settle(
        self, batch: Batch, done: int, *, halve: bool = False, split_file: SplitFile | None = None
    ) -> None:
        self._source_of(batch.start).settle(batch, done, halve=halve, split_file=split_file)

    def settle_without(self, batch: Batch, done: int, file: int, *, retry: bool) -> None:
        self._source_of(batch.start).settle_without(batch, done, file, retry=retry)

    def end_splits(self, number: int) -> None:
        self._source_of(number).end_splits(number)

    def stop(self) -> None:
        for batch_source in self._batch_sources:
            batch_source.stop()

    async def aclose(self) -> None:
        pending = list(self._pending)
        self._pending.clear()
        for future in pending:
            future.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for batch_source in self._batch_sources:
            await batch_source.aclose()

    def _source_of(self, number: int) -> BatchSource:
        return self._batch_sources[number // SOURCE_SPAN]
