"""JSON Lines: splitting into lines, counting, validation."""

from __future__ import annotations

import re
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from asyncbatch.core.settings import Sizes
from asyncbatch.errors import LineTooLongError
from asyncbatch.formats.grammar import Fault
from asyncbatch.formats.line_blocks import BLOCK_BYTES
from asyncbatch.formats.positions import BOM, WHITE_SPACE, TextPosition, locate_byte

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncbatch.core.records import Position
    from asyncbatch.formats.validator import Validator

INNER_BOM = "a byte order mark inside the file"
_BLANK_LINE = Fault("empty", 0, "a blank line")
_BLANK_CANDIDATE = re.compile(rb"\n[ \t\r\n]")
_LF = 0x0A


class InvalidLine(NamedTuple):
    """A line that is not valid JSON: record number (from 1), error, position, text."""

    record: int
    fault: Fault
    position: TextPosition
    text: bytes


class ValidLines:
    """Consecutive lines, each a JSON text.

    `record` and `line` are the numbers (from 1) of the first, `offset` is its first byte, `count`
    is the number of lines. `block` is their text if it is known; the last line may lack its LF.
    """

    __slots__ = ("_texts", "block", "count", "line", "offset", "record")

    def __init__(
        self,
        record: int,
        line: int,
        offset: int,
        texts: Sequence[bytes] | None,
        *,
        block: bytes | None = None,
        count: int = 0,
    ) -> None:
        """Give the lines as `texts`, or as a `block` of `count` lines."""
        self.record, self.line, self.offset = record, line, offset
        self.block, self._texts = block, texts
        self.count: int = count if texts is None else len(texts)

    @property
    def texts(self) -> Sequence[bytes]:
        """The lines, without their ends."""
        if self._texts is None:  # not every reader needs them, and there are many
            self._texts = _split_lines(self.block or b"")
        return self._texts


class Lines(NamedTuple):
    """Whole lines of a file.

    `text` has `lines` lines. `faults` are their errors by index, blank lines included.
    The first is line `line` at byte `offset`, with record number `record`.
    """

    record: int
    line: int
    offset: int
    text: bytes
    lines: int
    faults: dict[int, Fault]

    @property
    def records(self) -> int:
        """The number of records, invalid ones included."""
        return self.lines - sum(fault.kind == "empty" for fault in self.faults.values())

    def split(self) -> Iterator[ValidLines | InvalidLine]:
        """Yield the valid lines in groups and each invalid line, in order."""
        if not self.faults and self.lines:
            yield ValidLines(
                self.record, self.line, self.offset, None, block=self.text, count=self.lines
            )
            return
        texts = _split_lines(self.text)
        record, line, offset, start = self.record, self.line, self.offset, 0
        for index, fault in (*self.faults.items(), (len(texts), None)):
            valid = texts[start:index]
            if valid:
                yield ValidLines(record, line, offset, valid)
            record, line = record + len(valid), line + len(valid)
            offset += sum(map(len, valid)) + len(valid)
            if fault is None:
                return
            text = texts[index]
            if fault.kind != "empty":
                position = locate_byte(text, fault.byte, line=line, offset=offset)
                yield InvalidLine(record, fault, position, text)
                record += 1
            line, offset, start = line + 1, offset + len(text) + 1, index + 1


def validate_lines(
    chunks: Iterable[bytes], validator: Validator, start: Position | None = None
) -> Iterator[Lines]:
    """Yield, for each chunk, the validated lines that end in it, if there are any.

    A line ends at LF; a blank line is not a record. A byte order mark may precede the first line.
    The chunks begin at the beginning of a line: at `start`, if it is not None.
    """
    record, line_number, offset = 1, 1, 0
    if start is not None:
        record, line_number, offset = start.record + 1, start.line + 1, start.byte
    for block in _whole_lines(chunks):
        count, faults = 0, dict[int, Fault]()
        for lines in cut_lines(block, BLOCK_BYTES):
            if added := validator.count_lines(lines):
                count += added
                continue
            texts = _split_lines(lines)
            found = _find_faults(texts, validator)
            if BOM[:1] in lines and BOM in lines:  # searching one byte is ten times as fast
                found = _add_bom_faults(texts, found, first=not offset and not count)
            faults |= {count + index: fault for index, fault in found.items()}
            count += len(texts)
        found_lines = Lines(record, line_number, offset, block, count, faults)
        yield found_lines
        record += found_lines.records
        line_number += count
        offset += len(block)


def _split_lines(lines: bytes) -> list[bytes]:
    texts = lines.split(b"\n")
    if not texts[-1]:
        texts.pop()  # the text after the last LF is not a line yet
    return texts


def _find_faults(texts: list[bytes], validator: Validator) -> dict[int, Fault]:
    """Return the errors of lines by their index, each line validated by itself."""
    faults: dict[int, Fault] = {}
    remaining, index = iter(texts), 0
    while (index := index + validator.take_valid(remaining)) < len(texts):
        line = texts[index]
        verdict = validator.explain(line) if line else _BLANK_LINE
        if isinstance(verdict, Fault):
            faults[index] = verdict
        index += 1
    return faults


def _add_bom_faults(
    texts: Sequence[bytes], faults: dict[int, Fault], *, first: bool
) -> dict[int, Fault]:
    """Return the faults, with one for each byte order mark after the first line."""
    inside = Fault("invalid_json", 0, INNER_BOM)
    marks = {
        index: inside
        for index, line in enumerate(texts)
        if line.startswith(BOM) and not (first and not index)
    }
    return dict(sorted((faults | marks).items()))


