"""Rows into a target, in batches; the parts that they came with follow when they are in.

Loaders work in threads, one at a time; that they can be stopped in the midst is not needed: what
is not committed then was not loaded.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain
from operator import ne
from typing import TYPE_CHECKING, Any, Protocol

from asyncbatch.dead_letters import letter_of_record
from asyncbatch.entries import Extent
from asyncbatch.record_settings import PATIENCE
from asyncbatch.records import BatchPart, Failure
from asyncbatch.settings import Sizes
from asyncbatch.sinks.block import join
from asyncbatch.waiting import WaitingPart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from asyncbatch.entries import Entry
    from asyncbatch.journal import Journal
    from asyncbatch.kept_rows import KeptRows
    from asyncbatch.sinks import Refusal, Sink
    from asyncbatch.sinks.single import FileSink
    from asyncbatch.sinks.target import Target
    from asyncbatch.waiting import Taken

LOAD_BATCH = 10_000
"""Rows of one load unless told otherwise: a transaction costs as much as some thousand rows."""
SERVER_BATCH = 20_000
"""The same for a server, to which each step is a way there and back."""
SERVER_SECONDS = 0.25
"""A server's loads share a transaction for so long, as far as memory allows: its end is dear."""
WAITING_PARTS = 256
"""Parts that wait for a batch to be full; beyond, or beyond the bytes or the time that settings
allow, what there is is loaded: a run that is killed then loses no more."""


class Loader(Protocol):
    """Takes parts in, and gives them back when their rows are in the target.

    Rows wait for `patience` seconds at most if it is flushed whenever it `is_late`; None if they
    never wait.
    """

    patience: float | None

    @property
    def is_late(self) -> bool:
        """Whether rows have waited for long enough."""
        ...

    def load(self, found: BatchPart) -> Sequence[BatchPart]:
        """Load the part's rows, or keep them for now; return the parts that are through.

        Raises SinkError if the target is lost.
        """
        ...

    def flush(self) -> Sequence[BatchPart]:
        """Load what was kept; return the parts that are through. Raises SinkError."""
        ...

    def close(self) -> None:
        """Leave the target to whoever ends it."""
        ...


class LinesLoader:
    """Writes rows as they come; none is ever refused."""

    patience: float | None = None
    is_late = False

    def __init__(self, sink: Sink[bytes | bytearray], kept: KeptRows | None) -> None:
        self._sink, self._kept = sink, kept

    def load(self, found: BatchPart) -> Sequence[BatchPart]:
        """See `Loader`."""
        rows, found.part.rows = found.part.rows, None
        at = 0
        if self._kept:
            self._kept.go_on(found)
            at = self._kept.sink.position
        if rows is not None:
            self._sink.load(rows.payload)
            found.part.written += rows.count
        if self._kept:
            self._kept.add_lines(found, rows, at)
        return (found,)

    def flush(self) -> Sequence[BatchPart]:
        """See `Loader`."""
        return ()

    def close(self) -> None:
        """See `Loader`."""


