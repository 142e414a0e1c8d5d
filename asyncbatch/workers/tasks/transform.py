"""The task that transforms records: decode, transform, check, encode rows."""

from __future__ import annotations

import time
from itertools import chain, compress, islice
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Raw

from asyncbatch.core.batches import SplitFile
from asyncbatch.core.progress import Progress
from asyncbatch.core.records import Position
from asyncbatch.formats.decoder import decode
from asyncbatch.formats.lines import InvalidLine
from asyncbatch.sources.reader import InputOpener, Reader, close_opened, read_size
from asyncbatch.transforms.base import RecordError
from asyncbatch.transforms.chain import make_chain
from asyncbatch.transforms.json_values import is_json_value, is_surely_changed, is_unchanged
from asyncbatch.workers.tasks.count import end_of_splits
from asyncbatch.workers.tasks.extractor import Extractor
from asyncbatch.workers.tasks.record_slices import CompactTexts
from asyncbatch.workers.tasks.recorder import RECORD_ERRORS, RecordCursor, Recorder
from asyncbatch.workers.tasks.spool import SPOOLED_OUTPUTS, Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.batches import Batch, Part, Split
    from asyncbatch.core.records import Json
    from asyncbatch.sources.reader import Opened
    from asyncbatch.transforms.base import RecordPosition
    from asyncbatch.transforms.chain import Chain
    from asyncbatch.workers.tasks.record_slices import RecordSlice

    Many = Callable[[Sequence[Any]], Sequence[Any]]
    OutputsOf = Callable[[Any, RecordPosition], Iterable[Any]]

# A batch is returned unfinished after this many bytes. Records take longer than counting, and at
# the end all workers should finish at about the same time.
BATCH_BYTES = 4 * 1024 * 1024