def total_lines(lines: bytes) -> int:
    """Return the number of lines, blank ones included. The last may lack its LF."""
    return lines.count(b"\n") + (not lines.endswith(b"\n"))


class LineCount(NamedTuple):
    """The number of line ends, and of records, in some lines."""

    ends: int
    records: int


def count_lines(text: bytes | bytearray, end: int, *, first: bool) -> LineCount:
    """Count the lines of `text[:end]`, of which the last may lack its LF.

    The lines are not validated. `first`: the text begins the file and may have a byte order mark.
    """
    ends = text.count(b"\n", 0, end)
    lines = ends + (end > 0 and text[end - 1] != _LF)
    start = len(BOM) if first and text.startswith(BOM, 0, end) else 0
    blank = start == end or text[start] in WHITE_SPACE
    if blank or _BLANK_CANDIDATE.search(text, start, end):
        texts = text[start:end].split(b"\n")
        if not texts[-1]:
            texts.pop()
        lines = sum(bool(line.strip(WHITE_SPACE)) for line in texts)
    return LineCount(ends, lines)


def cut_lines(lines: bytes, size: int) -> Iterator[bytes]:
    """Yield whole lines of at most `size` bytes together, or one longer line."""
    start = 0
    while len(lines) - start > size:
        end = lines.rfind(b"\n", start, start + size) + 1 or lines.find(b"\n", start) + 1
        if not end:
            break
        yield lines[start:end]
        start = end
    if start < len(lines):
        yield lines[start:]


def detect_lines(
    chunks: Iterable[bytes], validator: Validator, max_line_bytes: float = inf
) -> tuple[bool, Iterator[bytes]]:
    """Return whether the stream is JSON Lines, and its chunks from the start.

    It is JSON Lines if the first line that is not blank is a complete value and more follows. Holds
    at most that line in memory; if the line exceeds `max_line_bytes` bytes, the stream is one JSON
    text.
    """
    source = iter(chunks)
    head = bytearray()
    is_lines = has_line = False
    for chunk in source:
        head += chunk
        has_line = has_line or b"\n" in chunk
        if not has_line:
            if len(head) > max_line_bytes:
                break
            continue
        line, newline, rest = bytes(head).lstrip(WHITE_SPACE).partition(b"\n")
        if newline and rest.strip(WHITE_SPACE):
            is_lines = not isinstance(validator(line), Fault)
            break
    return is_lines, chain((bytes(head),), source)


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Regroup chunks so that each ends at a line end. The last may lack its LF."""
    pieces: list[bytes | memoryview] = []
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if not chunk:
            yield chunk
        elif cut:
            block, rest = chunk, b""
            if pieces or cut < len(chunk):
                block, rest = b"".join((*pieces, memoryview(chunk)[:cut])), chunk[cut:]
            # Large lines are not kept here, too, while the caller works on them.
            pieces = [rest] if rest else []
            yield block
            del block
        else:
            pieces.append(chunk)
    if pieces:
        block = b"".join(pieces)
        pieces.clear()
        yield block


_MAX_LINE_BYTES = Sizes().record


class LineSplitter:
    """Splits data at line ends, and holds an incomplete line until its end arrives."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._pushed_back = b""  # whole lines that `feed` returns before all others

    def feed(self, data: bytes) -> bytes:
        """Return the whole lines up to the end of `data`. Raises LineTooLongError."""
        if self._pushed_back:
            back, self._pushed_back = self._pushed_back, b""
            return back + self.feed(data)
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._hold(data)
            return b""
        lines = b"".join((*self._pieces, data[:cut])) if self._pieces else data[:cut]
        self._pieces, self._held = [], 0
        if cut < len(data):
            self._hold(data[cut:])
        return lines

    def flush(self) -> bytes:
        """Return the last line, if it lacks its LF."""
        rest, self._pieces, self._held = b"".join(self._pieces), [], 0
        return rest

    def push_back(self, lines: bytes) -> None:
        """Put whole lines back; the next `feed` returns them first."""
        self._pushed_back = lines + self._pushed_back

    @property
    def has_pushed_back(self) -> bool:
        """Whether lines were put back and not returned yet."""
        return bool(self._pushed_back)

    @property
    def buffered(self) -> bytes:
        """The bytes that have not been returned yet."""
        return b"".join((self._pushed_back, *self._pieces))

    def restore(self, held: bytes) -> None:
        """Restore a new splitter from the `buffered` bytes of another."""
        cut = held.rfind(b"\n") + 1
        self._pushed_back = held[:cut]
        if held[cut:]:
            self._hold(held[cut:])

    def _hold(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        if self._held > _MAX_LINE_BYTES:
            raise LineTooLongError(
                f"a line of more than {_MAX_LINE_BYTES:,} bytes cannot be an event"
            )


def first_lines(lines: bytes, count: int) -> bytes:
    """Return the first `count` lines that are not blank, and the blank lines before."""
    if lines.count(b"\n") < count:
        return lines
    end = 0
    while count and end < len(lines):
        after = lines.find(b"\n", end) + 1 or len(lines)
        count -= bool(lines[end:after].strip(WHITE_SPACE))
        end = after
    return lines[:end]
