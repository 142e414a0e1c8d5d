"""The outcome of a batch: rows, rejections and counts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import UNSET, structs

from asyncbatch.core.records import Failure, display_path
from asyncbatch.formats.compact import decode_lines
from asyncbatch.formats.decoder import encode_lines
from asyncbatch.formats.failures import FILE_ERRORS, file_failure, line_failure
from asyncbatch.formats.positions import TextPosition, find_values, parse_pointer
from asyncbatch.sinks.base import OutputError
from asyncbatch.sinks.columns.added import lines_with
from asyncbatch.sinks.dead_letters import record_dead_letter
from asyncbatch.sinks.row_writer import make_row_writer
from asyncbatch.transforms.base import Context, RecordError
from asyncbatch.workers.tasks.part_builder import PartBuilder
from asyncbatch.workers.tasks.spool import SPOOLED_OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.batches import Part, SplitFile
    from asyncbatch.core.records import Json, Position, Violation
    from asyncbatch.formats.lines import InvalidLine
    from asyncbatch.sources.cursor import LargestCursor
    from asyncbatch.windows.groups import GroupColumns
    from asyncbatch.workers.tasks.origin_columns import FileOrigin, OriginColumns, OriginReader
    from asyncbatch.workers.tasks.part_builder import FilePart
    from asyncbatch.workers.tasks.record_slices import RecordSlice
    from asyncbatch.workers.tasks.spool import Spool


class RecordCursor:
    """The current record: number `at` (from 0) of a slice."""

    record_slice: RecordSlice
    at: int

    def __init__(self, path: str, record_slice: RecordSlice, at: int = 0) -> None:
        self.record_slice, self.at = record_slice, at
        self.file: str = record_slice.file or display_path(path)

    @property
    def record(self) -> int:
        """The number of the record in its file, from 1."""
        return self.record_slice.first + self.at

    @property
    def line(self) -> int | None:
        """The line in which the record begins, from 1."""
        return self.record_slice.first_line(self.at)

    def context(self) -> Context:
        """Return the origin of the record."""
        return Context(self.file, self.record, self.line)


class RejectionBuilder:
    """Adds rejections to a part; keeps the texts if dead letters are written."""

    def __init__(self, settings: RecordWorkSettings) -> None:
        self._letters, self._tracebacks = settings.letters, settings.tracebacks
        # Positions in a value are positions in the file only if no transform changes the value.
        self._keeps_source = not settings.changes_records

    def reject(self, builder: FilePart, cursor: RecordCursor, error: RecordError) -> None:
        """Reject the record at `cursor` with `error`."""
        record_slice, at = cursor.record_slice, cursor.at
        text = bytes(record_slice.texts()[at])
        violations, place = error.violations, None
        if self._keeps_source and violations:
            violations = _locate(violations, text, record_slice, at)
            place = _violation_position(violations[0])
        place = place or record_slice.position(at, 0)
        line, column, byte = place or (cursor.line, None, None)
        failure = Failure(
            cursor.file, error.kind, error.message, cursor.record, line, column, byte,
            UNSET if error.pointer is None else error.pointer,
            violations or UNSET,
            error.detail if error.detail and self._tracebacks else UNSET,
        )  # fmt: skip
        dead_letter = (
            record_dead_letter(failure, text, bad=record_slice.is_invalid_json)
            if self._letters
            else None
        )
        builder.reject(failure, dead_letter, error.missing)

    def reject_line(self, builder: FilePart, file: str, line: InvalidLine) -> None:
        """Reject a line that is not JSON."""
        failure = line_failure(file, line)
        dead_letter = record_dead_letter(failure, line.text, bad=True) if self._letters else None
        builder.reject(failure, dead_letter)


def _locate(
    violations: Sequence[Violation], text: bytes, record_slice: RecordSlice, at: int
) -> tuple[Violation, ...]:
    """Return violations with their places in the file."""
    offsets = find_values(text, [parse_pointer(violation.pointer) for violation in violations])
    located = []
    for violation, offset in zip(violations, offsets, strict=True):
        place = None if offset is None else record_slice.position(at, offset)
        line, column, byte = place or (None, None, None)
        located.append(structs.replace(violation, line=line, column=column, byte=byte))
    return tuple(located)


def _violation_position(violation: Violation) -> TextPosition | None:
    line, column, byte = violation.line, violation.column, violation.byte
    return (
        None if line is None or column is None or byte is None else TextPosition(line, column, byte)
    )


# errors that end a file early; any other error is a bug of asyncbatch
RECORD_ERRORS = (OutputError, *FILE_ERRORS)


class Recorder:
    """Collects the outcome of each record of a batch. One per worker, reused for each batch."""

    def __init__(self, settings: RecordWorkSettings) -> None:
        self._rejection_builder = RejectionBuilder(settings)
        self._row_writer = make_row_writer(settings.target, settings.files, settings.dedupe)
        self.abandon = self._row_writer.abandon
        self._keeps_rows = settings.target is not None
        self.keeps_texts: bool = self._row_writer.takes_texts  # an unchanged record is kept as text
        self._keeps_lines = self._row_writer.takes_lines
        self.keeps_values: bool = self._keeps_rows and not self.keeps_texts
        self._names_origins = self._row_writer.names_origins
        self._keeps_originals = settings.letters and self._names_origins
        self._keeps_files_whole = settings.target is not None and settings.target.form == "folder"
        # whether it may wait for an object store, which would block an event loop
        self.may_block: bool = settings.target is not None and settings.target.is_remote
        self._max_bytes = settings.files.sizes.part
        self.origin_reader: OriginReader | None = None
        self._columns: OriginColumns | None = None
        if settings.added:
            from asyncbatch.workers.tasks.origin_columns import OriginColumns, OriginReader

            self.origin_reader, self._columns = OriginReader(settings), OriginColumns(settings)
        self._cursor: LargestCursor | None = None
        if settings.newest is not None:
            from asyncbatch.sources.cursor import LargestCursor

            self._cursor = LargestCursor(settings.newest)
        self._only_counts = settings.only_counts
        self._builder = self._new_builder(0)
        self._file = ""
        self._patience = settings.patience
        self._reported_at = time.monotonic()

    def begin_batch(self, start: int) -> None:
        """Begin a batch; its first file is number `start` of the run."""
        self._builder = self._new_builder(start)

    def _new_builder(self, start: int) -> PartBuilder:
        pack, only_counts = self._row_writer.encode, self._only_counts
        return PartBuilder(start, pack, self._max_bytes, only_counts=only_counts)

    def flush(self) -> Iterator[Part]:
        """Yield the part about finished files."""
        yield from self._builder.flush()

    def report_split_file(self, split_file: SplitFile) -> Iterator[Part]:
        """Yield the part, then the request to split the next file."""
        yield from self._builder.report_split_file(split_file)

    def flush_if_large(self) -> Iterator[Part]:
        """Yield the part if it is large, also of the unfinished file. Raises OutputError.

        A large file is reported only at a position.
        """
        if not self._builder.file.is_huge:
            yield from self._builder.flush_if_large()

    def note_position(self, position: Position) -> Iterator[Part]:
        """Note the position in a large file; yield the part if it is large, or late."""
        if not self._keeps_files_whole:
            file = self._builder.file
            is_late = time.monotonic() - self._reported_at > self._patience
            if (
                not file.is_huge
                or file.contents.exceeds(self._max_bytes)
                or (is_late and file.contents)
            ):
                file.is_huge = True
                self._reported_at = time.monotonic()
                yield from self._builder.flush_file(position)
            file.position = position

    def begin_file(self, path: str) -> None:
        """Begin the file at `path`. Raises OutputError."""
        self._file = display_path(path)
        self._row_writer.begin(path)

    def set_origin(self, origin: FileOrigin | None) -> None:
        """Set the origin of the current file, for the added columns."""
        if self._columns is not None and origin is not None:
            self._columns.begin(origin)

    def begin_split(self, path: str) -> None:
        """Begin a split of the file at `path`."""
        self._file = display_path(path)
        self._builder.file.is_huge = True

    def end_split(self, size: int, problem: Exception | None) -> Iterator[Part]:
        """End a split of `size` bytes; one of `RECORD_ERRORS` ends its file."""
        failure = None if problem is None else file_failure(self._file, problem)
        yield from self._builder.end_split(size, failure)

    def end_file(self, size: int, elapsed_ms: float, problem: Exception | None) -> bool:
        """End the file, of which `size` bytes were read; one of `RECORD_ERRORS` fails it.

        Return whether more outputs can be written.
        """
        written, pending = 0, None
        if problem is None:
            try:
                if self._builder.file.is_all_rejected:
                    self._row_writer.drop()
                else:
                    written = self._row_writer.end()
                    pending = self._row_writer.take_pending()
            except OutputError as error:
                problem = error
        self._row_writer.discard()
        failure = None
        if isinstance(problem, OutputError):
            failure = Failure(self._file, "sink", str(problem))
            if problem.is_lost:
                self._builder.set_target_error(str(problem))
        elif problem is not None:
            failure = file_failure(self._file, problem)
        self._builder.end_file(size, elapsed_ms, failure, written)
        if pending is not None:
            self._builder.wait_for_upload(self._file, pending)
        return not (isinstance(problem, OutputError) and problem.is_lost)

    def reject_line(self, line: InvalidLine) -> None:
        """Reject a line that is not JSON."""
        self._builder.file.read += 1
        self._rejection_builder.reject_line(self._builder.file, self._file, line)

    def reject(self, cursor: RecordCursor, error: RecordError) -> None:
        """Reject the record at `cursor`."""
        self._builder.file.read += 1
        self._rejection_builder.reject(self._builder.file, cursor, error)

    def keep_slice(self, record_slice: RecordSlice) -> None:
        """Keep the records of a slice unchanged."""
        if not self._keeps_rows:
            self._builder.file.read += len(record_slice.texts())
        elif self._keeps_lines:
            self._keep_lines(record_slice)
        else:
            rows = record_slice.compact_texts() if self.keeps_texts else record_slice.values()
            self.keep_unchanged(rows, range(len(rows)), record_slice)

    def _keep_lines(self, record_slice: RecordSlice) -> None:
        """Keep the records of a slice as lines, which are not taken apart unless it is needed."""
        file = self._builder.file
        lines, count = record_slice.lines_text()
        if self._columns is not None:
            places: Sequence[int] = range(count)
            if not self._columns.fit_lines(lines):
                rows, places = self._addable(
                    self._columns, decode_lines(lines), places, record_slice
                )
                lines, count = encode_lines(rows), len(rows)
            if count:
                columns = self._columns.cells(places, record_slice)
                lines = lines_with(lines, columns)
        file.read += count
        file.contents.add_encoded(lines, count)

    def keep_unchanged(
        self, rows: Sequence[Json], places: Sequence[int], record_slice: RecordSlice
    ) -> None:
        """Keep these records of a slice unchanged, for a target without rejections."""
        file = self._builder.file
        if self._columns is not None and self._keeps_rows:
            rows, places = self._addable(self._columns, rows, places, record_slice)
            self._columns.extend(file.contents, places, record_slice)
        file.read += len(rows)
        if self._keeps_rows:
            file.contents.rows += rows

    def keep_groups(self, found: GroupColumns) -> None:
        """Keep records in columns, for aggregates."""
        file = self._builder.file
        file.read += found.count
        if found.count:  # a statistic takes no empty column
            file.contents.rows.append(found)

    def _addable(
        self,
        columns: OriginColumns,
        rows: Sequence[Json],
        places: Sequence[int],
        record_slice: RecordSlice,
    ) -> tuple[Sequence[Json], Sequence[int]]:
        """Return the rows that can have added columns, and their places; reject the others."""
        if columns.fit(rows):
            return rows, places
        kept_rows, kept_places = [], []
        for row, place in zip(rows, places, strict=True):
            try:
                columns.check(row)
            except RecordError as error:
                self.reject(RecordCursor(self._file, record_slice, place), error)
            else:
                kept_rows.append(row)
                kept_places.append(place)
        return kept_rows, kept_places

    def keep_rows(
        self,
        rows: Sequence[Json],
        places: Sequence[int],
        record_slice: RecordSlice,
        *,
        dropped: int,
    ) -> None:
        """Keep one row for each of these records of a slice; count the others as dropped."""
        file = self._builder.file
        if self._columns is not None and self._keeps_rows:
            rows, places = self._addable(self._columns, rows, places, record_slice)
            self._columns.extend(file.contents, places, record_slice)
        file.read += len(rows) + dropped
        file.dropped += dropped
        if not self._keeps_rows:
            return
        found = file.contents
        found.rows += rows
        if self._names_origins:
            found.records += record_slice.numbers(places)
            found.lines += record_slice.lines(places)
            if self._keeps_originals:
                texts = record_slice.texts()
                found.original_texts += [bytes(texts[place]) for place in places]

    def keep_outputs(self, rows: Sequence[Json], cursor: RecordCursor) -> None:
        """Keep the outputs of the record at `cursor`."""
        if not self._can_add(rows, cursor):
            return
        file = self._builder.file
        file.read += 1
        if not rows:
            file.dropped += 1
        elif self._keeps_rows:
            self._add_rows(rows, cursor)

    def keep_spooled(self, spool: Spool, cursor: RecordCursor) -> Iterator[Part]:
        """Keep the many outputs of one record; yield parts. Raises OutputError."""
        # All are checked before any is written: a record is rejected with all of its outputs.
        if self._columns is not None:
            for rows in spool.read(SPOOLED_OUTPUTS):
                if not self._can_add(rows, cursor):
                    return
        self._builder.file.read += 1
        if self._keeps_rows:
            for rows in spool.read(SPOOLED_OUTPUTS):
                self._add_rows(rows, cursor)
                self.write_rows(cursor.record_slice)
                yield from self._builder.flush_if_large()

    def _can_add(self, rows: Sequence[Json], cursor: RecordCursor) -> bool:
        """Whether the outputs of a record can have added columns; if not, reject the record."""
        if self._columns is not None and self._keeps_rows:
            try:
                for row in rows:
                    self._columns.check(row)
            except RecordError as error:
                self.reject(cursor, error)
                return False
        return True

    def write_rows(self, record_slice: RecordSlice) -> None:
        """Write the rows of a slice, if the target writes in the worker. Raises OutputError."""
        self._row_writer.take(self._builder.file.contents, single=record_slice.is_document)

    def note_slice(self, record_slice: RecordSlice) -> None:
        """Note a slice whose rows follow."""
        file = self._builder.file
        file.contents.bytes += record_slice.size
        if self._cursor is not None and record_slice.error is None:
            file.cursor_values = self._cursor.largest(record_slice.values(), file.cursor_values)

    def _add_rows(self, rows: Sequence[Json], cursor: RecordCursor) -> None:
        found = self._builder.file.contents
        found.rows += rows
        record_slice, at = cursor.record_slice, cursor.at
        if self._columns is not None:
            self._columns.extend(found, [at] * len(rows), record_slice)
        if self._names_origins:
            for _ in rows:
                found.records.append(record_slice.first + at)
                found.lines.append(record_slice.line(at))
            if len(rows) > 1:
                found.has_many_rows = True
            if self._keeps_originals:
                found.original_texts += [bytes(record_slice.texts()[at])] * len(rows)
