"""Slices of records: consecutive records of one file, with values, texts and places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.formats.compact import array_lines, compact_lines, text_lines
from asyncbatch.formats.decoder import decode, decode_array, encode_lines
from asyncbatch.formats.positions import (
    BOM,
    WHITE_SPACE,
    Locator,
    TextPosition,
    find_elements,
    format_pointer,
    locate_byte,
    offset_of,
)
from asyncbatch.transforms.base import MissingName, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.core.records import InvalidRecord
    from asyncbatch.formats.lines import InvalidLine, ValidLines
    from asyncbatch.formats.sequences import ValidValues
    from asyncbatch.sinks.dead_letters import DeadLetter

    Text = bytes | msgspec.Raw

MAX_DECODED_BYTES = 4 * 1024 * 1024  # A text up to this size is decoded in one call.
SLICE_RECORDS = 1000  # Of a larger text, this number of records is decoded at a time.

_SHORT_TEXT = 2000  # bytes


class RecordSlice(ABC):
    """Consecutive records of one file, from number `first`, which counts from 1.

    `is_document`: one document that is one record. `is_invalid_json`: with an `error`, the records
    are not even JSON.
    """

    file: str | None = None  # the origin of the records, if it is not the current file
    is_document = False
    error: RecordError | None = None  # the reason why the records cannot be used
    is_invalid_json = False

    def __init__(self, first: int) -> None:
        self.first = first

    @property
    @abstractmethod
    def size(self) -> int:
        """The size of the records' texts in bytes."""

    @abstractmethod
    def values(self) -> Sequence[Any]:
        """Return the records as Python values."""

    def each_value(self) -> Iterator[Any]:
        """Yield the records as Python values, of which the caller keeps none.

        A value that is freed before the next one is made takes a third less time, for its memory is
        still in the processor's cache.
        """
        return map(decode, self.texts())

    @abstractmethod
    def texts(self) -> Sequence[Text]:
        """Return the records as they stand in the file."""

    def array_text(self) -> bytes:
        """Return the records as the text of an array."""
        return b"[%b]" % b",".join(map(bytes, self.texts()))

    def compact_texts(self) -> Sequence[Text]:
        """Return the records' texts without white space between their parts."""
        # As one array: one call for each record takes three times as long.
        return decode_array(msgspec.json.format(self.array_text(), indent=-1))

    def lines_text(self) -> tuple[bytes, int]:
        """Return the same texts as JSON Lines, and their number."""
        texts = self.texts()
        return text_lines(texts), len(texts)

    def line(self, at: int) -> int | None:  # noqa: ARG002 - a default for subclasses
        """Return the line of record number `at` of these (from 0), if that costs nothing."""
        return None

    def lines(self, places: Sequence[int]) -> Iterable[int | None]:
        """Return the lines of records, as `line` does."""
        return map(self.line, places)

    def numbers(self, places: Sequence[int]) -> Iterable[int]:
        """Return the numbers of records in their file."""
        if isinstance(places, range):  # fast: all records of a slice
            return range(self.first + places.start, self.first + places.stop)
        return map(self.first.__add__, places)

    def position(self, at: int, byte: int) -> TextPosition | None:  # noqa: ARG002 - a default for subclasses
        """Return the place in the file of a byte of a record's text, if it is known."""
        return None

    def first_line(self, at: int) -> int | None:
        """Return the line in which a record begins, if it is known, at any cost."""
        line = self.line(at)
        if line is None and (place := self.position(at, 0)):
            line = place.line
        return line

    def first_lines(self, places: Sequence[int]) -> list[int | None]:
        """Return the lines of records, as `first_line` does."""
        lines = list(self.lines(places))
        return lines if None not in lines else list(map(self.first_line, places))


class LineSlice(RecordSlice):
    """Lines of JSON Lines."""

    def __init__(self, lines: ValidLines) -> None:
        super().__init__(lines.record)
        self._lines = lines
        self._offsets: list[int] | None = None
        self._texts: Sequence[bytes] | None = None

    @property
    def size(self) -> int:
        block = self._lines.block
        return sum(map(len, self.texts())) if block is None else len(block)

    def values(self) -> Sequence[Any]:
        texts = self.texts()
        if len(texts) == 1:  # which may be huge
            return [decode(texts[0])]
        # As one array: one call for each record takes 1.5 times as long.
        values: list[Any] = decode(b"[%b]" % b",".join(texts))
        return values

    def texts(self) -> Sequence[bytes]:
        if self._texts is None:
            self._texts = texts = self._lines.texts
            if not self._lines.offset and texts[0].startswith(BOM):
                self._texts = [texts[0].removeprefix(BOM), *texts[1:]]
        return self._texts

    def lines_text(self) -> tuple[bytes, int]:
        block = self._lines.block
        if block is None:
            return super().lines_text()
        if not self._lines.offset:
            block = block.removeprefix(BOM)
        return compact_lines(block), self._lines.count

    def line(self, at: int) -> int:
        return self._lines.line + at

    def lines(self, places: Sequence[int]) -> Iterable[int]:
        first = self._lines.line
        if isinstance(places, range):  # fast: all records of a slice
            return range(first + places.start, first + places.stop)
        return map(first.__add__, places)

    def position(self, at: int, byte: int) -> TextPosition:
        lines = self._lines
        if self._offsets is None:
            lengths = (len(text) + 1 for text in lines.texts)
            self._offsets = list(accumulate(lengths, initial=lines.offset))
        byte += len(lines.texts[at]) - len(self.texts()[at])
        return locate_byte(lines.texts[at], byte, line=lines.line + at, offset=self._offsets[at])


