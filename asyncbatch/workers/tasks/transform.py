"""The unit of work on records: decode, transform, check, make ready to be written."""

from __future__ import annotations

import time
from itertools import chain, compress, islice
from typing import TYPE_CHECKING, Any

from asyncbatch.core.batches import Huge
from asyncbatch.core.progress import Progress
from asyncbatch.core.records import Position
from asyncbatch.formats.lines import BadLine
from asyncbatch.sources.reader import Reader, close, size_read
from asyncbatch.storage.opener import Opener
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.chain import make_chain
from asyncbatch.transforms.json_values import is_plain
from asyncbatch.workers.tasks.count import end_of_pieces
from asyncbatch.workers.tasks.extractor import Extractor
from asyncbatch.workers.tasks.recorder import MANY_OUTPUTS, RECORD_ERRORS, Cursor, Recorder
from asyncbatch.workers.tasks.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.batches import Batch, Part, Piece
    from asyncbatch.sources.reader import Opened
    from asyncbatch.transforms.base import Position as InFile
    from asyncbatch.transforms.chain import Chain
    from asyncbatch.workers.tasks.record_slices import Stretch

    Many = Callable[[Sequence[Any]], Sequence[Any]]
    OutputsOf = Callable[[Any, InFile], Iterable[Any]]

BATCH_BYTES = 4 * 1024 * 1024
"""A batch is given back unfinished after so many bytes: records take longer than verdicts, and
at the end no worker should have much more to do than the others."""


class RecordWork:
    """Does what settings say to batches of files, one after another, and reports in parts.

    One instance serves one thread. Raises UsageError if the settings can't be meant.
    """

    def __init__(self, settings: RecordWorkSettings) -> None:
        files = settings.files
        self._opener = Opener(files)
        self._extractor = Extractor(settings, self._opener)
        self._reader = Reader(files.max_file_size, files.read_ahead, self._opener)
        self._chain = make_chain(settings.transforms, self._opener.files, settings.row_check)
        self._most_bytes = files.portion.bytes or BATCH_BYTES
        self._most_seconds = files.portion.seconds
        self._recorder = Recorder(settings)
        self.abandon = self._recorder.abandon
        self.progress = Progress()
        """See `work.FileWork`."""

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield what became of the files, in order; it may end before the last."""
        for part in self._parts(batch):
            part.retries = self._opener.taken_retries()
            yield part

    def _parts(self, batch: Batch) -> Iterator[Part]:
        recorder, now = self._recorder, time.perf_counter
        recorder.begin_batch(batch.start)
        self._extractor.limit = batch.limit
        if batch.piece is not None:
            if batch.piece.end:
                yield end_of_pieces(batch)
            else:
                yield from self._piece(batch.paths[0], batch.piece)
            return
        began = now()
        contents = self._reader.contents(batch, self._most_bytes, self._most_seconds, self.progress)
        for path, opened in contents:
            problem: Exception | None = None
            if form := self._extractor.splits(path, opened):
                close(opened)
                contents.close()
                yield from recorder.report_huge(Huge(form, batch.resume))
                return
            try:
                yield from self._file(path, opened, batch.resume)
            except RECORD_ERRORS as error:
                problem = error
            ended = now()
            if not recorder.end(size_read(opened), (ended - began) * 1000, problem):
                contents.close()
                break
            yield from recorder.report_if_many()
            began = ended
        yield from recorder.report()

    def _piece(self, path: str, piece: Piece) -> Iterator[Part]:
        """Work on one piece of a file."""
        recorder = self._recorder
        if piece.arrival is not None:
            path = piece.arrival.file
        recorder.begin_piece(path)
        problem: Exception | None = None
        try:
            yield from self._stretches(path, self._extractor.of_piece(path, piece))
        except RECORD_ERRORS as error:
            problem = error
        yield from recorder.end_piece(piece.length, problem)

    def _file(self, path: str, opened: Opened, resume: Position | None) -> Iterator[Part]:
        """Work on one file. Raises one of `RECORD_ERRORS`."""
        self._recorder.begin(path)
        yield from self._stretches(path, self._extractor.stretches(path, opened, resume))

    def _stretches(
        self, path: str, stretches: Iterable[Stretch | BadLine | Position]
    ) -> Iterator[Part]:
        recorder = self._recorder
        for stretch in stretches:
            if isinstance(stretch, Position):
                yield from recorder.reach(stretch)
            elif isinstance(stretch, BadLine):
                recorder.reject_line(stretch)
            else:
                recorder.see(stretch)
                cursor = Cursor(path, stretch)
                if stretch.flaw is not None:
                    recorder.reject(cursor, stretch.flaw)
                elif self._chain is None:
                    recorder.keep_all(stretch)
                elif self._chain.takes is not None:
                    yield from self._take(self._chain, self._chain.takes, cursor)
                elif self._chain.test is not None:
                    self._check(self._chain, self._chain.test, cursor)
                elif self._chain.many is not None:
                    yield from self._map(self._chain, self._chain.many, cursor)
                else:
                    yield from self._transform(self._chain, cursor)
                recorder.take(stretch)
            yield from recorder.report_if_many()

    def _take(
        self, row: Chain, takes: Callable[[Sequence[Any]], bool], cursor: Cursor
    ) -> Iterator[Part]:
        """Keep records as they are if all can be rows, which costs less than one by one."""
        values = cursor.stretch.values()
        if takes(values):
            self._recorder.keep_rows(values, range(len(values)), cursor.stretch, dropped=0)
        else:
            yield from self._each(values, row, cursor)

    def _check(self, check: Chain, test: Callable[[Any], bool], cursor: Cursor) -> None:
        """Keep the records that pass a test; a stretch at a time, for most of them do."""
        recorder, values = self._recorder, cursor.stretch.values()
        verdicts = list(map(test, values))
        recorder.keep_many(list(compress(values, verdicts)))
        for cursor.at, (value, passes) in enumerate(zip(values, verdicts, strict=True)):
            if not passes:
                try:
                    check(value, cursor)
                except RecordError as error:
                    recorder.reject(cursor, error)

    def _map(self, transform: Chain, many: Many, cursor: Cursor) -> Iterator[Part]:
        """Call a function on a stretch of records, which costs less than one by one."""
        results = many(cursor.stretch.values())
        rows, places = [], []
        for place, result in enumerate(results):
            if type(result) is dict and is_plain(result):
                rows.append(result)
                places.append(place)
            elif result is not None:
                yield from self._each(results, transform.rest, cursor)
                return
        self._recorder.keep_rows(rows, places, cursor.stretch, dropped=len(results) - len(rows))

    def _transform(self, transform: Chain, cursor: Cursor) -> Iterator[Part]:
        stretch = cursor.stretch
        records = stretch.compact_texts() if transform.reads_text else stretch.values()
        yield from self._each(records, transform, cursor)

    def _each(self, items: Sequence[Any], outputs_of: OutputsOf, cursor: Cursor) -> Iterator[Part]:
        """Keep or reject what becomes of each item, which stands for a record of a stretch."""
        recorder = self._recorder
        for cursor.at, item in enumerate(items):
            try:
                outputs = outputs_of(item, cursor)
                if type(outputs) is not tuple:
                    rest = iter(outputs)
                    outputs = list(islice(rest, MANY_OUTPUTS))
                    if len(outputs) == MANY_OUTPUTS:
                        with Spool() as spool:
                            spool.write(chain(outputs, rest))
                            yield from recorder.keep_spooled(spool, cursor)
                        continue
            except RecordError as error:
                recorder.reject(cursor, error)
            else:
                recorder.keep(outputs, cursor)
