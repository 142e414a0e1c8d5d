"""Loaders: the rows of parts into the sink, committed together with the ledger entries."""

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
from asyncbatch.core.ledger_entries import Extent
from asyncbatch.core.records import Failure
from asyncbatch.core.settings import Sizes
from asyncbatch.formats.decoder import decode
from asyncbatch.sinks.columns.block import ColumnBlock, join_blocks
from asyncbatch.sinks.dead_letters import record_dead_letter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from asyncbatch.core.ledger_entries import Entry
    from asyncbatch.pipeline.mirror import TableMirror
    from asyncbatch.pipeline.resume.journal import Journal, ResumedRows
    from asyncbatch.sinks.base import BatchSink, Refusal
    from asyncbatch.sinks.target import Target
    from asyncbatch.sinks.text_files import FileSink


class PendingPart:
    """A part with `rows_left` rows that are not loaded yet."""

    def __init__(self, batch_part: BatchPart) -> None:
        self.batch_part = batch_part
        self.rows: Rows = batch_part.part.rows or Rows(b"", 0)
        self.rows_left: int = self.rows.count
        # By place of the file and number of the record: its first rejected row, and the reason.
        self.rejected_records: dict[tuple[int, int], tuple[int, str]] = {}
        self.rejected_counts: Counter[int] = Counter()  # rejected rows by place of the file
        self.extents: list[Extent | None] = []  # where a target file has the rows of each file
        batch_part.part.rows = None
        self.files: Sequence[str] = ()  # the names of its files, for a table that has them
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
        """Return rows as objects. The part must have objects."""
        if self._objects is None:
            self._objects = decode(bytes(self.rows.payload))
        return (self._objects or [])[rows.start : rows.stop]

    def unpack(self) -> ColumnBlock:
        """Return all rows as columns. The part must have columns."""
        if self._block is None:
            self._block = ColumnBlock.from_bytes(self.rows.payload)
            if self.files:
                from asyncbatch.pipeline.mirror import with_files

                self._block = with_files(self._block, self.files, self.rows.file_indexes)
        return self._block

    def record(self, row: int) -> tuple[int, int]:
        """Return the place of the file and the number of the record of a row."""
        return self.rows.file_indexes[row], self.rows.records[row]

    def origins(self, rows: range) -> Iterator[tuple[int, int, int]]:
        """Yield the id of the record of each row, which is unique within the run."""
        first = self.batch_part.part.start
        for row in rows:
            yield first, *self.record(row)

    def cut(self, start: int, stop: int, *, may_be_empty: bool) -> int:
        """Return the row nearest to `stop` at which a record begins, before it if possible."""
        at = stop
        while at > start and self.record(at) == self.record(at - 1):
            at -= 1
        if at > start or may_be_empty:
            return at
        at = stop
        while at < self.rows.count and self.record(at) == self.record(at - 1):
            at += 1
        return at


RowRanges: TypeAlias = list[tuple[PendingPart, range]]  # the rows of one load, by part


# Default rows of one load: a transaction costs as much as several thousand rows.
LOAD_BATCH = 10_000
SERVER_BATCH = 20_000  # the same for a server, where each step is a round trip
# Loads into a server share a transaction for this time, since a commit is expensive.
SERVER_TRANSACTION_SECONDS = 0.25
# The largest number of parts that wait for a full load. There are also limits of bytes and of time
# in the settings. Beyond each, the parts are loaded, so that a killed run does not lose more work.
WAITING_PARTS = 256


