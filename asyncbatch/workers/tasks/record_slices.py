"""Records that follow on each other in one file: their values, their texts, their places."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

from asyncbatch.formats.decoder import decode, decode_array
from asyncbatch.formats.positions import (
    BOM,
    Locator,
    TextPosition,
    find_elements,
    format_pointer,
    locate_byte,
    offset_of,
)
from asyncbatch.transforms.base import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncbatch.core.records import InvalidRecord
    from asyncbatch.formats.lines import ValidLines
    from asyncbatch.sinks.dead_letters import DeadLetter

    Text = bytes | msgspec.Raw

WHOLE_BYTES = 4 * 1024 * 1024
"""A text up to this size is decoded in one go; of a larger one ..."""
SLICE_RECORDS = 1000
"""... so many records at a time are Python values."""

_BLANK = b" \t\r\n"


class RecordSlice:
    """Records of one file; `first` is the number of the first of them, from 1.

    `file` is where they come from if that is not the file that is read. `single` if they are
    one document that is one record; `flaw` is why they can't be used, `is_text` tells that they
    are not even JSON.
    """

    file: str | None = None
    single = False
    error: RecordError | None = None
    is_text = False

    def __init__(self, first: int) -> None:
        self.first = first

    @property
    def size(self) -> int:
        """How many bytes of text the records are."""
        raise NotImplementedError

    def values(self) -> Sequence[Any]:
        """Return the records as Python values."""
        raise NotImplementedError

    def texts(self) -> Sequence[Text]:
        """Return the records as they stand in the file."""
        raise NotImplementedError

    def compact_texts(self) -> Sequence[Text]:
        """Return the records' texts without white space between their parts."""
        # As one array: a call for each would take thrice as long.
        array = b"[%b]" % b",".join(map(bytes, self.texts()))
        return decode_array(msgspec.json.format(array, indent=-1))

    def line(self, at: int) -> int | None:  # noqa: ARG002 - for those who know
        """Return the line of record number `at` of these (from 0), if that costs nothing."""
        return None

    def position(self, at: int, byte: int) -> TextPosition | None:  # noqa: ARG002 - for those who know
        """Return where in the file byte number `byte` of a record's text is, if that is known."""
        return None


class LineSlice(RecordSlice):
    """Lines of JSON Lines."""

    def __init__(self, lines: ValidLines) -> None:
        super().__init__(lines.record)
        self._lines = lines
        self._offsets: list[int] | None = None
        self._texts = lines.texts
        if not lines.offset and lines.texts[0].startswith(BOM):
            self._texts = [lines.texts[0].removeprefix(BOM), *lines.texts[1:]]

    @property
    def size(self) -> int:
        """See `Stretch`."""
        return sum(map(len, self._texts))

    def values(self) -> Sequence[Any]:
        """See `Stretch`."""
        if len(self._texts) == 1:  # which may be huge
            return [decode(self._texts[0])]
        # As one array: a call for each would take half as long again.
        values: list[Any] = decode(b"[%b]" % b",".join(self._texts))
        return values

    def texts(self) -> Sequence[Text]:
        """See `Stretch`."""
        return self._texts

    def line(self, at: int) -> int:
        """See `Stretch`."""
        return self._lines.line + at

    def position(self, at: int, byte: int) -> TextPosition:
        """See `Stretch`."""
        lines = self._lines
        if self._offsets is None:
            lengths = (len(text) + 1 for text in lines.texts)
            self._offsets = list(accumulate(lengths, initial=lines.offset))
        byte += len(lines.texts[at]) - len(self._texts[at])
        return locate_byte(lines.texts[at], byte, line=lines.line + at, offset=self._offsets[at])


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
        self.single = single
        self._body, self._parts = body, parts
        self._locator = locator

    @property
    def size(self) -> int:
        """See `Stretch`."""
        if self._parts is None:
            return len(self._body)
        return sum(memoryview(part).nbytes for part in self._parts)

    def values(self) -> Sequence[Any]:
        """See `Stretch`."""
        if self._parts is not None:
            return list(map(decode, self._parts))
        values: list[Any] = decode(self._body)
        return values

    def texts(self) -> Sequence[Text]:
        """See `Stretch`."""
        if self._parts is None:
            self._parts = decode_array(self._body)
        return self._parts

    def compact_texts(self) -> Sequence[Text]:
        """See `Stretch`."""
        if self._parts is None:
            return decode_array(msgspec.json.format(self._body, indent=-1))
        return super().compact_texts()

    def position(self, at: int, byte: int) -> TextPosition:
        """See `Stretch`."""
        return self._locator.locate(offset_of(self._body, self.texts()[at]) + byte)


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
    """Yield the records of a good JSON text, whose place in its file is that of its first byte.

    They are the elements of the array that the JSON Pointer `records` names, or of the
    top-level array, or (also with `whole`) the text itself.
    """
    body = text.removeprefix(BOM)
    locator = Locator(body, line=line, column=column, offset=offset + len(text) - len(body))
    parts: Sequence[Text] | None = None
    if records is not None:
        parts = find_elements(body, records)
    elif not whole and body.lstrip(_BLANK).startswith(b"["):
        if len(body) <= WHOLE_BYTES:
            yield TextSlice(body, locator, first)
            return
        parts = decode_array(body)
    if parts is None:
        document = [msgspec.json.decode(body, type=msgspec.Raw)]
        stretch = TextSlice(body, locator, first, document, single=True)
        if records is not None:
            stretch.error = missing_array_error(records)
        yield stretch
        return
    for at in range(0, len(parts), SLICE_RECORDS):
        yield TextSlice(body, locator, first + at, parts[at : at + SLICE_RECORDS])