class TransformTask:
    """Transforms the records of files, batch by batch.

    One instance serves one thread. Raises UsageError for invalid settings.
    """

    def __init__(self, settings: RecordWorkSettings) -> None:
        files = settings.files
        self._opener = InputOpener(files)
        self._extractor = Extractor(settings, self._opener)
        self._reader = Reader(files.max_file_size, files.read_ahead, self._opener)
        self._chain = make_chain(settings.transforms, self._opener.files, settings.row_check)
        self._max_bytes = files.portion.bytes or BATCH_BYTES
        self._max_seconds = files.portion.seconds
        self._recorder = Recorder(settings)
        # whether an output that is the record itself is kept as its text
        self._keeps_texts = (
            self._chain is not None and self._chain.may_keep and self._recorder.keeps_texts
        )
        if self._chain is not None and self._keeps_texts:
            self._chain.return_texts()
        self.abandon = self._recorder.abandon
        self.progress: Progress = Progress()  # a worker process replaces it by a shared one

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield the outcome of the files, in order; may end before the last."""
        for part in self._parts(batch):
            part.retries = self._opener.take_retry_count()
            yield part

    def _parts(self, batch: Batch) -> Iterator[Part]:
        recorder, now = self._recorder, time.perf_counter
        recorder.begin_batch(batch.start)
        self._extractor.limit = batch.limit
        if batch.split is not None:
            if batch.split.is_end_marker:
                yield end_of_splits(batch)
            else:
                yield from self._transform_split(batch.paths[0], batch.split)
            return
        began = now()
        contents = self._reader.contents(batch, self._max_bytes, self._max_seconds, self.progress)
        for path, opened in contents:
            problem: Exception | None = None
            if form := self._extractor.needs_split(path, opened):
                close_opened(opened)
                contents.close()
                yield from recorder.report_split_file(SplitFile(form, batch.resume))
                return
            try:
                yield from self._transform_file(path, opened, batch.resume)
            except RECORD_ERRORS as error:
                problem = error
            ended = now()
            if not recorder.end_file(read_size(opened), (ended - began) * 1000, problem):
                contents.close()
                break
            yield from recorder.flush_if_large()
            began = ended
        yield from recorder.flush()

    def _transform_split(self, path: str, split: Split) -> Iterator[Part]:
        """Process one split of a file."""
        recorder = self._recorder
        if split.chunk is not None:
            path = split.chunk.file
        recorder.begin_split(path)
        problem: Exception | None = None
        try:
            if reader := recorder.origin_reader:
                find = reader.origin_of_split if split.chunk is None else reader.origin_of_feed
                recorder.set_origin(find(path))
            slices = self._extractor.read_split(path, split)
            yield from self._transform_slices(path, slices, split.start.byte)
        except RECORD_ERRORS as error:
            problem = error
        yield from recorder.end_split(split.length, problem)

    def _transform_file(self, path: str, opened: Opened, resume: Position | None) -> Iterator[Part]:
        """Process one file. Raises one of `RECORD_ERRORS`."""
        self._recorder.begin_file(path)
        if reader := self._recorder.origin_reader:
            self._recorder.set_origin(reader.origin(path, opened))
        yield from self._transform_slices(path, self._extractor.slices(path, opened, resume))

    def _transform_slices(
        self,
        path: str,
        slices: Iterable[RecordSlice | InvalidLine | Position],
        split_start: int | None = None,
    ) -> Iterator[Part]:
        recorder = self._recorder
        for record_slice in slices:
            if isinstance(record_slice, Position):
                if split_start is not None:
                    self.progress.note_bytes(max(0, record_slice.byte - split_start))
                yield from self._note_position(record_slice)
            elif isinstance(record_slice, InvalidLine):
                recorder.reject_line(record_slice)
            else:
                recorder.note_slice(record_slice)
                cursor = RecordCursor(path, record_slice)
                if record_slice.error is not None:
                    recorder.reject(cursor, record_slice.error)
                else:
                    yield from self._take_slice(cursor)
                recorder.write_rows(record_slice)
                del cursor
            del record_slice  # it may be huge, and the next one is about to be read
            yield from recorder.flush_if_large()

    def _note_position(self, position: Position) -> Iterator[Part]:
        """Note a position in a large file: all slices before it are taken."""
        return self._recorder.note_position(position)

    def _take_slice(self, cursor: RecordCursor) -> Iterator[Part]:
        """Transform the records of a slice, in the fastest way that the chain allows."""
        chain = self._chain
        if chain is None:
            self._recorder.keep_slice(cursor.record_slice)
        elif chain.takes is not None:
            yield from self._keep_if_rows(chain, chain.takes, cursor)
        elif chain.test is not None:
            self._filter(chain, chain.test, cursor)
        elif chain.many is not None:
            yield from self._map(chain, chain.many, cursor)
        else:
            yield from self._transform(chain, cursor)

    def _keep_if_rows(
        self, row: Chain, takes: Callable[[Sequence[Any]], bool], cursor: RecordCursor
    ) -> Iterator[Part]:
        """Keep records unchanged if all can be rows, which is faster than one by one."""
        record_slice = cursor.record_slice
        values = record_slice.values()
        texts = record_slice.compact_texts() if self._recorder.keeps_texts else None
        if takes(values):
            rows = values if texts is None else texts
            self._recorder.keep_rows(rows, range(len(values)), record_slice, dropped=0)
        else:
            yield from self._transform_each(values, row, cursor, texts)

    def _filter(self, check: Chain, test: Callable[[Any], bool], cursor: RecordCursor) -> None:
        """Keep the records that pass a test, a slice at a time, since most pass."""
        recorder, record_slice = self._recorder, cursor.record_slice
        values = record_slice.values() if recorder.keeps_values else None
        verdicts: list[bool] = []
        for cursor.at, value in enumerate(record_slice.each_value() if values is None else values):
            verdicts.append(passes := test(value))
            if not passes:
                try:
                    check(value, cursor)
                except RecordError as error:
                    recorder.reject(cursor, error)
        rows: Sequence[Any] = verdicts
        if values is not None:
            rows = values
        elif recorder.keeps_texts:
            rows = record_slice.compact_texts()
        places: Sequence[int] = range(len(verdicts))
        if not all(verdicts):
            rows, places = list(compress(rows, verdicts)), list(compress(places, verdicts))
        recorder.keep_unchanged(rows, places, record_slice)

    def _map(self, transform: Chain, many: Many, cursor: RecordCursor) -> Iterator[Part]:
        """Call a function on a slice of records, which is faster than one by one."""
        results = many(cursor.record_slice.values())
        rows, places = [], []
        for place, result in enumerate(results):
            if type(result) is dict and is_json_value(result):
                rows.append(result)
                places.append(place)
            elif result is not None:
                yield from self._transform_each(results, transform.rest, cursor)
                return
        self._recorder.keep_rows(
            rows, places, cursor.record_slice, dropped=len(results) - len(rows)
        )

    def _transform(self, transform: Chain, cursor: RecordCursor) -> Iterator[Part]:
        record_slice = cursor.record_slice
        records = record_slice.texts() if transform.reads_text else record_slice.values()
        texts = CompactTexts(record_slice) if self._keeps_texts else None
        yield from self._transform_each(records, transform, cursor, texts)

    def _transform_each(
        self,
        items: Sequence[Json],
        outputs_of: OutputsOf,
        cursor: RecordCursor,
        texts: Sequence[Any] | CompactTexts | None = None,
    ) -> Iterator[Part]:
        """Keep or reject the outputs for each item, which stands for a record of a slice.

        With `texts` of the records, an output that is the record itself is kept as its text.
        """
        recorder = self._recorder
        for cursor.at, item in enumerate(items):
            try:
                outputs = outputs_of(item, cursor)
                if type(outputs) is not tuple:
                    rest = iter(outputs)
                    outputs = list(islice(rest, SPOOLED_OUTPUTS))
                    if len(outputs) == SPOOLED_OUTPUTS:
                        with Spool() as spool:
                            spool.write(chain(outputs, rest))
                            yield from recorder.keep_spooled(spool, cursor)
                        continue
            except RecordError as error:
                recorder.reject(cursor, error)
            else:
                if texts is not None and outputs:
                    outputs = _with_texts(outputs, item, texts, cursor.at)
                recorder.keep_outputs(outputs, cursor)


def _with_texts(
    outputs: Sequence[Json], item: Any, texts: Sequence[Any] | CompactTexts, at: int
) -> Sequence[Json]:
    """Return the outputs for `item`, a value or a text; each that is the record, as its text."""
    is_text = isinstance(item, bytes | Raw)
    record, found = UNSET if is_text else item, []
    for output in outputs:
        is_record = output is item
        if not is_record and not (is_text and is_surely_changed(output, item)):
            if record is UNSET:
                record = decode(item)
            is_record = is_unchanged(output, record)
        found.append(texts[at] if is_record else output)
    return found
