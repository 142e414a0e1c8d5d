"""Records of a JSON array that is too large for memory, read in windows."""

from __future__ import annotations

import io
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.core.records import Position
from asyncbatch.formats.array_cutter import ArrayCutter, Cut, find_array
from asyncbatch.formats.failures import InvalidTextError
from asyncbatch.formats.grammar import Fault
from asyncbatch.formats.positions import (
    BOM,
    WHITE_SPACE,
    TextPosition,
    count_code_points,
    find_values,
    format_pointer,
)
from asyncbatch.storage.local import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncbatch.core.settings import Sizes
    from asyncbatch.formats.validator import Validator


class ArrayReader:
    """The part of a stream that is in memory.

    `text` begins at position `position`. `is_ended` is true if the stream has no more. `seek` moves
    `chunks` to a byte of the stream, where possible.
    """

    def __init__(
        self, chunks: Iterator[bytes], seek: Callable[[int], object] | None = None
    ) -> None:
        self.text = b""
        self.position: Position = Position()
        self.is_ended: bool = False
        self._chunks, self._seek = chunks, seek
        self._ahead: deque[bytes] = deque()  # chunks that were read and are not in `text` yet

    @property
    def read_to(self) -> int:
        """The byte of the stream up to which chunks have been read."""
        return self.position.byte + len(self.text) + sum(map(len, self._ahead))

    def has_bytes(self, size: int) -> bool:
        """Whether `size` more bytes follow. Reads them ahead, and keeps them."""
        missing = size - len(self.text) - sum(map(len, self._ahead))
        while missing > 0 and (chunk := next(self._chunks, None)) is not None:
            self._ahead.append(chunk)
            missing -= len(chunk)
        return missing <= 0

    def fill(self, size: int) -> None:
        """Read until `text` has `size` bytes, or the stream ends."""
        chunks, length = [self.text], len(self.text)
        while length < size and not self.is_ended:
            chunk = self._ahead.popleft() if self._ahead else next(self._chunks, None)
            if chunk is None:
                self.is_ended = True
            else:
                chunks.append(chunk)
                length += len(chunk)
        if len(chunks) > 1:
            self.text = b"".join(chunks)

    def drop(self, count: int, records: int = 0) -> None:
        """Drop the first `count` bytes, which hold `records` records."""
        self.position = position_after(self.position, self.text[:count], records)
        self.text = self.text[count:]

    def skip_bom(self) -> None:
        """Drop a byte order mark, which has no column."""
        if self.text.startswith(BOM):
            self.text = self.text[len(BOM) :]
            self.position = Position(len(BOM))

    def skip_space(self) -> bytes:
        """Drop white space. Return the byte that follows, or nothing at the end."""
        while True:
            rest = self.text.lstrip(WHITE_SPACE)
            self.drop(len(self.text) - len(rest))
            if rest or self.is_ended:
                return rest[:1]
            self.fill(1)

    def jump(self, position: Position) -> None:
        """Drop all bytes before `position`, which lies ahead."""
        at = self.position.byte
        if self._seek is not None and position.byte - at > len(self.text):
            self._seek(position.byte)
            self._ahead.clear()
            self.text, at = b"", position.byte
        while (ahead := position.byte - at) > len(self.text) and not self.is_ended:
            at += len(self.text)
            self.text = b""
            self.fill(1)
        self.text, self.position = self.text[ahead:], position

    def rest(self) -> Iterator[bytes]:
        """Yield the text in memory, then the rest of the stream. None of it is kept."""
        text, self.text = self.text, b""
        yield text
        del text
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._chunks


def position_after(at: Position, text: bytes, records: int) -> Position:
    """Return the position after a text of `records` records that begins at `at`."""
    ends = text.count(b"\n") if b"\n" in text else 0  # searching is far faster than counting
    last = text.rfind(b"\n") + 1 if ends else 0
    column = count_code_points(text, last) + (0 if ends else at.column)
    return Position(at.byte + len(text), at.record + records, at.line + ends, column)


def text_position_after(at: Position, text: bytes) -> TextPosition:
    """Return the text position after a text that begins at `at`."""
    end = position_after(at, text, 0)
    return TextPosition(end.line + 1, end.column + 1, end.byte)


_BRACKET = 0x5B
# An error this close to the end of the text may disappear when more bytes follow.
_EDGE_BYTES = 64
_UNCHECKED_WINDOWS = 8  # windows that an element may fill before it is checked for errors
_SEARCH_BYTES = 64 * 1024  # bytes that show the type of a value, or an error


class ArrayWindow(NamedTuple):
    """Some whole elements of an array, after its opening bracket or their comma.

    `start` is the position of the text, `end` the position after it.
    """

    start: Position
    text: bytes
    elements: int
    end: Position


