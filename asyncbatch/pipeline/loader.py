"""Load rows into the sink and commit with the ledger."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain
from operator import ne
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from asyncbatch.config.job import DEFAULT_PATIENCE
from asyncbatch.core.batches import BatchPart, Rows
from asyncbatch.core.entries import Extent
from asyncbatch.core.records import Failure
from asyncbatch.core.settings import Sizes
from asyncbatch.formats.decoder import decode
from asyncbatch.sinks.block import ColumnBlock, join_blocks, make_block
from asyncbatch.sinks.dead_letters import record_dead_letter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from asyncbatch.core.entries import Entry
    from asyncbatch.pipeline.resume.journal import Journal, ResumedRows
    from asyncbatch.sinks.base import BatchSink, Refusal
    from asyncbatch.sinks.target import Target
    from asyncbatch.sinks.text_files import FileSink


class PendingPart:
    """A part with `rows_left` rows that are not loaded yet."""

    def __init__(self, batch_part: BatchPart) -> None:
        self.batch_part = batch_part
        self.rows = batch_part.part.rows or Rows(b"", 0)
        self.rows_left = self.rows.count
        self.rejected_records: dict[tuple[int, int], tuple[int, str]] = {}
        """By file and record: a row that was refused, and why."""
        self.rejected_counts: Counter[int] = Counter()
        """How many, by file."""
        self.extents: list[Extent | None] = []
        """where the rows of each file are in a target file"""
        batch_part.part.rows = None
        self.is_settled = False
        self._block: ColumnBlock | None = None
        self._objects: list[dict[str, Any]] | None = None

    def add_extent(self, place: int, extent: Extent) -> None:
        """Extend the extent of the file at `place`."""
        if not self.extents:
            self.extents = [None] * max(1, len(self.batch_part.part))
        before = self.extents[place]
        self.extents[place] = before.merged(extent) if before else extent

    def drop_rows(self) -> None:
        """Release the loaded rows."""
        self.rows = Rows(b"", 0)
        self._block = self._objects = None

    def objects(self, rows: range) -> list[dict[str, Any]]:
        """Return some rows as the objects that they came as."""
        if self._objects is None:
            self._objects = decode(bytes(self.rows.payload))
        return (self._objects or [])[rows.start : rows.stop]

    def columns(self, rows: range, *, of_objects: bool) -> ColumnBlock:
        """Return some rows as columns; they came as columns, or as objects."""
        if of_objects:
            return make_block(self.objects(rows))
        return self.unpack().slice(rows.start, rows.stop)

    def unpack(self) -> ColumnBlock:
        """Return all rows, which came as columns."""
        if self._block is None:
            self._block = ColumnBlock.from_bytes(self.rows.payload)
        return self._block

    def record(self, row: int) -> tuple[int, int]:
        """Return the file and the record that a row was made of."""
        return self.rows.file_indexes[row], self.rows.records[row]

    def origins(self, rows: range) -> Iterator[tuple[int, int, int]]:
        """Yield an id of each row's record, unique within the run."""
        first = self.batch_part.part.start
        for row in rows:
            yield first, *self.record(row)

    def cut(self, start: int, stop: int, *, may_be_empty: bool) -> int:
        """Return the row nearest to `stop`, if possible before it, where a record begins."""
        at = stop
        while at > start and self.record(at) == self.record(at - 1):
            at -= 1
        if at > start or may_be_empty:
            return at
        at = stop
        while at < self.rows.count and self.record(at) == self.record(at - 1):
            at += 1
        return at


RowRanges: TypeAlias = list[tuple[PendingPart, range]]  # rows of one load, by their part


LOAD_BATCH = 10_000  # default rows of one load: a transaction costs as much as some thousand rows
SERVER_BATCH = 20_000  # the same for a server, where each step is a round trip
# The loads of a server share a transaction for this long, within memory: a commit is expensive.
SERVER_TRANSACTION_SECONDS = 0.25
# Parts that wait for a full load. Beyond this number, or the settings' bytes or time, they are
# loaded: a killed run then loses no more.
WAITING_PARTS = 256


class Loader(Protocol):
    """Takes parts in, and gives them back when their rows are in the target.

    Rows wait for `wait_seconds` seconds at most if it is flushed whenever it `is_late`; None if
    they never wait.
    """

    wait_seconds: float | None

    @property
    def is_late(self) -> bool:
        """Whether rows have waited for long enough."""
        ...

    def load(self, batch_part: BatchPart) -> Sequence[BatchPart]:
        """Load the part's rows, or keep them for now; return the parts that are through.

        Raises SinkError if the target is lost.
        """
        ...

    def flush(self) -> Sequence[BatchPart]:
        """Load all waiting rows; return the finished parts. Raises SinkError."""
        ...

    def close(self) -> None:
        """Wait for a load in progress. The target stays open."""
        ...


