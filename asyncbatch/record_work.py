"""The unit of work on records: decode, transform, check, make ready to be written."""

from __future__ import annotations

import time
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from asyncbatch.chain import make_chain
from asyncbatch.codec.lines import BadLine
from asyncbatch.drafts import Draft
from asyncbatch.extraction import Extractor
from asyncbatch.failures import FILE_ERRORS, file_failure
from asyncbatch.reading import Reader, size_read
from asyncbatch.records import Failure, display_path
from asyncbatch.rejecting import Cursor, Rejecter
from asyncbatch.sinks import OutputError
from asyncbatch.sinks.outlet import make_outlet
from asyncbatch.spool import Spool
from asyncbatch.transforms import RecordError
from asyncbatch.work import MAX_BATCH_BYTES, MAX_BATCH_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.chain import Chain
    from asyncbatch.reading import Opened
    from asyncbatch.records import Batch, Part
    from asyncbatch.settings import RecordWorkSettings
    from asyncbatch.stretches import Stretch

MANY_OUTPUTS = 1000
"""A record that becomes more values than this has them spooled until it is through."""


class RecordWork:
    """Does what settings say to batches of files, one after another, and reports in parts.

    One instance serves one thread. Raises UsageError if the settings can't be meant.
    """

    def __init__(self, settings: RecordWorkSettings) -> None:
        self._extractor = Extractor(settings)
        self._reader = Reader(settings.files.max_file_size, settings.files.read_ahead)
        self._chain = make_chain(settings)
        self._rejecter = Rejecter(settings)
        self._outlet = make_outlet(settings.target, settings.files.format)
        self._keeps_rows = settings.target is not None
        self._keeps_originals = settings.letters and self._outlet.names_origins

    def __call__(self, batch: Batch) -> Iterator[Part]:
        """Yield what became of the files, in order; it may end before the last."""
        draft = Draft(batch.start, self._outlet.pack)
        now = time.perf_counter
        began = now()
        for path, opened in self._reader.contents(batch.paths, MAX_BATCH_BYTES, MAX_BATCH_SECONDS):
            error, written = None, 0
            try:
                yield from self._file(path, opened, draft)
                if not draft.file.is_lost:
                    written = self._outlet.end()
            except (OutputError, *FILE_ERRORS) as problem:
                error = _failure(display_path(path), problem)
            self._outlet.discard()
            ended = now()
            draft.end_file(size_read(opened), (ended - began) * 1000, error, written)
            yield from draft.report_if_many()
            began = ended
        yield from draft.report()

    def _file(self, path: str, opened: Opened, draft: Draft) -> Iterator[Part]:
        """Work on one file. Raises one of `FILE_ERRORS`."""
        file = display_path(path)
        self._outlet.begin(path)
        for stretch in self._extractor.stretches(path, opened):
            if isinstance(stretch, BadLine):
                draft.file.read += 1
                self._rejecter.reject_line(draft.file, file, stretch)
                yield from draft.report_if_many()
                continue
            draft.file.found.bytes += stretch.size
            cursor = Cursor(file, stretch)
            if stretch.flaw is not None:
                draft.file.read += 1
                error = RecordError("missing_field", stretch.flaw)
                self._rejecter.reject(draft.file, cursor, error)
            elif self._chain is None:
                self._keep_all(stretch, draft)
            else:
                yield from self._transform(self._chain, cursor, draft)
            self._outlet.take(draft.file.found, single=stretch.single)
            yield from draft.report_if_many()

    def _keep_all(self, stretch: Stretch, draft: Draft) -> None:
        """Take records as they are."""
        if not self._keeps_rows:
            draft.file.read += len(stretch.texts())
            return
        values = stretch.values()
        draft.file.read += len(values)
        draft.file.found.rows += values

    def _transform(self, chain_: Chain, cursor: Cursor, draft: Draft) -> Iterator[Part]:
        stretch = cursor.stretch
        for cursor.at, record in enumerate(
            stretch.texts() if chain_.reads_text else stretch.values()
        ):
            draft.file.read += 1
            try:
                outputs = chain_(record, cursor)
                if type(outputs) is not tuple:
                    rest = iter(outputs)
                    outputs = list(islice(rest, MANY_OUTPUTS))
                    if len(outputs) == MANY_OUTPUTS:
                        yield from self._spooled(chain(outputs, rest), cursor, draft)
                        continue
            except RecordError as error:
                self._rejecter.reject(draft.file, cursor, error)
            else:
                self._keep(outputs, cursor, draft)

    def _spooled(self, outputs: Iterable[Any], cursor: Cursor, draft: Draft) -> Iterator[Part]:
        """Take the many outputs of one record, once all of them are there.

        Raises RecordError; then nothing was taken.
        """
        with Spool() as spool:
            spool.write(outputs)
            for some in spool.read(MANY_OUTPUTS):
                self._keep(some, cursor, draft)
                self._outlet.take(draft.file.found, single=cursor.stretch.single)
                yield from draft.report_if_many()

    def _keep(self, rows: Sequence[Any], cursor: Cursor, draft: Draft) -> None:
        """Take what became of the record at `cursor`."""
        if not rows:
            draft.file.dropped += 1
            return
        if not self._keeps_rows:
            return
        found, stretch, at = draft.file.found, cursor.stretch, cursor.at
        found.rows += rows
        if self._outlet.names_origins:
            count = len(rows)
            found.records += [stretch.first + at] * count
            found.lines += [stretch.line(at)] * count
            if self._keeps_originals:
                found.originals += [bytes(stretch.texts()[at])] * count


def _failure(file: str, problem: Exception) -> Failure:
    if isinstance(problem, OutputError):
        return Failure(file, "sink", str(problem))
    return file_failure(file, problem)
