"""The order of parts: input order, order of splits, and whole files."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import IO, TYPE_CHECKING, Protocol

from asyncbatch.core.batches import SOURCE_SPAN, BatchPart, SettledInputs
from asyncbatch.core.settings import Sizes
from asyncbatch.workers.tasks.spool import MEMORY_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncbatch.config.job import Job
    from asyncbatch.core.batches import Batch, Part
    from asyncbatch.workers.engine import Lane

_PART_BYTES = 2048  # rough size of a part without its rows


class Order(Protocol):
    """Passes parts on in an order, and holds back parts that come too early."""

    def begin(self, batch: Batch) -> None:
        """Note that a lane has taken `batch`; `pass_on` will get its end."""
        ...

    async def admit(self, batch: Batch) -> None:
        """Wait until a part of `batch` may be passed to `pass_on`."""
        ...

    def pass_on(self, result: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        """Take a part; yield the parts whose turn it is now."""
        ...


class InputOrder:
    """Passes parts on in the order of their batches.

    The first unfinished batch is the head: its parts pass at once. While more than `max_bytes`
    bytes of rows are held, work on a batch waits for the earlier batches that are in flight, and
    for nothing else. So the earliest batch in flight never waits: it ends, and its lane takes the
    earliest batch that is left. That one must never wait behind another batch on the same worker:
    each lane needs a worker of its own.
    """

    def __init__(self, first: int = 0, *, max_bytes: int = Sizes().held) -> None:
        self._head = first, 0
        self._max_bytes = max_bytes
        self._held: dict[tuple[int, int], deque[BatchPart | SettledInputs]] = {}
        self._bytes = 0
        # The batches that lanes have taken, and whose ends have not come. The batch of a worker
        # that died may be taken again before its first end comes.
        self._in_flight: Counter[tuple[int, int]] = Counter()
        self._changed = asyncio.Event()

    def begin(self, batch: Batch) -> None:
        self._in_flight[batch.key] += 1

    async def admit(self, batch: Batch) -> None:
        while self._bytes > self._max_bytes and min(self._in_flight) < batch.key:
            self._changed.clear()
            await self._changed.wait()

    def pass_on(self, result: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        key = result.batch.key
        if isinstance(result, SettledInputs):
            self._end(key)
        if key != self._head:
            self._held.setdefault(key, deque()).append(result)
            self._bytes += _size(result)
            return
        yield result
        last = result
        while isinstance(last, SettledInputs) and last.batch.key == self._head:
            self._head = _next_key(last)
            released = self._held.pop(self._head, ())
            for last in released:
                self._bytes -= _size(last)
                yield last
            if not released:
                return

    def _end(self, key: tuple[int, int]) -> None:
        self._in_flight[key] -= 1
        if self._in_flight[key] <= 0:
            del self._in_flight[key]
        self._changed.set()


class SplitOrder:
    """Passes results on at once, except the splits of a file, which pass in order.

    The number of held parts is bounded by the number of splits in flight.
    """

    def __init__(self) -> None:
        self._files: dict[int, InputOrder] = {}

    def pass_on(self, result: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        batch = result.batch
        if batch.split is None:
            yield result
            return
        order = self._files.setdefault(batch.start, InputOrder(batch.start))
        for passed in order.pass_on(result):
            yield passed
            split = passed.batch.split
            if isinstance(passed, SettledInputs) and split is not None and split.is_end_marker:
                del self._files[batch.start]


class SourceOrder:
    """The input order of each file source. Sources do not wait for each other; feeds never wait."""

    def __init__(self, job: Job, *, max_bytes: int) -> None:
        self._orders: dict[int, InputOrder] = {
            number: InputOrder(number * SOURCE_SPAN, max_bytes=max_bytes)
            for number, _ in job.file_sources
        }
        self._feeds = SplitOrder()

    def begin(self, batch: Batch) -> None:
        if batch.source in self._orders:
            self._orders[batch.source].begin(batch)

    async def admit(self, batch: Batch) -> None:
        if batch.source in self._orders:
            await self._orders[batch.source].admit(batch)

    def pass_on(self, result: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        return self._orders.get(result.batch.source, self._feeds).pass_on(result)


class OrderedLane:
    """A lane whose parts wait until the order admits them."""

    def __init__(self, lane: Lane, order: Order) -> None:
        self._lane, self._order = lane, order

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        self._order.begin(batch)
        async for part in self._lane.run(batch):
            await self._order.admit(batch)
            yield part


def _next_key(settled: SettledInputs) -> tuple[int, int]:
    """Return the key of the batch after a settled one."""
    start, number = settled.batch.key
    split = settled.batch.split
    if split is None or split.is_end_marker:
        return start + settled.done_count, 0
    return start, number + 1


def _size(result: BatchPart | SettledInputs) -> int:
    if isinstance(result, SettledInputs) or result.part.rows is None:
        return _PART_BYTES
    return _PART_BYTES + len(result.part.rows.payload)


class WholeFiles:
    """Passes on the parts of a file when the file is finished, and none if it failed.

    A file fails if its worker dies, or if its end turns out to be unreadable. The parts of a split
    file pass as they come.
    """

    def __init__(self) -> None:
        self._held: dict[int, IO[bytes]] = {}

    def pass_on(self, result: BatchPart | SettledInputs) -> Iterator[BatchPart]:
        """Take a part; yield the parts of finished files. Raises OSError for a full disk."""
        start = result.batch.start
        if isinstance(result, SettledInputs):
            self._discard(start)
        elif result.part.counts is not None and not len(result.part):
            if start in self._held:  # the file turned out to be huge only now
                yield from self._release(result)
                self._discard(start)
            yield result
        elif not len(result.part):
            self._hold(start, result.part)
        else:
            if start in self._held:
                part = result.part
                if part.errors.get(0) is None or 0 in part.rejected:
                    yield from self._release(result)
                self._discard(start)
            yield result

    def close(self) -> None:
        """Discard the held parts."""
        for start in list(self._held):
            self._discard(start)

    def _hold(self, start: int, part: Part) -> None:
        import pickle
        import tempfile

        spool = self._held.get(start)
        if spool is None:
            spool = self._held[start] = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - closed by `_discard`
        pickle.dump(part, spool, pickle.HIGHEST_PROTOCOL)

    def _release(self, batch_part: BatchPart) -> Iterator[BatchPart]:
        import pickle

        spool = self._held[batch_part.batch.start]
        end = spool.tell()
        spool.seek(0)
        while spool.tell() < end:
            yield BatchPart(batch_part.batch, pickle.load(spool))  # noqa: S301 - this process pickled it

    def _discard(self, start: int) -> None:
        if start in self._held:
            self._held.pop(start).close()