class Loader(Protocol):
    """Takes parts, and returns each part when its rows are in the target.

    Rows wait for at most `wait_seconds` if the caller flushes whenever the loader `is_late`. None:
    rows never wait.
    """

    wait_seconds: float | None

    @property
    def is_late(self) -> bool:
        """Whether rows have waited for `wait_seconds`."""
        ...

    def load(self, batch_part: BatchPart) -> Sequence[BatchPart]:
        """Load the rows of a part, or let them wait; return the finished parts.

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
    """Writes rows to a file as they come. No row is rejected."""

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


class GroupLoader:
    """Adds records to the aggregates of their groups, whose rows are written at the end."""

    wait_seconds: float | None = None
    is_late = False

    def __init__(self, sink: BatchSink[bytes | bytearray]) -> None:
        self._sink = sink

    def load(self, batch_part: BatchPart) -> Sequence[BatchPart]:
        rows, batch_part.part.rows = batch_part.part.rows, None
        if rows is not None:
            self._sink.load(rows.payload)
        return (batch_part,)

    def flush(self) -> Sequence[BatchPart]:
        return ()

    def close(self) -> None: ...


class TableLoader:
    """Loads rows in batches of `batch_rows`, across the borders of parts.

    Loads share a transaction for `transaction_seconds`, up to `max_waiting_bytes`. While one load
    runs, the rows of the next one are prepared. The rows of a record stay together if they came in
    one part. `finds_columns`: the first batch determines the columns of the target, so it has
    `batch_rows` rows unless the input ends earlier, or unless the rows exceed `max_waiting_bytes`.
    `sorts_columns`: the fields of a load come by name, because the order of its rows is by chance.
    With a `mirror`, rows get the name of their file, and replace its earlier rows.
    """

    def __init__(
        self,
        sink: BatchSink[Any],
        batch_rows: int,
        *,
        journal: Journal | None = None,
        resumed_rows: ResumedRows | None = None,
        max_waiting_bytes: int = Sizes().waiting,
        wait_seconds: float = DEFAULT_PATIENCE,
        transaction_seconds: float = 0.0,
        finds_columns: bool = False,
        sorts_columns: bool = False,
        mirror: TableMirror | None = None,
    ) -> None:
        self._mirror = mirror
        self._replaced: list[str] = []  # files whose earlier rows end before the next load
        self._finds_columns, self._sorts_columns = finds_columns, sorts_columns
        # Whether the first batch must be full, however slowly its rows come.
        self._needs_full_batch = finds_columns
        self.wait_seconds: float | None = wait_seconds
        self._sink, self._batch_rows = sink, batch_rows
        self._max_waiting_bytes, self._transaction_seconds = max_waiting_bytes, transaction_seconds
        self._journal, self._resumed_rows = journal, resumed_rows
        self._pending: deque[PendingPart] = deque()
        # Parts with rows to load, and the number of the first of these rows.
        self._to_load: deque[tuple[PendingPart, int]] = deque()
        self._row_count = self._byte_count = 0
        # By the batch of an unfinished file: its first rejected record, and the number of these.
        self._early_rejections: dict[int, tuple[Failure, int]] = {}
        self._last_commit = time.monotonic()
        self._executor = ThreadPoolExecutor(1) if transaction_seconds else None
        self._load_in_progress: tuple[RowRanges, Future[Sequence[Refusal]]] | None = None

    @property
    def is_late(self) -> bool:
        if self._needs_full_batch:
            return False
        waited = time.monotonic() - self._last_commit
        return bool(self._pending) and self.wait_seconds is not None and waited > self.wait_seconds

    def load(self, batch_part: BatchPart) -> Sequence[BatchPart]:
        pending = PendingPart(batch_part)
        if self._resumed_rows and batch_part.part.entries:
            self._load_waiting()
            pending.extents = self._resumed_rows.copy(batch_part)
            self._needs_full_batch = False  # the rows of the earlier run have brought a header
        elif self._resumed_rows and self._resumed_rows.is_resumed(batch_part):
            self._load_waiting()
            self._resumed_rows.resume(batch_part)
        if self._mirror is not None:
            pending.files = self._mirror.files(batch_part)
            self._replaced += self._mirror.replaced(batch_part, pending.files)
        self._pending.append(pending)
        if pending.rows_left:
            if self._executor:
                pending.unpack()
            self._to_load.append((pending, 0))
            self._row_count += pending.rows_left
            self._byte_count += len(pending.rows.payload)
        too_many = len(self._pending) > WAITING_PARTS and not self._needs_full_batch
        if too_many or self._byte_count > self._max_waiting_bytes or self.is_late:
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
        finished = [pending.batch_part for pending in self._pending]
        # Of a resumed file or feed, only the last part has the position.
        latest = {entry.path: entry for part in finished for entry in self._entries(part)}
        self._sink.commit(list(latest.values()))
        if self._journal is not None:
            self._journal.committed()
        if self._resumed_rows:
            for pending in self._pending:
                self._resumed_rows.add(pending.batch_part, pending.extents)
        self._pending.clear()
        return finished

    def _entries(self, batch_part: BatchPart) -> Sequence[Entry]:
        return self._journal.entries(batch_part) if self._journal else ()

    def _load_waiting(self, least: int = 1) -> None:
        """Load batches while at least `least` rows wait; settle the parts without waiting rows."""
        if self._replaced and (least == 1 or self._row_count >= least):
            self._end_load()
            self._sink.remove_files(self._replaced)  # type: ignore[attr-defined]  # of a database
            self._replaced = []
        while self._row_count >= least:
            self._load_one()
        if least == 1:
            self._end_load()
        for pending in self._pending:
            if not pending.is_settled and not pending.rows_left:
                self._settle(pending)

    def _load_one(self) -> None:
        """Load one batch of the first rows."""
        self._needs_full_batch = False
        taken = self._take_rows()
        groups = None
        if any(pending.rows.has_many_rows for pending, _ in taken):
            groups = _group_numbers(
                [origin for pending, rows in taken for origin in pending.origins(rows)]
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
        """Count the loaded rows, and note the rejected ones among them."""
        ends = list(accumulate(len(rows) for _, rows in taken))
        for refusal in refusals:
            at = bisect_right(ends, refusal.row)
            pending, rows = taken[at]
            row = rows.stop - (ends[at] - refusal.row)
            pending.rejected_records.setdefault(pending.record(row), (row, refusal.message))
            pending.rejected_counts[pending.rows.file_indexes[row]] += 1
        if self._resumed_rows:
            self._note_extents(
                taken, {refusal.row for refusal in refusals}, self._resumed_rows.sink
            )
        for pending, rows in taken:
            pending.rows_left -= len(rows)

    def _payload(self, taken: RowRanges) -> Any:
        """Return rows in the form that the sink takes."""
        block = join_blocks(
            [pending.unpack().slice(rows.start, rows.stop) for pending, rows in taken]
        )
        if not self._sorts_columns:
            return block
        return block.fields(sorted(range(len(block.names)), key=lambda place: block.names[place]))

    def _take_rows(self) -> RowRanges:
        """Take the first rows, at most a batch, and end between two records if possible."""
        taken: RowRanges = []
        remaining = self._batch_rows
        while remaining and self._to_load:
            pending, start = self._to_load.popleft()
            stop = pending.rows.count
            if stop - start > remaining:
                stop = pending.cut(start, start + remaining, may_be_empty=bool(taken))
                self._to_load.appendleft((pending, stop))
                remaining = 0
            if start < stop:
                taken.append((pending, range(start, stop)))
            remaining = max(0, remaining - (stop - start))
        return taken

    def _note_extents(self, taken: RowRanges, rejected: set[int], sink: FileSink) -> None:
        """Note the extents of the rows that were just loaded, for each file."""
        sizes = sink.row_sizes
        at, first, number = sink.position - sum(sizes), 0, 0
        for pending, rows in taken:
            places = pending.rows.file_indexes[rows.start : rows.stop]
            if rejected:
                accepted = range(number, number + len(places))
                places = [
                    place
                    for row, place in zip(accepted, places, strict=True)
                    if row not in rejected
                ]
                number = accepted.stop
            # The rows of a file lie together.
            for place, count in Counter(places).items():
                length = sum(sizes[first : first + count])
                first += count
                pending.add_extent(place, Extent(at, length, 0, length))
                at += length

    def _settle(self, pending: PendingPart) -> None:
        """Count the written rows, and reject the records of rejected rows."""
        batch_part, rows = pending.batch_part, pending.rows
        number = batch_part.batch.start
        pending.is_settled = True
        batch_part.part.written += rows.count - pending.rejected_counts.total()
        for place, rejected in pending.rejected_counts.items():
            if place < len(batch_part.part):
                batch_part.part.spooled_rows[place] -= rejected
        for (place, _), (row, message) in sorted(pending.rejected_records.items()):
            file, record, line = batch_part.file(place), rows.records[row], rows.lines[row]
            failure = Failure(file, "sink", message, record, line)
            dead_letters = [record_dead_letter(failure, rows.texts[row])] if rows.texts else []
            batch_part.part.reject(place, failure, dead_letters)
            if not len(batch_part.part):  # the file is not finished
                first, count = self._early_rejections.get(number, (failure, 0))
                self._early_rejections[number] = first, count + 1
        if len(batch_part.part) and (early := self._early_rejections.pop(number, None)):
            first, count = early
            batch_part.part.count_rejected(0, count, first)
        pending.drop_rows()


class ObjectsLoader(TableLoader):
    """Loads rows as objects, for a CSV file or the sink of a program."""

    def _payload(self, taken: RowRanges) -> list[dict[str, Any]]:
        objects = [row for pending, rows in taken for row in pending.objects(rows)]
        if self._sorts_columns and self._finds_columns:
            # The first load makes the header. A null is no value.
            self._sorts_columns = False
            objects[0] = dict.fromkeys(sorted(set().union(*objects))) | objects[0]
        return objects


def _group_numbers(origins: Sequence[tuple[int, int, int]]) -> Sequence[int]:
    """Return a number for each row, which is the same for all rows of a record."""
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
    ordered: bool = True,
    mirror: TableMirror | None = None,
) -> Loader:
    """Return the loader for `sink`, the sink of `target`.

    Finished inputs are reported to `journal` if the target is a database, and to `resumed_rows` if
    it is a file.
    """
    if target.groups is not None:
        return GroupLoader(sink)
    if target.is_table:
        loader = TableLoader if target.columns_grow else ObjectsLoader
        return loader(
            sink,
            load_batch or (SERVER_BATCH if target.address else LOAD_BATCH),
            journal=journal,
            resumed_rows=resumed_rows,
            max_waiting_bytes=sizes.waiting,
            wait_seconds=wait_seconds,
            transaction_seconds=SERVER_TRANSACTION_SECONDS if target.address else 0.0,
            finds_columns=target.form == "csv" and target.columns is None,
            sorts_columns=not ordered,
            mirror=mirror,
        )
    return LinesLoader(sink, resumed_rows)