class TableLoader:
    """Loads rows `most` at a time, whatever parts they came in.

    Loads share a transaction for `sharing` seconds, while they are of no more than `waiting` bytes,
    and each goes on while the rows of the next one are made ready.
    Rows made of one record stay together, as far as they came in one part.
    """

    def __init__(
        self,
        sink: Sink[Any],
        most: int,
        *,
        of_objects: bool,
        rich: bool = False,
        journal: Journal | None = None,
        kept: KeptRows | None = None,
        waiting: int = Sizes().waiting,
        patience: float = PATIENCE,
        sharing: float = 0.0,
    ) -> None:
        self.patience: float | None = patience
        self._sink, self._most = sink, most
        self._most_bytes, self._sharing = waiting, sharing
        self._of_objects, self._rich = of_objects, rich
        self._journal, self._kept = journal, kept
        self._waiting: deque[WaitingPart] = deque()
        self._to_load: deque[tuple[WaitingPart, int]] = deque()
        """Parts with rows to load, and the number of the first of these."""
        self._rows = self._bytes = 0
        self._late: dict[int, tuple[Failure, int]] = {}
        """Of files whose last part is still to come the first record refused, and how many; by
        batch."""
        self._last_commit = time.monotonic()
        self._beside = ThreadPoolExecutor(1) if sharing else None
        self._loading: tuple[Taken, Future[Sequence[Refusal]]] | None = None
        """What the sink is at."""

    @property
    def is_late(self) -> bool:
        """See `Loader`."""
        waited = time.monotonic() - self._last_commit
        return bool(self._waiting) and self.patience is not None and waited > self.patience

    def load(self, found: BatchPart) -> Sequence[BatchPart]:
        """See `Loader`."""
        waiting = WaitingPart(found)
        if self._kept and found.part.entries:
            self._load_waiting()
            waiting.extents = self._kept.copy(found)
        elif self._kept and self._kept.begins(found):
            self._load_waiting()
            self._kept.go_on(found)
        self._waiting.append(waiting)
        if waiting.left:
            if self._beside and not self._of_objects:
                waiting.unpack()
            self._to_load.append((waiting, 0))
            self._rows += waiting.left
            self._bytes += len(waiting.rows.payload)
        too_many = len(self._waiting) > WAITING_PARTS or self._bytes > self._most_bytes
        if too_many or self.is_late:
            return self._commit()
        if self._rows < self._most:
            return ()
        if time.monotonic() - self._last_commit >= self._sharing:
            return self._commit()
        self._load_waiting(least=self._most)
        return ()

    def flush(self) -> Sequence[BatchPart]:
        """See `Loader`."""
        return self._commit()

    def close(self) -> None:
        """See `Loader`."""
        if self._beside:
            self._beside.shutdown()

    def _commit(self) -> Sequence[BatchPart]:
        """Load all there is, and make it last; return the parts that are through.

        All the rows of a file are made to last together.
        """
        self._load_waiting()
        self._last_commit, self._bytes = time.monotonic(), 0
        last = self._waiting[-1].found.part if self._waiting else None
        if last is None or (not len(last) and last.reached is None):
            return ()
        through = [waiting.found for waiting in self._waiting]
        # Of a file or feed that was begun and went on, only the last one tells how far it is.
        latest = {entry.path: entry for found in through for entry in self._entries(found)}
        self._sink.commit(list(latest.values()))
        if self._kept:
            for waiting in self._waiting:
                self._kept.add(waiting.found, waiting.extents)
        self._waiting.clear()
        return through

    def _entries(self, found: BatchPart) -> Sequence[Entry]:
        return self._journal.entries(found) if self._journal else ()

    def _load_waiting(self, least: int = 1) -> None:
        """Load rows as long as there are `least`; settle the parts that have no more."""
        while self._rows >= least:
            self._load_one()
        if least == 1:
            self._end_load()
        for waiting in self._waiting:
            if not waiting.is_settled and not waiting.left:
                self._settle(waiting)

    def _load_one(self) -> None:
        """Load the first rows, `most` of them if there are so many."""
        taken = self._take()
        groups = None
        if any(waiting.rows.several for waiting, _ in taken):
            groups = _groups(
                [origin for waiting, rows in taken for origin in waiting.origins(rows)]
            )
        payload = self._payload(taken)
        self._rows -= sum(len(rows) for _, rows in taken)
        if self._beside is None:
            self._note(taken, self._sink.load(payload, groups))
        else:
            self._end_load()
            self._loading = taken, self._beside.submit(self._sink.load, payload, groups)

    def _end_load(self) -> None:
        """Wait for the load that goes on, if one does. Raises SinkError."""
        if self._loading:
            (taken, loading), self._loading = self._loading, None
            self._note(taken, loading.result())

    def _note(self, taken: Taken, refusals: Sequence[Refusal]) -> None:
        """Take note of what was loaded, and what of it was refused."""
        ends = list(accumulate(len(rows) for _, rows in taken))
        for refusal in refusals:
            at = bisect_right(ends, refusal.row)
            waiting, rows = taken[at]
            row = rows.stop - (ends[at] - refusal.row)
            waiting.refused.setdefault(waiting.record(row), (row, refusal.message))
            waiting.refused_rows[waiting.rows.places[row]] += 1
        if self._kept:
            self._measure(taken, {refusal.row for refusal in refusals}, self._kept.sink)
        for waiting, rows in taken:
            waiting.left -= len(rows)

    def _payload(self, taken: Taken) -> Any:  # noqa: ANN401 - the sink's
        """Return rows as the sink takes them."""
        blocks = [waiting.columns(rows, of_objects=self._of_objects) for waiting, rows in taken]
        return join(blocks, rich=self._rich)

    def _take(self) -> Taken:
        """Take rows from the front, up to a batch, and not part of a record's if that can be."""
        taken: Taken = []
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

    def _measure(self, taken: Taken, refused: set[int], sink: FileSink) -> None:
        """Take note of where the rows of each file that were just loaded are."""
        sizes = sink.row_sizes
        at, left, number = sink.position - sum(sizes), iter(sizes), 0
        for waiting, rows in taken:
            lengths: Counter[int] = Counter()
            for row in rows:
                if number not in refused:
                    lengths[waiting.rows.places[row]] += next(left)
                number += 1
            for place, length in lengths.items():
                waiting.extend(place, Extent(at, length, 0, length))
                at += length

    def _settle(self, waiting: WaitingPart) -> None:
        """Count what was written, and reject the records that were refused."""
        found, rows = waiting.found, waiting.rows
        waiting.is_settled = True
        found.part.written += rows.count - waiting.refused_rows.total()
        for place, refused in waiting.refused_rows.items():
            if place < len(found.part):
                found.part.made[place] -= refused
        for (place, _), (row, message) in sorted(waiting.refused.items()):
            file, record, line = found.file(place), rows.records[row], rows.lines[row]
            failure = Failure(file, "sink", message, record, line)
            letters = [letter_of_record(failure, rows.originals[row])] if rows.originals else []
            found.part.reject(place, failure, letters)
            if not len(found.part):  # the file is not finished
                first, count = self._late.get(found.batch.start, (failure, 0))
                self._late[found.batch.start] = first, count + 1
        if len(found.part) and (late := self._late.pop(found.batch.start, None)):
            first, count = late
            found.part.count_rejected(0, count, first)
        waiting.drop_rows()