def as_array(text: bytes) -> bytes:
    """Return the text of an `ArrayWindow` as an array.

    Offsets stay the same: a bracket replaces the first byte.
    """
    return b"[%b]" % text[1:]


class ArrayStream:
    """An array that is too large for memory: the document, or the array at a pointer.

    Call `begin` first, then `windows` or `whole`. `seek` moves the chunks to a byte of the text.
    For one thread.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        pointer: Sequence[str] | None,
        validator: Validator,
        sizes: Sizes,
        seek: Callable[[int], object] | None = None,
    ) -> None:
        self._reader, self._pointer = ArrayReader(chunks, seek), pointer or ()
        self._validator, self._sizes = validator, sizes
        self._search_bytes = max(len(BOM) + 1, min(_SEARCH_BYTES, sizes.split))
        self._cutter = ArrayCutter(validator)
        self._head = b""  # the text before the array, without the byte order mark
        self._window_bytes = sizes.split  # the size at which a window may hold a boundary

    def begin(self, *, whole: bool = False, is_split: bool = False) -> bool:
        """Whether the text exceeds the limit and contains the array.

        `whole`: the caller wants no array. `is_split`: the text is known to exceed the limit, and
        only its head is read. Raises the errors of reading, and InvalidTextError.
        """
        reader = self._reader
        if whole or not (is_split or reader.has_bytes(self._sizes.split_threshold + 1)):
            return False
        at = self._find()
        if at is None:
            return False
        reader.skip_bom()
        self._head = reader.text[: at - reader.position.byte]
        if self._pointer:
            self._check_head()
        reader.drop(len(self._head))
        return True

    def _find(self) -> int | None:
        """Return the array's offset in the first `Sizes.split_threshold` bytes, or None."""
        reader, size, at = self._reader, self._search_bytes, None
        while at is None:
            reader.fill(min(size, self._sizes.split_threshold))
            text = reader.text
            blank = len(text) - len(text.removeprefix(BOM).lstrip(WHITE_SPACE))
            if self._pointer:
                at = find_array(text, self._pointer)
            elif blank < len(text):
                return blank if text[blank] == _BRACKET else None
            if reader.is_ended or size >= self._sizes.split_threshold:
                break
            size *= 8
        return at

    def whole(self, *, drain: bool = False) -> bytes:
        """Return the whole text. Raises TooLargeError, InvalidTextError.

        With `drain`, a syntax error near the start is raised only after the rest was read: an error
        of reading takes precedence.
        """
        limit, buffer, chunks = self._sizes.document, io.BytesIO(), self._reader.rest()
        is_checked = False
        for chunk in chunks:
            buffer.write(chunk)
            if buffer.tell() > limit:
                raise TooLargeError(buffer.tell(), limit, _too_large_document(limit))
            if not is_checked and buffer.tell() > self._sizes.split_threshold:
                is_checked = True
                if fault := self._early_fault(buffer.getvalue()[:_SEARCH_BYTES]):
                    if drain:
                        for _ in chunks:
                            pass
                    raise fault
        return buffer.getvalue()

    def _early_fault(self, head: bytes) -> InvalidTextError | None:
        fault = _examine(head)
        if fault is None or fault.byte > len(head) - _EDGE_BYTES:
            return None
        reader = ArrayReader(iter(()))
        reader.text = head
        reader.skip_bom()
        return InvalidTextError(
            fault, text_position_after(reader.position, head[reader.position.byte : fault.byte])
        )

    def windows(self, resume: Position | None = None) -> Iterator[ArrayWindow]:
        """Yield the elements of the array, from `resume` if it is given.

        Raises InvalidTextError, TooLargeError and the errors of reading, after all earlier
        elements.
        """
        reader = self._reader
        if resume is not None and resume.record:
            reader.jump(resume)
        while not self._is_at_end():
            cut, problem = self._cut()
            if cut is not None:
                # Large elements often follow each other: a guess finds the next end in this window.
                likely = cut.at * 5 // 4 if cut.elements == 1 else 0
                self._window_bytes = min(max(self._sizes.split, likely), self._sizes.record)
                start, text = reader.position, reader.text[: cut.at]
                end = position_after(start, text, cut.elements)
                reader.text, reader.position = reader.text[cut.at :], end
                yield ArrayWindow(start, text, cut.elements, end)
                del text  # frees the memory before the next window is read
            if problem is not None:
                raise problem
        self._check_text_after_array()

    @property
    def position(self) -> Position:
        """The position of the stream."""
        return self._reader.position

    @property
    def read_to(self) -> int:
        """The byte up to which the stream has been read."""
        return self._reader.read_to

    def _is_at_end(self) -> bool:
        """Whether no element follows. Raises InvalidTextError for an invalid byte."""
        reader = self._reader
        if reader.position.record:
            byte = reader.skip_space()
            # a stray brace looks like an end when braces are counted
            if byte and byte not in b",]":
                self._raise_fault(self._opener, reader.text)
            return byte == b"]"
        size = self._search_bytes
        reader.fill(size)
        while not (rest := reader.text[1:].lstrip(WHITE_SPACE)) and not reader.is_ended:
            if size > self._sizes.record:
                break
            size *= 2
            reader.fill(size)
        if rest[:1] != b"]":
            return False
        reader.drop(len(reader.text) - len(rest))
        return True

    def _cut(self) -> tuple[Cut | None, Exception | None]:
        """Return the next boundary, and the error after it."""
        reader, limit = self._reader, self._sizes.record
        size, is_checked = self._window_bytes, False
        while True:
            reader.fill(size)
            # The text that was read to find the array may be many windows long.
            text = reader.text if len(reader.text) < 2 * size else reader.text[:size]
            if cut := self._cutter.cut(text, reader.position.byte):
                return cut, None
            is_all = len(text) == len(reader.text)
            last = size >= limit or (is_all and reader.is_ended)
            # The check is slow, and most windows without a boundary hold a part of a large element.
            is_large = len(text) >= _UNCHECKED_WINDOWS * self._sizes.split
            is_due = (is_large and not is_checked) or self._cutter.is_doubtful
            if is_all and (last or is_due):
                is_checked = True
                if fault := self._fault():
                    position = text_position_after(reader.position, text[: fault.byte])
                    cut = self._cutter.cut_before(text, fault.byte)
                    return cut, InvalidTextError(fault, position)
            if last:
                number = reader.position.record + 1
                message = f"record {number:,} has more than {limit:,} bytes, the limit"
                return None, TooLargeError(len(text), limit, message)
            size = min(2 * max(size, len(text)), limit)

    def _fault(self) -> Fault | None:
        """Return the error in the text in memory, with an offset in that text."""
        reader, opener = self._reader, self._opener
        fault = _examine(opener + reader.text)
        if fault is None:
            return None
        byte = fault.byte - len(opener)
        if byte > len(reader.text) - _EDGE_BYTES and not reader.is_ended:
            return None
        return fault._replace(byte=byte)

    @property
    def _opener(self) -> bytes:
        """A short prefix with which the text in memory can be checked alone.

        After a mark, text is surely UTF-8. The start of the file was checked for UTF-16 before.
        """
        return BOM + b"[" * len(self._pointer) + (b"[0" if self._reader.position.record else b"")

    def _check_text_after_array(self) -> None:
        """Check the text after the array. Raises InvalidTextError."""
        reader = self._reader
        reader.drop(1)
        if self._pointer:
            self._check_rest()
        elif reader.skip_space():
            reader.fill(_SEARCH_BYTES)
            self._raise_fault(b"[]", reader.text)

    def _raise_fault(self, before: bytes, rest: bytes) -> None:
        """Raise InvalidTextError for the error in `rest`, which follows `before`."""
        fault = _examine(before + rest)
        if fault is not None:
            byte = fault.byte - len(before)
            raise InvalidTextError(fault, text_position_after(self._reader.position, rest[:byte]))

    def _check_head(self) -> None:
        """Raise InvalidTextError if the text before the array is invalid.

        The array's bracket is checked too: it must not follow, for instance, a number.
        """
        head = self._head
        fault = _examine(head + b"[")
        if fault is not None and fault.byte <= len(head):
            raise InvalidTextError(
                fault, text_position_after(self._reader.position, head[: fault.byte])
            )

    def _check_rest(self) -> None:
        """Check the document without the array's elements. Raises InvalidTextError."""
        reader, limit = self._reader, self._sizes.document
        reader.fill(limit + 1)
        if not reader.is_ended:
            raise TooLargeError(len(reader.text), limit, _too_large_document(limit))
        before = self._head + b"[]"
        if isinstance(self._validator(before + reader.text), Fault):
            self._raise_fault(before, reader.text)
        [at] = find_values(before + reader.text, [self._pointer])
        if at != len(self._head):
            name = format_pointer(self._pointer)
            message = f"a second {name!r}: the last one counts, but the first was already processed"
            start = max(0, (at or 0) - len(before))
            position = text_position_after(reader.position, reader.text[:start])
            raise InvalidTextError(Fault("invalid_json", position.byte, message), position)


def _examine(text: bytes) -> Fault | None:
    from asyncbatch.formats.grammar import examine

    verdict = examine(text)
    return verdict if isinstance(verdict, Fault) else None


def _too_large_document(most: int) -> str:
    return (
        f"has more than {most:,} bytes, the limit for a document that cannot be split into records:"
        " use --records to name the array that holds the records"
    )
