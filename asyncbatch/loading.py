"""Rows into a target, in batches; the parts that they came with follow when they are in."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from itertools import accumulate, chain
from operator import ne
from typing import TYPE_CHECKING, Any, Protocol

from asyncbatch.codec.decode import decode
from asyncbatch.dead_letters import letter_of_record
from asyncbatch.records import BatchPart, Failure, Rows
from asyncbatch.sinks.block import Block, join, make_block

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.sinks import Sink
    from asyncbatch.sinks.target import Target

LOAD_BATCH = 10_000
"""Rows of one load unless told otherwise: a transaction costs as much as some thousand rows."""
WAITING_PARTS = 256
"""Parts that wait for a batch to be full; beyond, ..."""
WAITING_BYTES = 16 * 1024 * 1024
"""... or beyond so many bytes of rows, what there is is loaded."""


class Loader(Protocol):
    """Takes parts in, and gives them back when their rows are in the target."""

    async def load(self, found: BatchPart) -> Sequence[BatchPart]:
        """Load the part's rows, or keep them for now; return the parts that are through.

        Raises SinkError if the target is lost.
        """
        ...

    async def flush(self) -> Sequence[BatchPart]:
        """Load what was kept; return the parts that are through. Raises SinkError."""
        ...


class LinesLoader:
    """Writes rows as they come; none is ever refused."""

    def __init__(self, sink: Sink[bytes | bytearray]) -> None:
        self._sink = sink

    async def load(self, found: BatchPart) -> Sequence[BatchPart]:
        """See `Loader`."""
        rows, found.part.rows = found.part.rows, None
        if rows is not None:
            await asyncio.to_thread(self._sink.load, rows.payload)
            found.part.written += rows.count
        return (found,)

    async def flush(self) -> Sequence[BatchPart]:
        """See `Loader`."""
        return ()


class _Waiting:
    """A part of whose rows `left` are not loaded yet."""

    def __init__(self, found: BatchPart) -> None:
        self.found = found
        self.rows = found.part.rows or Rows(b"", 0)
        self.left = self.rows.count
        self.refused: dict[tuple[int, int], tuple[int, str]] = {}
        """By file and record: a row that was refused, and why."""
        self.refused_rows = 0
        found.part.rows = None
        self._block: Block | None = None
        self._objects: list[dict[str, Any]] | None = None

    def columns(self, rows: range, *, of_objects: bool) -> Block:
        """Return some rows as columns; they came as such, or as objects."""
        if of_objects:
            if self._objects is None:
                self._objects = decode(bytes(self.rows.payload))
            return make_block((self._objects or [])[rows.start : rows.stop])
        if self._block is None:
            self._block = Block.from_bytes(self.rows.payload)
        return self._block.slice(rows.start, rows.stop)

    def record(self, row: int) -> tuple[int, int]:
        """Return the file and the record that a row was made of."""
        return self.rows.places[row], self.rows.records[row]

    def origins(self, rows: range) -> Iterator[tuple[int, int, int]]:
        """Yield what tells the records of these rows from all others of the run."""
        first = self.found.part.start
        for row in rows:
            yield first, *self.record(row)

    def cut(self, start: int, stop: int, *, may_be_empty: bool) -> int:
        """Return the row nearest `stop`, before it if that can be, where a record's rows begin."""
        at = stop
        while at > start and self.record(at) == self.record(at - 1):
            at -= 1
        if at > start or may_be_empty:
            return at
        at = stop
        while at < self.rows.count and self.record(at) == self.record(at - 1):
            at += 1
        return at