class LinesLoader:
    """Writes rows as they come; none is ever refused."""

    wait_seconds: float | None = None
    is_late = False

    def __init__(
        self, sink: BatchSink[bytes | bytearray], resumed_rows: ResumedRows | None
    ) -> None:
        self._sink, self._resumed_rows = sink, resumed_rows

    def load(self, batch_part: BatchPart) -> Sequence[BatchPart]:
        rows, batch_part.part.rows = batch_part.part.rows, None
        at = 0
        if self._resumed_rows:
            self._resumed_rows.resume(batch_part)
            at = self._resumed_rows.sink.position
        if rows is not None:
            self._sink.load(rows.payload)
            batch_part.part.written += rows.count
        if self._resumed_rows:
            self._resumed_rows.add_lines(batch_part, rows, at)
        return (batch_part,)

    def flush(self) -> Sequence[BatchPart]:
        return ()

    def close(self) -> None: ...


class TableLoader:
    """Loads rows in batches of `batch_rows`, whatever parts they came in.

    Loads share a transaction for `transaction_seconds` seconds, up to `max_waiting_bytes` bytes.
    While one load runs, the rows of the next are prepared. The rows of one record stay together, if
    they came in one part.
    """

    def __init__(
        self,
        sink: BatchSink[Any],
        batch_rows: int,
        *,
        of_objects: bool,
        rich: bool = False,
        journal: Journal | None = None,
        resumed_rows: ResumedRows | None = None,
        max_waiting_bytes: int = Sizes().waiting,
        wait_seconds: float = DEFAULT_PATIENCE,
        transaction_seconds: float = 0.0,
    ) -> None:
        self.wait_seconds: float | None = wait_seconds
        self._sink, self._batch_rows = sink, batch_rows
        self._max_waiting_bytes, self._transaction_seconds = max_waiting_bytes, transaction_seconds
        self._of_objects, self._rich = of_objects, rich
        self._journal, self._resumed_rows = journal, resumed_rows
        self._pending: deque[PendingPart] = deque()
        self._to_load: deque[tuple[PendingPart, int]] = deque()
        """Parts with rows to load, and the number of the first of these."""
        self._row_count = self._byte_count = 0
        self._early_rejections: dict[int, tuple[Failure, int]] = {}
        """of unfinished files, by batch: the first rejected record, and their number"""
        self._last_commit = time.monotonic()
        self._executor = ThreadPoolExecutor(1) if transaction_seconds else None
        self._load_in_progress: tuple[RowRanges, Future[Sequence[Refusal]]] | None = None
        """the load in progress"""

    @property
    def is_late(self) -> bool:
        waited = time.monotonic() - self._last_commit
        return bool(self._pending) and self.wait_seconds is not None and waited > self.wait_seconds

    def load(self, batch_part: BatchPart) -> Sequence[BatchPart]:
        waiting = PendingPart(batch_part)
        if self._resumed_rows and batch_part.part.entries:
            self._load_waiting()
            waiting.extents = self._resumed_rows.copy(batch_part)
        elif self._resumed_rows and self._resumed_rows.is_resumed(batch_part):
            self._load_waiting()
            self._resumed_rows.resume(batch_part)
        self._pending.append(waiting)
        if waiting.rows_left:
            if self._executor and not self._of_objects:
                waiting.unpack()
            self._to_load.append((waiting, 0))
            self._row_count += waiting.rows_left
            self._byte_count += len(waiting.rows.payload)
        too_many = len(self._pending) > WAITING_PARTS or self._byte_count > self._max_waiting_bytes
        if too_many or self.is_late:
            return self._commit()
        if self._row_count < self._batch_rows:
            return ()
        if time.monotonic() - self._last_commit >= self._transaction_seconds:
            return self._commit()
        self._load_waiting(least=self._batch_rows)
        return ()

    def flush(self) -> Sequence[BatchPart]:
        return self._commit()

    def close(self) -> None:
        if self._executor:
            self._executor.shutdown()

    def _commit(self) -> Sequence[BatchPart]:
        """Load all rows, and commit; return the finished parts.

        All rows of a file are committed together.
        """
        self._load_waiting()
        self._last_commit, self._byte_count = time.monotonic(), 0
        last = self._pending[-1].batch_part.part if self._pending else None
        if last is None or (not len(last) and last.position is None):
            return ()
        through = [waiting.batch_part for waiting in self._pending]
        # Of a resumed file or feed, only the last part has the position.
        latest = {entry.path: entry for found in through for entry in self._entries(found)}
        self._sink.commit(list(latest.values()))
        if self._resumed_rows:
            for waiting in self._pending:
                self._resumed_rows.add(waiting.batch_part, waiting.extents)
        self._pending.clear()
        return through

    def _entries(self, batch_part: BatchPart) -> Sequence[Entry]:
        return self._journal.entries(batch_part) if self._journal else ()

    def _load_waiting(self, least: int = 1) -> None:
        """Load rows while there are at least `least`; settle the finished parts."""
        while self._row_count >= least:
            self._load_one()
        if least == 1:
            self._end_load()
        for waiting in self._pending:
            if not waiting.is_settled and not waiting.rows_left:
                self._settle(waiting)

    def _load_one(self) -> None:
        """Load the first rows, at most `most`."""
        taken = self._take_rows()
        groups = None
        if any(waiting.rows.has_many_rows for waiting, _ in taken):
            groups = _group_numbers(
                [origin for waiting, rows in taken for origin in waiting.origins(rows)]
            )
        payload = self._payload(taken)
        self._row_count -= sum(len(rows) for _, rows in taken)
        if self._executor is None:
            self._note_rejections(taken, self._sink.load(payload, groups))
        else:
            self._end_load()
            self._load_in_progress = taken, self._executor.submit(self._sink.load, payload, groups)

    def _end_load(self) -> None:
        """Wait for the load in progress, if there is one. Raises SinkError."""
        if self._load_in_progress:
            (taken, loading), self._load_in_progress = self._load_in_progress, None
            self._note_rejections(taken, loading.result())

    def _note_rejections(self, taken: RowRanges, refusals: Sequence[Refusal]) -> None:
        """Note the loaded rows, and the rejected ones among them."""
        ends = list(accumulate(len(rows) for _, rows in taken))
        for refusal in refusals:
            at = bisect_right(ends, refusal.row)
            waiting, rows = taken[at]
            row = rows.stop - (ends[at] - refusal.row)
            waiting.rejected_records.setdefault(waiting.record(row), (row, refusal.message))
            waiting.rejected_counts[waiting.rows.file_indexes[row]] += 1
        if self._resumed_rows:
            self._note_extents(
                taken, {refusal.row for refusal in refusals}, self._resumed_rows.sink
            )
        for waiting, rows in taken:
            waiting.rows_left -= len(rows)

    def _payload(self, taken: RowRanges) -> Any:
        """Return rows as the sink takes them."""
        blocks = [waiting.columns(rows, of_objects=self._of_objects) for waiting, rows in taken]
        return join_blocks(blocks, rich=self._rich)

    def _take_rows(self) -> RowRanges:
        """Take the first rows, up to a batch, at the boundary of a record if possible."""
        taken: RowRanges = []
        room = self._batch_rows
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

    def _note_extents(self, taken: RowRanges, rejected: set[int], sink: FileSink) -> None:
        """Take note of where the rows of each file that were just loaded are."""
        sizes = sink.row_sizes
        at, left, number = sink.position - sum(sizes), iter(sizes), 0
        for waiting, rows in taken:
            lengths: Counter[int] = Counter()
            for row in rows:
                if number not in rejected:
                    lengths[waiting.rows.file_indexes[row]] += next(left)
                number += 1
            for place, length in lengths.items():
                waiting.add_extent(place, Extent(at, length, 0, length))
                at += length

    def _settle(self, pending: PendingPart) -> None:
        """Count the written rows, and reject the records of rejected rows."""
        found, rows = pending.batch_part, pending.rows
        pending.is_settled = True
        found.part.written += rows.count - pending.rejected_counts.total()
        for place, refused in pending.rejected_counts.items():
            if place < len(found.part):
                found.part.spooled_rows[place] -= refused
        for (place, _), (row, message) in sorted(pending.rejected_records.items()):
            file, record, line = found.file(place), rows.records[row], rows.lines[row]
            failure = Failure(file, "sink", message, record, line)
            letters = [record_dead_letter(failure, rows.texts[row])] if rows.texts else []
            found.part.reject(place, failure, letters)
            if not len(found.part):  # the file is not finished
                first, count = self._early_rejections.get(found.batch.start, (failure, 0))
                self._early_rejections[found.batch.start] = first, count + 1
        if len(found.part) and (late := self._early_rejections.pop(found.batch.start, None)):
            first, count = late
            found.part.count_rejected(0, count, first)
        pending.drop_rows()


