"""Restore input order; settle whole files."""

from __future__ import annotations

import asyncio
from collections import deque
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
    """Passes parts on in some order, and holds back those that come too early."""

    async def admit(self, batch: Batch) -> None:
        """Wait until a part of `batch` may come."""
        ...

    def pass_on(self, found: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        """Take a part; yield the parts whose turn it is now."""
        ...


class InputOrder:
    """Passes parts on in the order of their batches.

    The first unfinished batch is the head: its parts pass at once. Work on other batches pauses
    while more than `most` bytes of rows are held. So the head must never wait behind another batch:
    each lane needs a worker of its own.
    """

    def __init__(self, first: int = 0, *, most: int = Sizes().held) -> None:
        self._head = first, 0
        self._most = most
        self._held: dict[tuple[int, int], deque[BatchPart | SettledInputs]] = {}
        self._bytes = 0
        self._changed = asyncio.Event()

    async def admit(self, batch: Batch) -> None:
        """Wait until a part of `batch` may come."""
        while batch.key != self._head and self._bytes > self._most:
            self._changed.clear()
            await self._changed.wait()

    def pass_on(self, found: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        key = found.batch.key
        if key != self._head:
            self._held.setdefault(key, deque()).append(found)
            self._bytes += _size(found)
            return
        yield found
        last = found
        while isinstance(last, SettledInputs) and last.batch.key == self._head:
            self._head = _follows(last)
            self._changed.set()
            released = self._held.pop(self._head, ())
            for last in released:
                self._bytes -= _size(last)
                yield last
            if not released:
                return


class SplitOrder:
    """Passes everything on at once, except the splits of a file, which pass in order.

    The number of splits in flight bounds what it holds.
    """

    def __init__(self) -> None:
        self._files: dict[int, InputOrder] = {}

    def pass_on(self, found: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        batch = found.batch
        if batch.split is None:
            yield found
            return
        order = self._files.setdefault(batch.start, InputOrder(batch.start))
        for passed in order.pass_on(found):
            yield passed
            split = passed.batch.split
            if isinstance(passed, SettledInputs) and split is not None and split.end:
                del self._files[batch.start]


class SourceOrder:
    """The input order of each source. No source waits for another; feeds do not wait."""

    def __init__(self, job: Job, *, most: int) -> None:
        self._orders: dict[int, InputOrder] = {
            number: InputOrder(number * SOURCE_SPAN, most=most) for number, _ in job.file_sources
        }
        self._feeds = SplitOrder()

    async def admit(self, batch: Batch) -> None:
        if batch.source in self._orders:
            await self._orders[batch.source].admit(batch)

    def pass_on(self, found: BatchPart | SettledInputs) -> Iterator[BatchPart | SettledInputs]:
        return self._orders.get(found.batch.source, self._feeds).pass_on(found)


class OrderedLane:
    """A lane whose results wait until the order has room for them."""

    def __init__(self, lane: Lane, order: Order) -> None:
        self._lane, self._order = lane, order

    async def run(self, batch: Batch) -> AsyncIterator[Part]:
        async for part in self._lane.run(batch):
            await self._order.admit(batch)
            yield part


def _follows(settled: SettledInputs) -> tuple[int, int]:
    """Return the key of the batch that follows one that is settled."""
    start, number = settled.batch.key
    split = settled.batch.split
    if split is None or split.end:
        return start + settled.done, 0
    return start, number + 1


def _size(found: BatchPart | SettledInputs) -> int:
    if isinstance(found, SettledInputs) or found.part.rows is None:
        return _PART_BYTES
    return _PART_BYTES + len(found.part.rows.payload)


class WholeFiles:
    """Passes on the parts of a file when it is finished, and none if it failed.

    A file fails if its worker dies, or if it proves unreadable near its end. The parts of a split
    file pass as they come.
    """

    def __init__(self) -> None:
        self._held: dict[int, IO[bytes]] = {}

    def pass_on(self, found: BatchPart | SettledInputs) -> Iterator[BatchPart]:
        """Take a part; yield the parts of finished files. Raises OSError for a full disk."""
        start = found.batch.start
        if isinstance(found, SettledInputs):
            self._discard(start)
        elif found.part.counts is not None and not len(found.part):
            if start in self._held:  # it has only now proved to be huge
                yield from self._release(found)
                self._discard(start)
            yield found
        elif not len(found.part):
            self._hold(start, found.part)
        else:
            if start in self._held:
                part = found.part
                if part.errors.get(0) is None or 0 in part.rejected:
                    yield from self._release(found)
                self._discard(start)
            yield found

    def close(self) -> None:
        """Discard the held parts."""
        for start in list(self._held):
            self._discard(start)

    def _hold(self, start: int, part: Part) -> None:
        import pickle
        import tempfile

        spool = self._held.get(start)
        if spool is None:
            spool = self._held[start] = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - closed by `_drop`
        pickle.dump(part, spool, pickle.HIGHEST_PROTOCOL)

    def _release(self, found: BatchPart) -> Iterator[BatchPart]:
        import pickle

        spool = self._held[found.batch.start]
        end = spool.tell()
        spool.seek(0)
        while spool.tell() < end:
            yield BatchPart(found.batch, pickle.load(spool))  # noqa: S301 - our own words

    def _discard(self, start: int) -> None:
        if start in self._held:
            self._held.pop(start).close()