class ValueSlice(RecordSlice):
    """Values of a sequence, which follow each other without being lines."""

    def __init__(self, values: ValidValues) -> None:
        super().__init__(values.record)
        self._valid = values

    @property
    def size(self) -> int:
        return sum(map(len, self._valid.texts))

    def values(self) -> Sequence[Any]:
        if len(self._valid.texts) == 1:  # which may be huge
            return [decode(self._valid.texts[0])]
        values: list[Any] = decode(b"[%b]" % b",".join(self._valid.texts))
        return values

    def texts(self) -> Sequence[Text]:
        return self._valid.texts

    def position(self, at: int, byte: int) -> TextPosition:
        return self._valid.locator.locate(self._valid.offsets[at] + byte)


class TextSlice(RecordSlice):
    """Parts of one JSON text, or the whole of it.

    Without `parts` these are the elements of the array that `body` is. `locator` is for the
    text that `body` is the end of (all but its byte order mark).
    """

    def __init__(
        self,
        body: bytes,
        locator: Locator,
        first: int,
        parts: Sequence[Text] | None = None,
        *,
        single: bool = False,
    ) -> None:
        super().__init__(first)
        self.is_document = single
        self._body, self._parts = body, parts
        self._locator = locator

    @property
    def size(self) -> int:
        if not self._parts:
            return len(self._body)
        if len(self._parts) == 1:  # at once, which is faster for small files
            return memoryview(self._parts[0]).nbytes
        start, end = self._span(self._parts)
        return end - start

    def _span(self, parts: Sequence[Text]) -> tuple[int, int]:
        """Return where the first of the parts starts in the text, and where the last ends."""
        # They lie one after the other: no loop over many small records is needed.
        last = memoryview(parts[-1])
        return offset_of(self._body, parts[0]), offset_of(self._body, last) + last.nbytes

    def values(self) -> Sequence[Any]:
        if self._parts is not None:
            return list(map(decode, self._parts))
        values: list[Any] = decode(self._body)
        return values

    def texts(self) -> Sequence[Text]:
        if self._parts is None:
            self._parts = decode_array(self._body)
        return self._parts

    def array_text(self) -> bytes:
        return self._body if self._parts is None else super().array_text()

    def compact_texts(self) -> Sequence[Text]:
        if self._parts is None:
            return decode_array(msgspec.json.format(self._body, indent=-1))
        return super().compact_texts()

    def lines_text(self) -> tuple[bytes, int]:
        if self._parts is None:
            return array_lines(self._body)
        is_one_line = len(self._parts) > 1 and self._body.find(b"\n", *self._span(self._parts)) < 0
        return text_lines(self._parts, is_one_line=is_one_line), len(self._parts)

    def lines(self, places: Sequence[int]) -> Iterable[int | None]:
        return [None] * len(places)  # fast: none is known without a search

    def first_lines(self, places: Sequence[int]) -> list[int | None]:
        if b"\n" not in self._body:
            return [self._locator.line] * len(places)
        return super().first_lines(places)

    def position(self, at: int, byte: int) -> TextPosition:
        return self._locator.locate(offset_of(self._body, self.texts()[at]) + byte)


class CompactTexts:
    """The compact texts of the records of a slice, made when they are needed."""

    def __init__(self, record_slice: RecordSlice) -> None:
        self._slice = record_slice
        self._all: Sequence[Text] | None = None

    def __getitem__(self, at: int) -> Text:
        text = self._slice.texts()[at]
        if memoryview(text).nbytes > _SHORT_TEXT:
            return msgspec.Raw(msgspec.json.format(bytes(text), indent=-1))
        if self._all is None:  # for short texts, one call for each takes three times as long
            self._all = self._slice.compact_texts()
        return self._all[at]