def missing_array_error(records: Sequence[str]) -> RecordError:
    """Return why a document without an array where its records should be is rejected."""
    pointer = format_pointer(records)
    message = f"has no array at {pointer!r}, where its records should be"
    return RecordError("missing_field", message, pointer=pointer)


class IterableSlice(RecordSlice):
    """Records that a program has given one by one: they have a number, but no place."""

    def __init__(self, texts: Sequence[bytes], first: int, flaw: RecordError | None = None) -> None:
        super().__init__(first)
        self.error, self.is_text = flaw, flaw is not None
        self._texts = texts

    @property
    def size(self) -> int:
        """See `Stretch`."""
        return sum(map(len, self._texts))

    def values(self) -> Sequence[Any]:
        """See `Stretch`."""
        return list(map(decode, self._texts))

    def texts(self) -> Sequence[Text]:
        """See `Stretch`."""
        return self._texts

    def compact_texts(self) -> Sequence[Text]:
        """See `Stretch`: so they are; a target tells them from values that are bytes."""
        return list(map(msgspec.Raw, self._texts))


def slices_of_iterable(
    records: Sequence[bytes | InvalidRecord], first: int
) -> Iterator[RecordSlice]:
    """Yield what a program has given, from record number `first` on."""
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


class FirstRecords(RecordSlice):
    """The first records of a stretch."""

    def __init__(self, stretch: RecordSlice, count: int) -> None:
        super().__init__(stretch.first)
        self._stretch, self._count = stretch, count
        self.file, self.error, self.is_text = stretch.file, stretch.error, stretch.is_text

    @property
    def size(self) -> int:
        """See `Stretch`."""
        return sum(memoryview(text).nbytes for text in self.texts())

    def values(self) -> Sequence[Any]:
        """See `Stretch`."""
        return self._stretch.values()[: self._count]

    def texts(self) -> Sequence[Text]:
        """See `Stretch`."""
        return self._stretch.texts()[: self._count]

    def compact_texts(self) -> Sequence[Text]:
        """See `Stretch`."""
        return self._stretch.compact_texts()[: self._count]

    def line(self, at: int) -> int | None:
        """See `Stretch`."""
        return self._stretch.line(at)

    def position(self, at: int, byte: int) -> TextPosition | None:
        """See `Stretch`."""
        return self._stretch.position(at, byte)


class DeadLetterSlice(RecordSlice):
    """What a dead letter file has for one record, which knows where it first came from."""

    def __init__(
        self, letter: DeadLetter, texts: Sequence[Text], flaw: RecordError | None = None
    ) -> None:
        super().__init__(letter.record or 1)
        self.file, self.error = letter.file, flaw
        self._letter, self._texts = letter, texts

    @property
    def size(self) -> int:
        """See `Stretch`."""
        return sum(memoryview(text).nbytes for text in self._texts)

    def values(self) -> Sequence[Any]:
        """See `Stretch`."""
        return list(map(decode, self._texts))

    def texts(self) -> Sequence[Text]:
        """See `Stretch`."""
        return self._texts

    def line(self, at: int) -> int | None:  # noqa: ARG002 - there is one
        """See `Stretch`."""
        return self._letter.line