class TableLoader:
    """Loads rows `most` at a time, whatever parts they came in.

    Rows made of one record stay together, as far as they came in one part.
    """

    def __init__(self, sink: Sink[Block], most: int | None, *, of_objects: bool) -> None:
        self._sink, self._most = sink, most or LOAD_BATCH
        self._of_objects = of_objects
        self._waiting: deque[_Waiting] = deque()
        self._to_load: deque[tuple[_Waiting, int]] = deque()
        """Parts with rows to load, and the number of the first of these."""
        self._rows = self._bytes = 0
        self._late: dict[int, list[Failure]] = {}
        """Records refused of files whose last part is still to come, by batch."""

    async def load(self, found: BatchPart) -> Sequence[BatchPart]:
        """See `Loader`."""
        waiting = _Waiting(found)
        self._waiting.append(waiting)
        if waiting.left:
            self._to_load.append((waiting, 0))
            self._rows += waiting.left
            self._bytes += len(waiting.rows.payload)
        too_many = len(self._waiting) > WAITING_PARTS or self._bytes > WAITING_BYTES
        if self._rows >= self._most or too_many:
            await asyncio.to_thread(self._load_batches, least=1 if too_many else self._most)
        return self._through()

    async def flush(self) -> Sequence[BatchPart]:
        """See `Loader`."""
        await asyncio.to_thread(self._load_batches, least=1)
        return self._through()

    def _load_batches(self, least: int) -> None:
        while self._rows >= least:
            self._load_one()

    def _load_one(self) -> None:
        """Load the first rows, `most` of them if there are so many."""
        taken = self._take()
        groups = None
        if any(waiting.rows.several for waiting, _ in taken):
            groups = _groups(
                [origin for waiting, rows in taken for origin in waiting.origins(rows)]
            )
        blocks = [waiting.columns(rows, of_objects=self._of_objects) for waiting, rows in taken]
        refusals = self._sink.load(join(blocks), groups)
        ends = list(accumulate(len(rows) for _, rows in taken))
        for refusal in refusals:
            at = bisect_right(ends, refusal.row)
            waiting, rows = taken[at]
            row = rows.stop - (ends[at] - refusal.row)
            waiting.refused.setdefault(waiting.record(row), (row, refusal.message))
            waiting.refused_rows += 1
        for waiting, rows in taken:
            waiting.left -= len(rows)
            self._rows -= len(rows)

    def _take(self) -> list[tuple[_Waiting, range]]:
        """Take rows from the front, up to a batch, and not part of a record's if that can be."""
        taken: list[tuple[_Waiting, range]] = []
        room = self._most
        while room and self._to_load:
            waiting, start = self._to_load.popleft()
            stop = waiting.rows.count
            if stop - start > room:
                stop = waiting.cut(start, start + room, may_be_empty=bool(taken))
                self._to_load.appendleft((waiting, stop))
                room = 0
            if start < stop:
                taken.append((waiting, range(start, stop)))
            room = max(0, room - (stop - start))
        return taken

    def _through(self) -> Sequence[BatchPart]:
        through = []
        while self._waiting and not self._waiting[0].left:
            waiting = self._waiting.popleft()
            self._bytes -= len(waiting.rows.payload)
            self._settle(waiting)
            through.append(waiting.found)
        return through

    def _settle(self, waiting: _Waiting) -> None:
        """Count what was written, and reject the records that were refused."""
        found, rows = waiting.found, waiting.rows
        found.part.written += rows.count - waiting.refused_rows
        late = self._late.get(found.batch.start, [])
        for (place, _), (row, message) in sorted(waiting.refused.items()):
            file, record, line = found.file(place), rows.records[row], rows.lines[row]
            failure = Failure(file, "sink", message, record, line)
            letters = [letter_of_record(failure, rows.originals[row])] if rows.originals else []
            found.part.reject(place, failure, letters)
            if not len(found.part):  # the file is not finished
                late.append(failure)
                self._late[found.batch.start] = late
        if len(found.part) and late:
            found.part.count_rejected(0, len(late), late[0])
            del self._late[found.batch.start]


def _groups(origins: Sequence[tuple[int, int, int]]) -> Sequence[int]:
    """Return a number a row, the same for rows of one record."""
    return list(accumulate(map(ne, origins, chain(origins[:1], origins))))


def make_loader(target: Target, sink: Sink[Any], load_batch: int | None) -> Loader:
    """Return what brings rows to `sink`, which is `target`'s."""
    if target.is_table:
        return TableLoader(sink, load_batch, of_objects=not target.columns_grow)
    return LinesLoader(sink)