class RecordLoader(TableLoader):
    """Gives a sink its rows as the objects that they are."""

    def _payload(self, taken: Taken) -> list[dict[str, Any]]:
        return [row for waiting, rows in taken for row in waiting.objects(rows)]


def _groups(origins: Sequence[tuple[int, int, int]]) -> Sequence[int]:
    """Return a number a row, the same for rows of one record."""
    return list(accumulate(map(ne, origins, chain(origins[:1], origins))))


def make_loader(
    target: Target,
    sink: Sink[Any],
    load_batch: int | None,
    *,
    journal: Journal | None,
    kept: KeptRows | None,
    sizes: Sizes,
    patience: float = PATIENCE,
) -> Loader:
    """Return what brings rows to `sink`, which is `target`'s; `patience` is in seconds.

    What is done is told to the `journal` of a database, or to that of a file by `kept`.
    """
    if target.is_table:
        loader = RecordLoader if target.form == "program" else TableLoader
        return loader(
            sink,
            load_batch or (SERVER_BATCH if target.address else LOAD_BATCH),
            of_objects=not target.columns_grow,
            rich=target.has_rich_types,
            journal=journal,
            kept=kept,
            waiting=sizes.waiting,
            patience=patience,
            sharing=SERVER_SECONDS if target.address else 0.0,
        )
    return LinesLoader(sink, kept)