class RecordLoader(TableLoader):
    """Gives a sink its rows as the objects that they are."""

    def _payload(self, taken: RowRanges) -> list[dict[str, Any]]:
        return [row for waiting, rows in taken for row in waiting.objects(rows)]


def _group_numbers(origins: Sequence[tuple[int, int, int]]) -> Sequence[int]:
    """Return a number a row, the same for rows of one record."""
    return list(accumulate(map(ne, origins, chain(origins[:1], origins))))


def make_loader(
    target: Target,
    sink: BatchSink[Any],
    load_batch: int | None,
    *,
    journal: Journal | None,
    resumed_rows: ResumedRows | None,
    sizes: Sizes,
    wait_seconds: float = DEFAULT_PATIENCE,
) -> Loader:
    """Return the loader for `sink`, the sink of `target`. `wait_seconds` is in seconds.

    Finished inputs are reported to the `journal` of a database, or to a file's by `resumed_rows`.
    """
    if target.is_table:
        loader = RecordLoader if target.form == "program" else TableLoader
        return loader(
            sink,
            load_batch or (SERVER_BATCH if target.address else LOAD_BATCH),
            of_objects=not target.columns_grow,
            rich=target.has_rich_types,
            journal=journal,
            resumed_rows=resumed_rows,
            max_waiting_bytes=sizes.waiting,
            wait_seconds=wait_seconds,
            transaction_seconds=SERVER_TRANSACTION_SECONDS if target.address else 0.0,
        )
    return LinesLoader(sink, resumed_rows)