def slices_of_text(
    text: bytes,
    records: Sequence[str] | None,
    *,
    whole: bool,
    first: int,
    line: int,
    offset: int,
    column: int = 1,
) -> Iterator[RecordSlice]:
    """Yield the records of a valid JSON text, which begins at this place of its file.

    They are the elements of the array at the JSON Pointer `records`, or of the top-level array, or
    (also with `whole`) the text itself.
    """
    body = text.removeprefix(BOM)
    locator = Locator(body, line=line, column=column, offset=offset + len(text) - len(body))
    parts: Sequence[Text] | None = None
    if records is not None:
        parts = find_elements(body, records)
    elif not whole and body.lstrip(WHITE_SPACE).startswith(b"["):
        if len(body) <= MAX_DECODED_BYTES:
            yield TextSlice(body, locator, first)
            return
        parts = decode_array(body)
    if parts is None:
        document = [msgspec.json.decode(body, type=msgspec.Raw)]
        record_slice = TextSlice(body, locator, first, document, single=True)
        if records is not None:
            record_slice.error = missing_array_error(records, body)
        yield record_slice
        return
    for at in range(0, len(parts), SLICE_RECORDS):
        yield TextSlice(body, locator, first + at, parts[at : at + SLICE_RECORDS])


def missing_array_error(records: Sequence[str], document: bytes) -> RecordError:
    """Return the error for a document without an array at the pointer `records`."""
    pointer = format_pointer(records)
    subject = f"no input has an array of records at {pointer!r}"
    return RecordError(
        "missing_field",
        f"has no array at {pointer!r}, where its records should be",
        pointer=pointer,
        missing=MissingName(subject, pointer, document),
    )


class IterableSlice(RecordSlice):
    """Records that a program has given one by one: they have a number, but no place."""

    is_invalid_json: bool

    def __init__(
        self, texts: Sequence[bytes], first: int, error: RecordError | None = None
    ) -> None:
        super().__init__(first)
        self.error, self.is_invalid_json = error, error is not None
        self._texts = texts

    @property
    def size(self) -> int:
        return sum(map(len, self._texts))

    def values(self) -> Sequence[Any]:
        return list(map(decode, self._texts))

    def texts(self) -> Sequence[Text]:
        return self._texts

    def compact_texts(self) -> Sequence[Text]:
        return list(map(msgspec.Raw, self._texts))

    def lines_text(self) -> tuple[bytes, int]:
        return b"\n".join((*self._texts, b"")), len(self._texts)


def slices_of_iterable(
    records: Sequence[bytes | InvalidRecord], first: int
) -> Iterator[RecordSlice]:
    """Yield the records of a program, from record number `first`."""
    texts: list[bytes] = []
    for number, record in enumerate(records, first):
        if isinstance(record, bytes):
            texts.append(record)
            continue
        if texts:
            yield IterableSlice(texts, number - len(texts))
            texts = []
        yield IterableSlice([record.text], number, RecordError("invalid_json", record.reason))
    if texts:
        yield IterableSlice(texts, first + len(records) - len(texts))


def slices_with_fields(
    slices: Iterable[RecordSlice | InvalidLine], fields: bytes
) -> Iterator[RecordSlice | InvalidLine]:
    """Yield slices whose records have the fields of a JSON object, too. They lose their places."""
    from asyncbatch.formats.keyed_records import decode_fields, with_fields  # few sources need it

    added = decode_fields(fields)
    for one in slices:
        if isinstance(one, RecordSlice) and one.error is None:
            texts = [with_fields(bytes(text), added) for text in one.texts()]
            yield from slices_of_iterable(texts, one.first)
        else:
            yield one


class FirstRecords(RecordSlice):
    """The first records of a slice."""

    is_invalid_json: bool

    def __init__(self, record_slice: RecordSlice, count: int) -> None:
        super().__init__(record_slice.first)
        self._slice, self._count = record_slice, count
        self.file, self.error, self.is_invalid_json = (
            record_slice.file,
            record_slice.error,
            record_slice.is_invalid_json,
        )

    @property
    def size(self) -> int:
        return sum(memoryview(text).nbytes for text in self.texts())

    def values(self) -> Sequence[Any]:
        return self._slice.values()[: self._count]

    def texts(self) -> Sequence[Text]:
        return self._slice.texts()[: self._count]

    def compact_texts(self) -> Sequence[Text]:
        return self._slice.compact_texts()[: self._count]

    def lines_text(self) -> tuple[bytes, int]:
        texts = self.compact_texts()
        return encode_lines(texts), len(texts)

    def line(self, at: int) -> int | None:
        return self._slice.line(at)

    def position(self, at: int, byte: int) -> TextPosition | None:
        return self._slice.position(at, byte)


class DeadLetterSlice(RecordSlice):
    """The data of one dead letter, with its original place."""

    def __init__(
        self, dead_letter: DeadLetter, texts: Sequence[Text], error: RecordError | None = None
    ) -> None:
        super().__init__(dead_letter.record or 1)
        self.file, self.error = dead_letter.file, error
        self._dead_letter, self._texts = dead_letter, texts

    @property
    def size(self) -> int:
        return sum(memoryview(text).nbytes for text in self._texts)

    def values(self) -> Sequence[Any]:
        return list(map(decode, self._texts))

    def texts(self) -> Sequence[Text]:
        return self._texts

    def line(self, at: int) -> int | None:  # noqa: ARG002 - all records have the line of the dead letter
        return self._dead_letter.line
