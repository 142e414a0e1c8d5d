"""The records of files, in slices, with their places in the document or its lines."""

from __future__ import annotations

import time
from contextlib import closing
from math import inf
from typing import TYPE_CHECKING

import msgspec

from asyncbatch.core.records import STDIN, Position
from asyncbatch.errors import UsageError
from asyncbatch.formats.arrays import ArrayStream, as_array, position_after
from asyncbatch.formats.decoder import allow_deep_nesting
from asyncbatch.formats.detect import (
    is_compressed,
    is_json_lines,
    is_splittable,
    open_text,
    skip_bytes,
)
from asyncbatch.formats.failures import FILE_ERRORS, validate_text
from asyncbatch.formats.grammar import Fault
from asyncbatch.formats.lines import InvalidLine, validate_lines
from asyncbatch.formats.positions import TextPosition, find_elements, format_pointer, parse_pointer
from asyncbatch.formats.sequences import read_concatenated, read_sequence
from asyncbatch.formats.validator import make_validator
from asyncbatch.sinks.dead_letters import read_dead_letter
from asyncbatch.storage.local import Content
from asyncbatch.storage.opener import Opener
from asyncbatch.storage.store_errors import CHANGED_MESSAGE
from asyncbatch.transforms.base import RecordError
from asyncbatch.workers.tasks.record_slices import (
    DeadLetterSlice,
    FirstRecords,
    LineSlice,
    ValueSlice,
    missing_array_error,
    slices_of_iterable,
    slices_of_text,
    slices_with_fields,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from asyncbatch.config.job import RecordWorkSettings
    from asyncbatch.core.batches import Chunk, Split, SplitForm
    from asyncbatch.core.records import InvalidRecord
    from asyncbatch.formats.detect import TextForm
    from asyncbatch.sinks.dead_letters import DeadLetter
    from asyncbatch.sources.reader import Opened
    from asyncbatch.workers.tasks.record_slices import RecordSlice


def limit_records(
    slices: Generator[RecordSlice | InvalidLine | Position], limit: int
) -> Iterator[RecordSlice | InvalidLine | Position]:
    """Yield slices with the first `limit` records, and read no further."""
    with closing(slices):
        for one in slices:
            if isinstance(one, Position):
                yield one
                continue
            count = 1 if isinstance(one, InvalidLine) else len(one.texts())
            yield (
                one if isinstance(one, InvalidLine) or count <= limit else FirstRecords(one, limit)
            )
            limit -= count
            if limit <= 0:
                return


class Extractor:
    """Finds the records of files. Not safe for several threads. Raises UsageError."""

    def __init__(self, settings: RecordWorkSettings, opener: Opener | None = None) -> None:
        self._opener = opener or Opener(settings.files)
        allow_deep_nesting()
        self.limit: int | None = None  # records of a file or split
        self._validator = make_validator()
        self._files = settings.files
        self._whole, self._replay = settings.whole, settings.replay
        self._idle_seconds = settings.patience
        self._keeps_files_whole = settings.target is not None and settings.target.form == "folder"
        self._records: Sequence[str] | None = None
        if settings.records is not None:
            try:
                self._records = parse_pointer(settings.records)
            except ValueError as error:
                raise UsageError(f"--records: {error}") from None

    def needs_split(self, path: str, opened: Opened) -> SplitForm | None:
        """Return the form of the splits of a file for several workers, or None."""
        sizes = self._files.sizes
        if self._files.format in ("concat", "seq"):
            return None
        if path == self._replay or self._keeps_files_whole or not isinstance(opened, Content):
            return None
        is_lines = is_json_lines(path, self._files.format)
        if not is_splittable(path, opened, sizes, "jsonl" if is_lines else "json"):
            return None
        if is_lines:
            # The number of records in a line is not known before it is parsed.
            return None if self._records is not None else "lines"
        return "array" if not self._whole and self._has_array(path) else None

    def _has_array(self, path: str) -> bool:
        """Whether a large document is an array, or has the named one near its beginning."""
        try:
            opened = self._opener.open(path)
            if not isinstance(opened, Content):
                return False
            with opened as content:
                return self._array_stream(content.chunks(), content).begin(is_split=True)
        except FILE_ERRORS:
            return False  # the next reader reports it

    def slices(
        self, path: str, opened: Opened, resume: Position | None = None
    ) -> Iterator[RecordSlice | InvalidLine | Position]:
        """Yield the records of a file, from `resume` if it is given.

        For a large file also positions. Raises one of `FILE_ERRORS`, also midway.
        """
        found = self._read_file(path, opened, resume)
        return found if self.limit is None else limit_records(found, self.limit)

    def read_split(self, path: str, split: Split) -> Iterator[RecordSlice | InvalidLine | Position]:
        """Yield the records of a split of a file; see `slices`."""
        found = self._read_split(path, split)
        return found if self.limit is None else limit_records(found, self.limit)

    def _read_file(
        self, path: str, opened: Opened, resume: Position | None
    ) -> Generator[RecordSlice | InvalidLine | Position]:
        if isinstance(opened, Exception):
            raise opened
        with opened if isinstance(opened, Content) else Content(opened) as content:
            is_replay = path == self._replay
            lull = self._idle_seconds if path == STDIN and not is_replay else None
            form, chunks = open_text(
                content,
                path,
                self._files,
                self._validator,
                "jsonl" if is_replay else None,
                idle=lull,
            )
            if is_replay:
                yield from self._dead_letter_slices(chunks)
            elif form in ("concat", "seq"):
                yield from self._value_slices(skip_bytes(chunks, resume), form, resume)
            elif form == "jsonl":
                whole_for = inf if lull is None or is_compressed(content) else lull
                yield from self._line_slices(skip_bytes(chunks, resume), resume, whole_for)
            elif isinstance(opened, bytes) and not is_compressed(content):
                yield from self._document_slices(opened)
            else:
                stream = self._array_stream(chunks, None if is_compressed(content) else content)
                known = is_splittable(path, content, self._files.sizes)
                if stream.begin(whole=self._whole, is_split=known):
                    for window in stream.windows(resume):
                        yield from self._element_slices(window.text, window.start)
                        end = window.end
                        del window  # it may be huge, and the next one is about to be read
                        yield end
                else:
                    yield from self._document_slices(stream.whole(drain=is_compressed(content)))

    def _read_split(
        self, path: str, split: Split
    ) -> Generator[RecordSlice | InvalidLine | Position]:
        if split.chunk is not None:
            yield from self._read_chunk(split.chunk)
            return
        chunks = self._opener.byte_range(path, split.start.byte, split.length, split.etag)
        if split.form == "lines":
            yield from self._line_slices(chunks, split.start)
            return
        text = b"".join(chunks)
        count = self._validator(as_array(text))
        if isinstance(count, Fault):  # it was valid when it was split off
            raise OSError(CHANGED_MESSAGE)
        yield from self._element_slices(text, split.start)
        yield position_after(split.start, text, count)

    def _read_chunk(self, chunk: Chunk) -> Iterator[RecordSlice | InvalidLine | Position]:
        """Yield the records of a page, then the position after it."""
        slices = self._chunk_slices(chunk, chunk.body)
        yield from slices_with_fields(slices, chunk.added_fields) if chunk.added_fields else slices
        yield Position(chunk.byte + chunk.size)

    def _chunk_slices(
        self, chunk: Chunk, body: bytes | Sequence[bytes | InvalidRecord]
    ) -> Iterator[RecordSlice | InvalidLine]:
        if not isinstance(body, bytes):
            yield from slices_of_iterable(body, chunk.line)
        elif chunk.form == "csv":
            from asyncbatch.formats.csv_records import csv_records  # few sources need it

            yield from slices_of_iterable(list(csv_records(body)), chunk.line)
        elif chunk.key_field is not None:
            from asyncbatch.formats.keyed_records import keyed_records  # few sources need it

            keyed = keyed_records(body, self._records or (), chunk.key_field)
            yield from slices_of_iterable(list(keyed), chunk.line)
        elif chunk.form == "jsonl":
            start = Position(chunk.byte, chunk.line - 1, chunk.line - 1)
            found = self._line_slices((body,), start)
            yield from (one for one in found if not isinstance(one, Position))
        else:
            yield from self._document_slices(body)

    def _array_stream(self, chunks: Iterator[bytes], content: Content | None) -> ArrayStream:
        seek = content.seek if content is not None and content.expected_size else None
        return ArrayStream(chunks, self._records, self._validator, self._files.sizes, seek)

    def _document_slices(self, text: bytes) -> Iterator[RecordSlice]:
        validate_text(text, self._validator)
        yield from slices_of_text(text, self._records, whole=self._whole, first=1, line=1, offset=0)

    def _element_slices(self, text: bytes, at: Position) -> Iterator[RecordSlice]:
        yield from slices_of_text(
            as_array(text), None, whole=False,
            first=at.record + 1, line=at.line + 1, column=at.column + 1, offset=at.byte,
        )  # fmt: skip

    def _line_slices(
        self, chunks: Iterable[bytes], start: Position | None, position_delay: float = inf
    ) -> Iterator[RecordSlice | InvalidLine | Position]:
        """Yield the records of lines; for a large file, or after some seconds, also positions."""
        late = time.monotonic() + position_delay
        number = start.record + 1 if start else 1
        for lines in validate_lines(chunks, self._validator, start):
            for split in lines.split():
                if isinstance(split, InvalidLine):
                    yield split._replace(record=number)
                    number += 1
                elif self._records is None:
                    split.record = number
                    yield LineSlice(split)
                    number += split.count
                else:
                    offset = split.offset
                    for line, text in enumerate(split.texts, split.line):
                        for record_slice in slices_of_text(
                            text, self._records, whole=True, first=number, line=line, offset=offset
                        ):
                            yield record_slice
                            number += len(record_slice.texts())
                        offset += len(text) + 1
            end = lines.offset + len(lines.text)
            is_huge = end > self._files.sizes.split_threshold or time.monotonic() > late
            if start is not None or is_huge:
                # A last line without LF is not counted, but no line follows it.
                yield Position(end, number - 1, lines.line + lines.lines - 1)

    def _value_slices(
        self, chunks: Iterable[bytes], form: TextForm, start: Position | None
    ) -> Iterator[RecordSlice | InvalidLine | Position]:
        """Yield the records of a sequence of values; for a large file also positions."""
        number = start.record + 1 if start else 1
        read = read_sequence if form == "seq" else read_concatenated
        for block in read(chunks, self._validator, self._files.sizes.record, start):
            for part in block.split():
                if isinstance(part, InvalidLine):
                    yield part._replace(record=number)
                    number += 1
                elif self._records is None:
                    yield ValueSlice(part._replace(record=number))
                    number += len(part.texts)
                else:
                    for offset, text in zip(part.offsets, part.texts, strict=True):
                        place = part.locator.locate(offset)
                        for record_slice in slices_of_text(
                            text, self._records, whole=True, first=number,
                            line=place.line, column=place.column, offset=place.byte,
                        ):  # fmt: skip
                            yield record_slice
                            number += len(record_slice.texts())
            if start is not None or block.end.byte > self._files.sizes.split_threshold:
                end = block.end
                yield Position(end.byte, number - 1, end.line, end.column)

    def _dead_letter_slices(self, chunks: Iterable[bytes]) -> Iterator[RecordSlice | InvalidLine]:
        """Yield the records of a dead letter file; its failed files are read as files."""
        for lines in validate_lines(chunks, self._validator):
            for split in lines.split():
                if isinstance(split, InvalidLine):
                    yield split
                    continue
                for at, text in enumerate(split.texts):
                    here = TextPosition(split.line + at, 1, split.offset)
                    try:
                        dead_letter = read_dead_letter(text)
                        record = dead_letter.text()
                    except (msgspec.DecodeError, ValueError) as error:
                        fault = Fault("invalid_json", 0, f"is not a dead letter: {error}")
                        yield InvalidLine(split.record + at, fault, here, text)
                        continue
                    if not dead_letter.is_record:
                        continue
                    yield self._dead_letter_slice(dead_letter, record)

    def _dead_letter_slice(self, dead_letter: DeadLetter, record: bytes) -> RecordSlice:
        """Return the records of one dead letter: its data, or those of a document."""
        verdict = self._validator(record)
        if isinstance(verdict, Fault):
            record_slice = DeadLetterSlice(
                dead_letter, [record], RecordError(verdict.kind, verdict.message)
            )
            record_slice.is_invalid_json = True
            return record_slice
        records = self._records
        if records is None or dead_letter.pointer != format_pointer(records):
            return DeadLetterSlice(dead_letter, [record])
        parts = find_elements(record, records)
        if parts is None:
            return DeadLetterSlice(dead_letter, [record], missing_array_error(records, record))
        return DeadLetterSlice(dead_letter, parts)
